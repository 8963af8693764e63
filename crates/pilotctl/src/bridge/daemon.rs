//! The daemon of this machine, for commands that outlive it.

use std::path::PathBuf;
use std::time::Duration;

use pilot_client::Client;
use tokio::sync::watch;

use super::crowd::Notice;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Format;

/// How long a connection waits for a daemon that is being restarted. A restart takes about a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pauses between two tries to find it again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The connection to the daemon. When that ends it is made anew, for as long as one of these is left.
#[derive(Clone)]
pub(crate) struct Daemon {
    current: watch::Receiver<Option<Client>>,
    socket: PathBuf,
}

impl Daemon {
    /// Connects, which must work the first time.
    pub(crate) async fn connect(ctx: &Context) -> Result<Self, Failure> {
        let client = ctx.client().await?;
        let (keeper, current) = watch::channel(Some(client.clone()));
        tokio::spawn(keep(client, keeper, ctx.format));
        Ok(Self { current, socket: ctx.settings.socket() })
    }

    /// The connection as it is; one that is being made anew is waited for a little.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let mut current = self.current.clone();
        match tokio::time::timeout(PATIENCE, present(&mut current)).await {
            Ok(Some(client)) => Ok(client),
            Ok(None) | Err(_) => Err(Failure::not_running(&self.socket)),
        }
    }

    /// As [`Daemon::client`], however long that takes.
    pub(crate) async fn client_at_last(&self) -> Option<Client> {
        present(&mut self.current.clone()).await
    }
}

async fn present(current: &mut watch::Receiver<Option<Client>>) -> Option<Client> {
    let stands = |client: &Option<Client>| client.as_ref().is_some_and(Client::is_connected);
    current.wait_for(stands).await.ok().and_then(|client| client.clone())
}

async fn keep(mut client: Client, current: watch::Sender<Option<Client>>, format: Format) {
    loop {
        tokio::select! {
            _ = client.ended() => {}
            () = current.closed() => return,
        }
        current.send_replace(None);
        Notice::DaemonGone.tell(format);
        tokio::select! {
            back = found_again(&client) => client = back,
            () = current.closed() => return,
        }
        Notice::DaemonBack.tell(format);
        current.send_replace(Some(client.clone()));
    }
}

async fn found_again(lost: &Client) -> Client {
    let (mut pause, longest) = PAUSE;
    loop {
        match lost.reconnect().await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(longest);
    }
}
