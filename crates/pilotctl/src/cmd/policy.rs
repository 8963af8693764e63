//! `pilotctl policy` and the article form `port-policy`.

mod show;
mod values;

use pilot_client::Client;
use pilot_client::policy::{
    Audience, Field, GroupName, Overview, PortSet, Question, Rules, Target, Tested, Verdict, Who,
};
use pilot_wire::Port;
use serde::Serialize;

use self::show::Names;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{style, target};

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl policy\n  pilotctl policy show agent-b\n  \
                         pilotctl policy set agent-b ports=1001,1002 max_message=1MB\n  \
                         pilotctl policy deny all --port 1000")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All rules; with a node, what holds for it and by which rule
    Show(ShowArgs),
    /// Set rules of a target: key=value
    Set(SetArgs),
    /// Take rules of a target away
    Unset(UnsetArgs),
    /// Groups of nodes
    #[command(subcommand)]
    Group(GroupCommand),
    /// Allow ports to a target
    Allow(PortArgs),
    /// Deny ports to a target
    Deny(PortArgs),
    /// Whether a node may do something, and by which rule (exit status 4 if not)
    Test(TestArgs),
    /// Read the file of rules again, after it was edited
    #[command(before_help = "Examples:\n  pilotctl policy reload")]
    Reload,
    /// Drop all rules
    #[command(before_help = "Examples:\n  pilotctl policy reset")]
    Reset,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl policy show\n  pilotctl policy show agent-b")]
