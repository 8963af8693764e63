//! The command line as clap reads it. Each command's own arguments stand in its file under `cmd/`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cmd;

const EXAMPLES: &str = "\
Examples:
  pilotctl demo                                    two agents on this machine, the whole story
  pilotctl daemon start --hostname my-agent        one daemon per machine
  pilotctl handshake agent-b \"let us work\"         ask for trust; the other side runs `pilotctl approve`
  pilotctl send-message agent-b --data hi --wait   a message, and its reply
  pilotctl connect agent-b --message hello         a stream
  pilotctl subscribe 'metrics.*'                   events of all trusted peers
";

/// Pilot: a network for agents. Addresses that stay, trust before data, encrypted tunnels through any NAT.
#[derive(Debug, Parser)]
#[command(
    name = "pilotctl",
    version,
    before_help = EXAMPLES,
    disable_help_subcommand = false,
    arg_required_else_help = true,
    propagate_version = true,
    max_term_width = 110,
    after_help = "Targets are addresses (0:0000.0000.0002), node numbers (2) or hostnames (agent-b).\n\
                  Exit status: 0 ok, 1 failed, 2 usage, 3 try again, 4 trust needed, 5 not found, 6 timeout, \
                  7 daemon not running."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes, anywhere on the line.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Print one JSON document (streams: one object per line) on stdout, also for errors
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Socket of the daemon [default: $PILOT_SOCKET or /tmp/pilot.sock]
    #[arg(long, global = true, value_name = "PATH", display_order = 901)]
    pub(crate) socket: Option<PathBuf>,
}

