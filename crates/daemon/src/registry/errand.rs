//! A few requests to a registry without a daemon, one after the other on one connection.

use pilot_crypto::Identity;
use pilot_wire::NodeId;
use pilot_wire::registry::{Envelope, Request, Response};
use tokio::time::timeout;

use super::REPLY_WAIT;
use super::connection::{Access, Connection};
use super::race::Race;
use super::seals::{Numbers, sealed};
use crate::config::RegistryTls;
use crate::tls::{Known, KnownCertificates};
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
    /// What is to be remembered of the registry's certificate, with its address.
    pub(crate) news: Option<(String, Known)>,
}

impl Errand {
    /// To the first of these registries that can be reached. `known` is what is remembered of their certificates.
    pub(crate) async fn to(
        registries: &[String],
        proxy: Option<Proxy>,
        tls: RegistryTls,
        known: KnownCertificates,
        numbers: Numbers,
    ) -> Result<Self, ErrandError> {
        if registries.is_empty() {
            return Err(ErrandError::Unreachable("no registry is configured".to_owned()));
        }
        let access = Access::new(proxy, tls, known);
        let found = Race::new(registries, 0..registries.len(), &access).finish().await;
        let mut found = found.map_err(|lost| ErrandError::Unreachable(lost.to_string()))?;
        let news = found.connection.news.take().map(|known| (registries[found.index].clone(), known));
        Ok(Self { connection: found.connection, numbers, news })
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