pub(crate) struct ShowArgs {
    /// Hostname, address or node number
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl policy set all max_message=1MB messages_per_min=600\n  \
                   pilotctl policy set group:workers 'publish=jobs.*,status.>' tasks=no\n  \
                   pilotctl policy set agent-b ports=80,443,1001-1003",
    after_help = "Keys:\n  \
                  ports=80,443|all|none             these ports and no others\n  \
                  publish=T,T  subscribe=T,T        topics it may publish here and hear from here; `none`, or `*` for all\n  \
                  messages_per_min=N                messages and files a minute; more wait; 0 for none at all\n  \
                  bytes_per_min=N                   the same in bytes (64KB, 10MB, unlimited)\n  \
                  max_message=N  max_file=N         longest message and file in bytes\n  \
                  requests=yes|no                   may ask for answers with a deadline\n  \
                  tasks=yes|no  mailbox=yes|no      may give tasks, may have messages kept here\n  \
                  max_hops=N                        automatic answers in a row (0: none)\n  \
                  auto_answers_per_min=N            automatic answers to it a minute\n\
                  The most specific target that says something decides, each key by itself: a node before its groups,\n\
                  groups before `strangers`, those before `all`."
)]
pub(crate) struct SetArgs {
    /// `all`, `strangers`, `group:NAME`, a node, or `key:FINGERPRINT`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// One or more rules
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub(crate) values: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl policy unset agent-b max_message\n  pilotctl policy unset group:workers"
)]
pub(crate) struct UnsetArgs {
    /// `all`, `strangers`, `group:NAME`, a node, or `key:FINGERPRINT`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Which rules [default: all of the target's]
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum GroupCommand {
    /// Put nodes into a group; the first makes it
    #[command(before_help = "Examples:\n  pilotctl policy group add workers agent-b agent-c")]
    Add {
        /// Name of the group
        #[arg(value_name = "NAME")]
        name: String,
        /// Hostnames, addresses, node numbers or `key:FINGERPRINT`
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<String>,
    },
    /// Take nodes out of a group; without a node, drop the group and its rules
    #[command(
        before_help = "Examples:\n  pilotctl policy group remove workers agent-c\n  pilotctl policy group remove workers"
    )]
    Remove {
        /// Name of the group
        #[arg(value_name = "NAME")]
        name: String,
        /// Hostnames, addresses, node numbers or `key:FINGERPRINT`
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl policy deny all --port 1000\n  pilotctl policy allow agent-b --port 80,443,1000-1010"
)]
pub(crate) struct PortArgs {
    /// `all`, `strangers`, `group:NAME`, a node, or `key:FINGERPRINT`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Ports and ranges, or `all`
    #[arg(long, value_name = "PORTS")]
    pub(crate) port: PortSet,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl policy test agent-b --port 1000\n  pilotctl policy test agent-b --message 2MB"
)]
#[group(skip)]
pub(crate) struct TestArgs {
    /// Hostname, address or node number
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct QuestionArgs {
    /// Open a stream or send a datagram to this port
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Publish an event about this topic here
    #[arg(long, value_name = "TOPIC", alias = "publish")]
    pub(crate) topic: Option<String>,
    /// Hear an event about this topic from here
    #[arg(long, value_name = "TOPIC")]
    pub(crate) subscribe: Option<String>,
    /// Leave a message of this length
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub(crate) message: Option<u64>,
    /// Leave a file of this length
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub(crate) file: Option<u64>,
    /// Ask for an answer with a deadline
    #[arg(long)]
    pub(crate) request: bool,
    /// Give a task
    #[arg(long)]
    pub(crate) task: bool,
    /// Have messages kept here
    #[arg(long)]
    pub(crate) mailbox: bool,
    /// Have a message answered automatically that so many automatic answers led to
    #[arg(long, value_name = "NUMBER")]
    pub(crate) hops: Option<u8>,
}

impl QuestionArgs {
    fn question(&self) -> Option<Question> {
        None.or_else(|| self.port.map(|port| Question::Port { port: Port(port) }))
            .or_else(|| self.topic.clone().map(|topic| Question::Publish { topic }))
            .or_else(|| self.subscribe.clone().map(|topic| Question::Subscribe { topic }))
            .or_else(|| self.message.map(|bytes| Question::Message { bytes }))
            .or_else(|| self.file.map(|bytes| Question::File { bytes }))
            .or_else(|| self.request.then_some(Question::Request))
            .or_else(|| self.task.then_some(Question::Task))
            .or_else(|| self.mailbox.then_some(Question::Mailbox))
            .or_else(|| self.hops.map(|hops| Question::Answer { hops }))
    }
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl port-policy 7 --allow-trusted\n  \
                         pilotctl port-policy 1003 --allow orchestrator\n  pilotctl port-policy 1000 --deny-all")]
pub(crate) struct PortPolicyArgs {
    /// Ports and ranges
    #[arg(value_name = "PORTS")]
    pub(crate) ports: PortSet,
    #[command(flatten)]
    pub(crate) audience: AudienceArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AudienceArgs {
    /// Whoever this node answers at all
    #[arg(long)]
    pub(crate) allow_all: bool,
    /// Trusted nodes
    #[arg(long)]
    pub(crate) allow_trusted: bool,
    /// These nodes or groups (`group:NAME`) only
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// No other node
    #[arg(long)]
    pub(crate) deny_all: bool,
}

/// `pilotctl policy`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    match &args.command {
        None | Some(Command::Show(ShowArgs { node: None })) => {
            overview(&client, client.policy().await?).await
        }
        Some(Command::Show(ShowArgs { node: Some(node) })) => {
            let peer = target::find(&client, node).await?;
            let effective = client.policy_of(peer.node).await?;
            let names = Names::known(&client).await;
            Ok(Output::of(show::OfPeer::new(
                names.clone(),
                names.named(peer.node, &peer.hostname),
                effective,
            )))
        }
        Some(Command::Set(args)) => {
            let target = target_of(&client, &args.target).await?;
            let rules = client.set_policy(target.clone(), values::rules(&args.values)?).await?;
            changed(&client, target, rules).await
        }
        Some(Command::Unset(args)) => {
            let target = target_of(&client, &args.target).await?;
            let fields = args.keys.iter().map(|key| values::field(key)).collect::<Result<Vec<Field>, _>>()?;
            let rules = client.unset_policy(target.clone(), fields).await?;
            changed(&client, target, rules).await
        }
        Some(Command::Allow(args)) => ports(&client, args, Verdict::Allow).await,
        Some(Command::Deny(args)) => ports(&client, args, Verdict::Deny).await,
        Some(Command::Group(command)) => group(&client, command).await,
        Some(Command::Test(args)) => test(&client, args).await,
        Some(Command::Reload) => {
            let reloaded = client.reload_policy().await?;
            let broken = reloaded.broken.is_some();
            let output = overview(&client, reloaded).await?;
            Ok(if broken { output.exiting_as(Code::Internal) } else { output })
        }
        Some(Command::Reset) => overview(&client, client.reset_policy().await?).await,
    }
}

#[derive(Serialize)]
struct AudienceReport {
    ports: PortSet,
    audience: Audience,
    #[serde(skip)]
    names: Names,
}

impl std::fmt::Display for AudienceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = style::strong(format!("port {}", self.ports));
        match &self.audience {
            Audience::Everybody => write!(f, "{ports} · open to every node that reaches this one"),
            Audience::Trusted => write!(f, "{ports} · open to trusted nodes"),
            Audience::Only(targets) => {
                write!(f, "{ports} · open to {} only", show::origin(&self.names, targets))
            }
            Audience::Nobody => write!(f, "{ports} · closed to other nodes"),
        }
    }
}