/// Everything `pilotctl` can be asked to do.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play the whole story on this machine: two agents, trust, messages, a stream, a file, events
    Demo(cmd::demo::Args),
    /// Run, start, stop or look at this machine's daemon
    #[command(subcommand)]
    Daemon(cmd::daemon::Command),
    /// Run, start, stop or look at a rendezvous (registry and beacon)
    #[command(subcommand)]
    Rendezvous(cmd::rendezvous::Command),

    /// Address, name, key, registry and peers of this node
    Info(cmd::info::Args),
    /// Whether the daemon runs, in two lines
    Status(cmd::status::Args),
    /// Look for what is wrong on this machine, and say what to do about it
    Doctor(cmd::doctor::Args),
    /// Counters of the running daemon
    Health(cmd::health::Args),
    /// Connected peers, or all that match a search
    Peers(cmd::peers::Args),
    /// Open streams
    Connections(cmd::connections::Args),
    /// Peers, streams and rates of this node, live
    Top(cmd::top::Args),
    /// Close a stream by its number
    Disconnect(cmd::connections::DisconnectArgs),

    /// Find a node by its hostname
    Find(cmd::find::Args),
    /// What the registry says of a node
    #[command(visible_alias = "resolve")]
    Lookup(cmd::lookup::Args),
    /// Find nodes by tag
    #[command(visible_aliases = ["find-by-tag", "discover"])]
    Search(cmd::search::Args),

    /// Ask a node for mutual trust
    Handshake(cmd::handshake::Args),
    /// Who asks for our trust
    Pending(cmd::trust::PendingArgs),
    /// Give the trust that was asked for
    Approve(cmd::trust::ApproveArgs),
    /// Refuse the trust that was asked for
    Reject(cmd::trust::RejectArgs),
    /// The nodes we trust; with a target, approve it or ask it for trust
    Trust(cmd::trust::Args),
    /// The nodes we trust
    Trusted(cmd::trust::TrustedArgs),
    /// Take trust back
    #[command(visible_alias = "revoke")]
    Untrust(cmd::trust::UntrustArgs),

    /// Open a stream: stdin or a message goes out, what comes back is printed until the end
    Connect(cmd::connect::Args),
    /// One message on a stream and one answer; without a port, a message for the inbox
    Send(cmd::send::Args),
    /// Take incoming streams on a port and print what they carry
    Recv(cmd::recv::Args),
    /// Receive datagrams on a port
    Listen(cmd::datagram::ListenArgs),
    /// Send one datagram
    Dgram(cmd::datagram::Args),
    /// Leave a message in a peer's inbox, and wait for a reply if wanted
    SendMessage(cmd::send_message::Args),
    /// Send a file or folder; the receiver checks its hash
    #[command(visible_alias = "send-dir")]
    SendFile(cmd::send_file::Args),
    /// Messages that arrived
    Inbox(cmd::inbox::Args),
    /// Messages on their way: list, show, cancel
    Outbox(cmd::outbox::Args),
    /// Answer a message
    Reply(cmd::reply::Args),
    /// Put a service of this machine on a port of the network, or answer requests with a program
    Serve(cmd::serve::Args),
    /// Listen on this machine; each connection becomes a stream to a peer's port
    Forward(cmd::forward::Args),
    /// A SOCKS5 and HTTP proxy on this machine that knows `agent-b.pilot`
    Proxy(cmd::proxy::Args),
    /// Give peers IP addresses of this machine
    #[command(subcommand)]
    Gateway(cmd::gateway::Command),
    /// Tasks: give, take, follow and answer them
    #[command(subcommand)]
    Task(cmd::task::Command),
    /// Take tasks of every trusted node
    EnableTasks(cmd::task::EnableArgs),
    /// Take tasks only while a program waits for one (the default)
    DisableTasks(cmd::task::DisableArgs),
    /// What the daemon does when a message arrives
    Hook(cmd::hook::Args),
    /// What peers may do here
    Policy(cmd::policy::Args),
    /// The article form of `policy`: who may reach a port
    #[command(hide = true)]
    PortPolicy(cmd::policy::PortPolicyArgs),
    /// Nodes that keep messages while one is away
    Mailbox(cmd::mailbox::Args),
    /// Serve this node to a program that speaks the Model Context Protocol, and what belongs to that
    Mcp(cmd::mcp::Args),
    /// Files that arrived: list, wait, remove
    Received(cmd::received::Args),
    /// Print events as they happen: a topic of all trusted peers, or of one node
    Subscribe(cmd::subscribe::Args),
    /// Publish an event to all trusted peers, or at one node
    Publish(cmd::publish::Args),
    /// How the event stream stands: subscriptions, links to other brokers, history
    Events(cmd::events::Args),
    /// The article forms `data send TARGET FILE` and `data recv`
    #[command(subcommand, hide = true)]
    Data(cmd::data::Command),
    /// Send a datagram to every member of a network
    Broadcast(cmd::datagram::BroadcastArgs),

    /// Round-trip time to a peer
    #[command(visible_alias = "echo")]
    Ping(cmd::ping::Args),
    /// Why a peer is reached as it is, or is not: addresses tried, NATs, relay, next try
    Why(cmd::why::Args),
    /// What the network here lets through: UDP, kind of NAT, beacon, registry
    Netcheck(cmd::netcheck::Args),
    /// The way to a peer: set-up time, path and round trips
    Traceroute(cmd::traceroute::Args),
    /// Throughput to a peer and back
    Bench(cmd::bench::Args),
    /// The packets of this node in clear: a line each, or a file for Wireshark
    Capture(cmd::capture::Args),

    /// Claim a hostname for this node
    SetHostname(cmd::hostname::SetArgs),
    /// Give the hostname up
    ClearHostname(cmd::hostname::ClearArgs),
    /// Let everybody resolve and reach this node
    SetPublic(cmd::visibility::PublicArgs),
    /// Only trusted nodes resolve and reach this node (the default)
    SetPrivate(cmd::visibility::PrivateArgs),
    /// `set-visibility public|private`
    #[command(hide = true)]
    SetVisibility(cmd::visibility::Args),
    /// Tags under which this node is found; replaces the old ones
    SetTags(cmd::tags::SetArgs),
    /// Remove all tags
    ClearTags(cmd::tags::ClearArgs),
    /// The article forms `tags set a,b` and `tag add a b`
    #[command(subcommand, hide = true, alias = "tag")]
    Tags(cmd::tags::Command),
    /// Post events to a URL
    SetWebhook(cmd::webhook::SetArgs),
    /// Post events no more
    ClearWebhook(cmd::webhook::ClearArgs),
    /// Replace the node's key; address and number stay
    RotateKey(cmd::identity::RotateArgs),
    /// A key for the day on which the node's own is lost
    Recovery(cmd::recovery::Args),
    /// Withdraw this node from the registry
    Deregister(cmd::identity::DeregisterArgs),
    /// Networks: join, leave, members, trust, roles, limits
    #[command(subcommand)]
    Network(cmd::network::Command),
    /// The article form of `network join`
    #[command(hide = true)]
    Join(cmd::network::JoinArgs),
    /// Service agents of a network: publish, find, run a directory
    #[command(subcommand)]
    Agent(cmd::agent::Command),
    /// For how long a node's key is valid
    #[command(subcommand)]
    Key(cmd::key::Command),
    /// What was changed at the registry, by whom (operator)
    Audit(cmd::operator::AuditArgs),
    /// Make a network as a blueprint says (operator)
    Provision(cmd::operator::ProvisionArgs),
    /// The networks of the registry as provisioning sees them (operator)
    ProvisionStatus(cmd::operator::StatusArgs),

    /// Write settings for this machine
    Init(cmd::config::InitArgs),
    /// Settings, each with where it came from; `--set key=value` changes one
    Config(cmd::config::Args),
    /// All commands, codes and settings as one document, for programs and models
    Context(cmd::context::Args),
    /// What commands take and print, as JSON Schema: a tool's definition, made of the command
    Schema(cmd::schema::Args),
    /// The manual page of a command
    Man(cmd::man::Args),
    /// Completions for a shell
    Completions(cmd::completions::Args),
    /// Version of this program and of the running daemon
    Version(cmd::version::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_has_examples_of_itself_before_anything_else() {
        let without: Vec<String> = leaves(&Cli::command(), String::new())
            .into_iter()
            .filter(|(name, command)| {
                let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
                !help.starts_with("Examples:") || !help.contains(&format!("pilotctl{name}"))
            })
            .map(|(name, _)| name)
            .collect();
        assert_eq!(without, Vec::<String>::new());
    }

    fn leaves(command: &clap::Command, name: String) -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let name = format!("{name} {}", sub.get_name());
            if sub.has_subcommands() {
                found.extend(leaves(sub, name));
            } else {
                found.push((name, sub.clone()));
            }
        }
        found
    }
}
