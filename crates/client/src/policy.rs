//! The owner's rules: what other nodes may do at this one.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer that does not belong to the question is an error, whichever it is"
)]

pub use pilot_wire::policy::*;

use pilot_wire::NodeId;
use pilot_wire::ipc::Call;

use crate::{Client, Error};

/// The owner's rules for other nodes.
///
/// ```no_run
/// # async fn agent() -> Result<(), pilot_client::Error> {
/// use pilot_client::Client;
/// use pilot_client::policy::{Limit, PortRules, Question, Rules, Target, Who};
///
/// let client = Client::connect().await?;
/// let worker = client.resolve("worker-node").await?.node_id;
/// let rules = Rules {
///     ports: Some(PortRules::only("1001,1002".parse().unwrap_or_default())),
///     max_message: Some(Limit::Of(1 << 20)),
///     ..Rules::default()
/// };
/// client.set_policy(Target::Peer(Who::Node(worker)), rules).await?;
/// assert!(!client.test_policy(worker, Question::Message { bytes: 2 << 20 }).await?.allowed);
/// # Ok(())
/// # }
/// ```
impl Client {
    /// All rules, and how they stand.
    ///
    /// # Errors
    /// When the connection fails, or the daemon is of another make.
    pub async fn policy(&self) -> Result<Overview, Error> {
        self.overview(Request::Show).await
    }

    /// What holds for one node.
    ///
    /// # Errors
    /// When the file of rules is broken.
    pub async fn policy_of(&self, node: NodeId) -> Result<Effective, Error> {
        match self.ask_policy(Request::Peer { node }).await? {
            Reply::Effective(effective) => Ok(*effective),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces the given fields of a target's rules, and returns what its rules are now. They are on disk then.
    ///
    /// # Errors
    /// When the file of rules is broken, cannot be written, or would be too long.
    pub async fn set_policy(&self, target: Target, rules: Rules) -> Result<Rules, Error> {
        self.changed_rules(Request::Set { target, rules: Box::new(rules) }).await
    }

    /// Takes fields of a target's rules away, all if none is named.
    ///
    /// # Errors
    /// As [`Client::set_policy`].
    pub async fn unset_policy(&self, target: Target, fields: Vec<Field>) -> Result<Rules, Error> {
        self.changed_rules(Request::Unset { target, fields }).await
    }

    /// Allows or denies ports to a target, beside what is said of other ports.
    ///
    /// # Errors
    /// As [`Client::set_policy`].
    pub async fn decide_ports(
        &self,
        target: Target,
        verdict: Verdict,
        ports: PortSet,
    ) -> Result<Rules, Error> {
        self.changed_rules(Request::Ports { target, verdict, ports }).await
    }

    /// Says who may reach ports, whatever was said about them before.
    ///
    /// # Errors
    /// As [`Client::set_policy`].
    pub async fn set_audience(&self, ports: PortSet, audience: Audience) -> Result<Overview, Error> {
        self.overview(Request::Audience { ports, audience }).await
    }

    /// Puts a node into a group, which begins with its first member; returns the members.
    ///
    /// # Errors
    /// As [`Client::set_policy`].
    pub async fn add_to_group(&self, group: GroupName, member: Who) -> Result<Vec<Who>, Error> {
        self.members(Request::AddMember { group, member }).await
    }

    /// Takes a node out of a group, or the whole group with its rules away; returns the members that are left.
    ///
    /// # Errors
    /// When there is no such group or member, and as [`Client::set_policy`].
    pub async fn remove_from_group(&self, group: GroupName, member: Option<Who>) -> Result<Vec<Who>, Error> {
        self.members(Request::RemoveMember { group, member }).await
    }

    /// Whether a node may do something now, and by which rule. Nothing is counted.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn test_policy(&self, node: NodeId, question: Question) -> Result<Tested, Error> {
        match self.ask_policy(Request::Test { node, question }).await? {
            Reply::Tested(tested) => Ok(tested),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the file of rules again. One that is broken is told of in [`Overview::broken`].
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn reload_policy(&self) -> Result<Overview, Error> {
        self.overview(Request::Reload).await
    }

    /// Goes back to no rules at all. A broken file is kept beside as `policy.json.broken`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn reset_policy(&self) -> Result<Overview, Error> {
        self.overview(Request::Reset).await
    }

    async fn ask_policy(&self, request: Request) -> Result<Reply, Error> {
        self.call(Call::Policy(request)).await
    }

    async fn overview(&self, request: Request) -> Result<Overview, Error> {
        match self.ask_policy(request).await? {
            Reply::Overview(overview) => Ok(*overview),
            other => Err(unexpected(&other)),
        }
    }

    async fn changed_rules(&self, request: Request) -> Result<Rules, Error> {
        match self.ask_policy(request).await? {
            Reply::Rules { rules, .. } => Ok(*rules),
            other => Err(unexpected(&other)),
        }
    }

    async fn members(&self, request: Request) -> Result<Vec<Who>, Error> {
        match self.ask_policy(request).await? {
            Reply::Members { members, .. } => Ok(members),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("an answer to another question about rules: {reply:?}"))
}