/// `pilotctl port-policy`
pub(crate) async fn port_policy(ctx: &Context, args: &PortPolicyArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let given = &args.audience;
    let audience = if given.deny_all {
        Audience::Nobody
    } else if given.allow_trusted {
        Audience::Trusted
    } else if given.allow_all {
        Audience::Everybody
    } else {
        let mut targets = Vec::new();
        for text in &given.allow {
            targets.push(target_of(&client, text).await?);
        }
        Audience::Only(targets)
    };
    client.set_audience(args.ports.clone(), audience.clone()).await?;
    let names = Names::known(&client).await;
    Ok(Output::of(AudienceReport { ports: args.ports.clone(), audience, names }))
}

async fn overview(client: &Client, overview: Overview) -> Result<Output, Failure> {
    let names = Names::known(client).await;
    Ok(Output::of(show::Everything::new(names, overview)))
}

async fn changed(client: &Client, target: Target, rules: Rules) -> Result<Output, Failure> {
    let names = Names::known(client).await;
    Ok(Output::of(show::Changed::new(&names, target, rules)))
}

async fn ports(client: &Client, args: &PortArgs, verdict: Verdict) -> Result<Output, Failure> {
    let target = target_of(client, &args.target).await?;
    let rules = client.decide_ports(target.clone(), verdict, args.port.clone()).await?;
    changed(client, target, rules).await
}

async fn group(client: &Client, command: &GroupCommand) -> Result<Output, Failure> {
    let (name, members) = match command {
        GroupCommand::Add { name, nodes } => {
            let name = group_name(name)?;
            let mut members = Vec::new();
            for node in nodes {
                members = client.add_to_group(name.clone(), who(client, node).await?).await?;
            }
            (name, members)
        }
        GroupCommand::Remove { name, nodes } if nodes.is_empty() => {
            let name = group_name(name)?;
            let members = client.remove_from_group(name.clone(), None).await?;
            (name, members)
        }
        GroupCommand::Remove { name, nodes } => {
            let name = group_name(name)?;
            let mut members = Vec::new();
            for node in nodes {
                members = client.remove_from_group(name.clone(), Some(who(client, node).await?)).await?;
            }
            (name, members)
        }
    };
    let names = Names::known(client).await;
    Ok(Output::of(show::Members::new(&names, name, members)))
}

#[derive(Serialize)]
struct TestReport {
    node: String,
    #[serde(flatten)]
    tested: Tested,
    #[serde(skip)]
    names: Names,
}

impl std::fmt::Display for TestReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = show::origin(&self.names, &self.tested.from);
        match &self.tested.reason {
            None => write!(f, "{} may, by {from}", self.node),
            // No rule of the owner's says so, but the network for which alone the node is trusted.
            Some(reason) if self.tested.from.is_empty() => write!(f, "{} may not: {reason}", self.node),
            Some(reason) => write!(f, "{} may not, by {from}: {reason}", self.node),
        }
    }
}

async fn test(client: &Client, args: &TestArgs) -> Result<Output, Failure> {
    let peer = target::find(client, &args.node).await?;
    let question = args.question.question().ok_or_else(|| Failure::usage("ask for something"))?;
    let tested = client.test_policy(peer.node, question).await?;
    let allowed = tested.allowed;
    let names = Names::known(client).await;
    let output = Output::of(TestReport { node: names.named(peer.node, &peer.hostname), tested, names });
    Ok(if allowed { output } else { output.exiting_as(Code::PermissionDenied) })
}

fn group_name(text: &str) -> Result<GroupName, Failure> {
    text.parse().map_err(|error: pilot_client::policy::ParseTargetError| Failure::usage(error.to_string()))
}

/// A target as the user wrote it; a hostname is looked up now, and the rule is for the node that has it today.
async fn target_of(client: &Client, text: &str) -> Result<Target, Failure> {
    if matches!(text, "all" | "*" | "strangers") || text.starts_with("group:") || text.starts_with("key:") {
        return text
            .parse()
            .map_err(|error: pilot_client::policy::ParseTargetError| Failure::usage(error.to_string()));
    }
    who(client, text).await.map(Target::Peer)
}

async fn who(client: &Client, text: &str) -> Result<Who, Failure> {
    if text.starts_with("key:") {
        return text
            .parse()
            .map_err(|error: pilot_client::policy::ParseTargetError| Failure::usage(error.to_string()));
    }
    Ok(Who::Node(target::find(client, text).await?.node))
}
