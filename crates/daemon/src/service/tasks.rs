//! Tasks, port 1003.

use pilot_wire::ipc::Failure;
use pilot_wire::tasks::{Reply, Request};

/// The service; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {}

impl Tasks {
    /// Answers an application.
    #[expect(clippy::unused_async, reason = "filled in with the service")]
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Ok(Reply::State {})
    }
}
