//! One connection while it lasts: what was asked on it, and how long its registry may take.

use std::collections::VecDeque;
use std::time::Duration;

use pilot_proto::{Query, QueryId};
use pilot_wire::PublicKey;
use pilot_wire::registry::{Envelope, Request};
use tokio::time::Instant;

use super::connection::{Connection, Lost};
use super::notices::Notices;
use super::race::{Found, Race};
use super::records::Publication;
use super::{ANSWER_WAIT, CallId, Order, PROBE_WAIT, REPLY_WAIT, SUSPICION};

/// After nobody else could be reached, the registry in use is given this long before others are tried again.
const NO_RIVAL: Duration = Duration::from_secs(2);

/// A request and who wants to know about it.
pub(super) struct Asked {
    /// When the asker began to wait.
    pub(super) since: Instant,
    /// When it was sent.
    pub(super) sent: Instant,
    pub(super) by: Asker,
    /// What was asked, in the registry's word, if a span is to be made of it.
    pub(super) kind: Option<String>,
}

pub(super) enum Asker {
    /// Of this key.
    Registration(PublicKey),
    /// Part of the registration; a refusal is only logged.
    Profile(&'static str),
    Heartbeat,
    /// A heartbeat that is to show whether the connection still works.
    Probe,
    /// The node's signed record.
    Record,
    Inbox,
    Node(QueryId, Query),
    /// With what to ask again elsewhere, if that does no harm.
    Client(CallId, Option<Box<Envelope>>),
    /// Something that nobody waits for.
    Told,
    /// Was answered "unreachable" already; the reply is only taken off the line.
    Nobody,
}

impl Asker {
    /// The order with which the same is asked again. Everything that a node asks may be; `Err` for what may not.
    pub(super) fn again(self) -> Result<Order, Self> {
        match self {
            Self::Node(id, query) => Ok(Order::Query(id, query)),
            Self::Client(id, Some(envelope)) => Ok(Order::Call(id, envelope)),
            other @ (Self::Client(_, None)
            | Self::Registration(_)
            | Self::Profile(_)
            | Self::Heartbeat
            | Self::Probe
            | Self::Record
            | Self::Inbox
            | Self::Told
            | Self::Nobody) => Err(other),
        }
    }
}

/// Whether a request that may have been carried out already can be sent once more: it only asks, or says how things are
/// to be.
pub(super) fn may_be_repeated(request: &Request) -> bool {
    matches!(
        request,
        Request::Lookup(_)
            | Request::Resolve(_)
            | Request::ResolveHostname(_)
            | Request::CheckTrust(_)
            | Request::ListNetworks {}
            | Request::ListNodes(_)
            | Request::GetPoloScore(_)
            | Request::GetMemberRole(_)
            | Request::GetMemberTags(_)
            | Request::GetNetworkPolicy(_)
            | Request::GetExprPolicy(_)
            | Request::BeaconList {}
            | Request::SetVisibility(_)
            | Request::SetHostname(_)
            | Request::SetTags(_)
            | Request::SetTaskExec(_)
            | Request::ReportTrust(_)
            | Request::RevokeTrust(_)
    )
}

pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) asked: VecDeque<Asked>,
    /// Since when the node is registered on it.
    pub(super) registered: Option<Instant>,
    /// What its registry has of our record.
    pub(super) publication: Publication,
    /// Exists once the node is registered.
    pub(super) notices: Option<Notices>,
    pub(super) heartbeat: Instant,
    /// Others are looked for, because the registry owes a reply.
    pub(super) rival: Option<Race>,
    /// Not before this time; never if there are no others.
    rival_from: Option<Instant>,
}

impl Session {
    /// `others`: whether there are other registries.
    pub(super) fn new(connection: Connection, keepalive: Duration, others: bool) -> Self {
        let now = Instant::now();
        Self {
            connection,
            asked: VecDeque::new(),
            registered: None,
            publication: Publication::default(),
            notices: None,
            heartbeat: now + keepalive,
            rival: None,
            rival_from: others.then_some(now),
        }
    }

    /// The next moment at which something is to be done without anything having come.
    pub(super) fn deadline(&self) -> Instant {
        let waits = self.asked.iter().map(Asked::deadline);
        [self.suspect_at(), Some(self.heartbeat)]
            .into_iter()
            .flatten()
            .chain(waits)
            .min()
            .unwrap_or(self.heartbeat)
    }

    /// When the registry will have owed a reply for so long that others are looked for.
    fn suspect_at(&self) -> Option<Instant> {
        let from = self.rival_from.filter(|_| self.rival.is_none())?;
        // Replies come in the order of the requests.
        Some(from.max(self.asked.front()?.sent + SUSPICION))
    }

    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| now >= at)
    }

    /// A reply came.
    pub(super) fn heard(&mut self, now: Instant) {
        for asked in &mut self.asked {
            // The ones behind it waited for it.
            asked.sent = now;
        }
        self.rival = None;
    }

    /// Nobody else could be reached.
    pub(super) fn no_rival(&mut self, now: Instant, lost: &Lost) {
        tracing::debug!(%lost, "no other registry either");
        self.rival = None;
        self.rival_from = Some(now + NO_RIVAL);
    }
}

/// Resolves when another registry was reached, or none can be.
pub(super) async fn rival_found(rival: &mut Option<Race>) -> Result<Found, Lost> {
    match rival {
        Some(race) => race.finish().await,
        None => std::future::pending().await,
    }
}

impl Asked {
    pub(super) fn answer_overdue(&self, now: Instant) -> bool {
        matches!(self.by, Asker::Node(..) | Asker::Client(..)) && now >= self.since + ANSWER_WAIT
    }

    fn deadline(&self) -> Instant {
        match self.by {
            Asker::Node(..) | Asker::Client(..) => self.since + ANSWER_WAIT,
            Asker::Registration(_)
            | Asker::Profile(_)
            | Asker::Heartbeat
            | Asker::Probe
            | Asker::Record
            | Asker::Inbox
            | Asker::Told
            | Asker::Nobody => self.since + self.patience(),
        }
    }

    /// How long the reply may take before the connection counts as dead.
    pub(super) fn patience(&self) -> Duration {
        if matches!(self.by, Asker::Probe) { PROBE_WAIT } else { REPLY_WAIT }
    }
}
