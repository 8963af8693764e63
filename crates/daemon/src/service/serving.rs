//! Requests and their answers.

use super::Remote;
use bytes::Bytes;
use pilot_wire::dataexchange::{Interim, MessageId};
use pilot_wire::ipc::Failure;
use pilot_wire::serving::{Reply, Request};

/// The service; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Serving {}

impl Serving {
    /// Answers an application.
    #[expect(clippy::unused_async, reason = "filled in with the service")]
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Ok(Reply::State {})
    }

    /// A piece of an answer, or word of progress, for whoever waits for it here.
    #[expect(clippy::unused_self, reason = "filled in with requests")]
    pub(super) fn on_interim(&self, _from: &Remote, _reply_to: &MessageId, _interim: Interim, _data: Bytes) {}

    /// The requester no longer waits.
    #[expect(clippy::unused_self, reason = "filled in with requests")]
    pub(super) fn on_cancel(&self, _from: &Remote, _id: &MessageId) {}
}
