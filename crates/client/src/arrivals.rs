//! Files that arrived: listed, waited for and removed through the daemon that received them.

use std::time::{Duration, Instant, SystemTime};

use pilot_wire::NodeId;
use pilot_wire::ipc::Call;
use pilot_wire::received::{ReceivedFile, Reply, Request};
use tokio::time::sleep;

use crate::{Client, Error};

/// Pause before a wait is taken up again with a daemon that was restarted.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// Asks the daemon about the files that peers sent.
    ///
    /// # Errors
    /// When the daemon cannot answer; [`Code::NotFound`](pilot_wire::ipc::Code::NotFound) when a file to be removed is not
    /// there.
    pub async fn received_files(&self, request: Request) -> Result<Reply, Error> {
        self.call(Call::Received(request)).await
    }

    /// Waits for the next file or folder, of anyone or of one sender, that arrives after `since`; `None` when none came in
    /// time. What is waited for lies on disk, so the wait outlives a restart of the daemon.
    ///
    /// # Errors
    /// When the daemon cannot wait.
    pub async fn wait_file(
        &self,
        from: Option<NodeId>,
        since: SystemTime,
        limit: Duration,
    ) -> Result<Option<ReceivedFile>, Error> {
        let started = Instant::now();
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_ns = Some(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let mut client = self.clone();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            match client.received_files(Request::Wait { from, since_ns, timeout_ms }).await {
                Ok(Reply::File(file)) => return Ok(Some(*file)),
                Ok(Reply::TimedOut) => return Ok(None),
                Ok(other @ (Reply::Files { .. } | Reply::Cleared { .. })) => {
                    return Err(Error::Protocol(format!("unexpected answer about files: {other:?}")));
                }
                Err(error @ (Error::Disconnected | Error::Connect(_))) if left > RECONNECT_PAUSE => {
                    sleep(RECONNECT_PAUSE).await;
                    client = client.mended(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
