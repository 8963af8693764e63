//! A few requests to a registry without a daemon, one after the other on one connection.

use pilot_crypto::Identity;
use pilot_wire::NodeId;
use pilot_wire::registry::{Envelope, Request, Response};
use tokio::time::timeout;

use super::connection::Connection;
use super::seals::{Numbers, sealed};
use super::{CONNECT_WAIT, REPLY_WAIT};
use crate::web::Proxy;

/// Why it came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrandError {
    /// The registry refused, with these words.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked.
    #[error("{0}")]
    Unreachable(String),
}

/// The connection.
pub(crate) struct Errand {
    connection: Connection,
    numbers: Numbers,
}

impl Errand {
    /// To the first of these registries that can be reached.
    pub(crate) async fn to(
        registries: &[String],
        proxy: Option<&Proxy>,
        numbers: Numbers,
    ) -> Result<Self, ErrandError> {
        let mut why = "no registry is configured".to_owned();
        for address in registries {
            match timeout(CONNECT_WAIT, Connection::open(address, proxy)).await {
                Ok(Ok(connection)) => return Ok(Self { connection, numbers }),
                Ok(Err(error)) => why = format!("{address}: {error}"),
                Err(_) => why = format!("{address}: no answer"),
            }
        }
        Err(ErrandError::Unreachable(why))
    }

    /// Asks, in the name of `own`, who has this identity.
    pub(crate) async fn ask(
        &mut self,
        request: Request,
        own: Option<NodeId>,
        identity: &Identity,
    ) -> Result<Response, ErrandError> {
        let request = request.sign_with(|text| identity.sign(text));
        let content = sealed(&Envelope::from(request), own, identity, &self.numbers);
        self.connection.queue_json(&content);
        let reply = async {
            loop {
                if let Some(reply) = self.connection.exchange().await? {
                    return Ok::<_, super::Lost>(reply);
                }
            }
        };
        let unreachable = |why: String| ErrandError::Unreachable(why);
        let reply = timeout(REPLY_WAIT, reply)
            .await
            .map_err(|_| unreachable("the registry does not answer".to_owned()))?
            .map_err(|lost| unreachable(lost.to_string()))?;
        match Response::parse(&reply) {
            Ok(Response::Error { error }) => Err(ErrandError::Refused(error)),
            Ok(response) => Ok(response),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}
