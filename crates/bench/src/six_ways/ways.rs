//! The ways in which two agents can talk, each as one would build it today.

pub(crate) mod grpc;
pub(crate) mod mqtt;
pub(crate) mod pilot;
pub(crate) mod polling;
pub(crate) mod webhook;
pub(crate) mod websocket;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::six_ways::Error;
    use crate::six_ways::job::{Chance, Kind, Link, Report, meet, rounds, work};
    use crate::six_ways::role::Name::{A, B};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An address that nobody listens at.
    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
    }

    /// Two agents do the job three times; then B goes, and one that comes in its place is heard and can be asked.
    async fn works(mut a: Link, b: impl Fn() -> Link) {
        let mut chance = Chance::new(1);
        let worker = tokio::spawn(work(b(), false));
        meet(&mut a, &mut false, PATIENCE).await.unwrap();
        let Report::Rounds { answers, news } = rounds(&mut a, 1..4, 1, PATIENCE, &mut chance).await.unwrap()
        else {
            panic!("rounds report rounds");
        };
        assert_eq!((answers.len(), news.len()), (3, 3));
        worker.abort();
        assert!(worker.await.unwrap_err().is_cancelled());
        let _worker = tokio::spawn(work(b(), true));
        let heard = async { while a.incoming.recv().await.unwrap().kind != Kind::Back {} };
        timeout(PATIENCE, heard).await.unwrap();
        rounds(&mut a, 9..10, 1, PATIENCE, &mut chance).await.unwrap();
    }

    /// Starts a server. Agents try until it is there.
    fn start(server: impl Future<Output = Result<(), Error>> + Send + 'static) {
        tokio::spawn(async move { server.await.unwrap() });
    }

    #[tokio::test]
    async fn agents_that_poll_do_the_job() {
        let (server, period) = (free(), Duration::from_millis(5));
        start(polling::serve_boxes(server));
        works(polling::link(A, server, period), || polling::link(B, server, period)).await;
    }

    #[tokio::test]
    async fn agents_with_webhooks_do_the_job() {
        let (at_a, at_b) = (free(), free());
        let (mut a, serving_a) = webhook::link(at_a, at_b);
        let (b, serving_b) = webhook::link(at_b, at_a);
        start(serving_a);
        start(serving_b);
        tokio::spawn(work(b, false));
        rounds(&mut a, 1..4, 1, PATIENCE, &mut Chance::new(1)).await.unwrap();
    }

    #[tokio::test]
    async fn agents_at_a_hub_do_the_job_over_websocket_and_come_back() {
        let hub = free();
        start(websocket::serve_hub(hub));
        works(websocket::link(A, hub), || websocket::link(B, hub)).await;
    }

    #[tokio::test]
    async fn agents_at_a_hub_do_the_job_over_grpc_and_come_back() {
        let hub = free();
        start(grpc::serve_hub(hub));
        works(grpc::link(A, hub), || grpc::link(B, hub)).await;
    }

    #[tokio::test]
    async fn an_agent_waits_for_a_hub_that_starts_later() {
        let hub = free();
        let (mut a, b) = (websocket::link(A, hub), websocket::link(B, hub));
        tokio::spawn(work(b, false));
        sleep(Duration::from_millis(1)).await;
        start(websocket::serve_hub(hub));
        meet(&mut a, &mut false, PATIENCE).await.unwrap();
    }
}
