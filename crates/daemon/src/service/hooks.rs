//! What the owner wants done when a message arrives.

use pilot_wire::hooks::{Reply, Request};
use pilot_wire::ipc::Failure;

/// The service; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Hooks {}

impl Hooks {
    /// Answers an application.
    #[expect(clippy::unused_async, reason = "filled in with the service")]
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Ok(Reply::Hooks { hooks: Vec::new() })
    }
}
