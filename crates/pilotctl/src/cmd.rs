//! The commands, one file each: its arguments, what it does, and the report it prints.

pub(crate) mod agent;
pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod capture;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod context;
pub(crate) mod daemon;
pub(crate) mod data;
pub(crate) mod datagram;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod find;
pub(crate) mod forward;
pub(crate) mod gateway;
pub(crate) mod handshake;
pub(crate) mod health;
pub(crate) mod hook;
pub(crate) mod hostname;
pub(crate) mod identity;
pub(crate) mod inbox;
pub(crate) mod info;
pub(crate) mod key;
pub(crate) mod lookup;
pub(crate) mod mailbox;
pub(crate) mod man;
pub(crate) mod mcp;
pub(crate) mod netcheck;
pub(crate) mod network;
pub(crate) mod operator;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod ping;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod received;
pub(crate) mod recovery;
pub(crate) mod recv;
pub(crate) mod rendezvous;
pub(crate) mod reply;
pub(crate) mod schema;
pub(crate) mod search;
pub(crate) mod send;
pub(crate) mod send_file;
pub(crate) mod send_message;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod subscribe;
pub(crate) mod tags;
pub(crate) mod task;
pub(crate) mod top;
pub(crate) mod traceroute;
pub(crate) mod trust;
pub(crate) mod version;
pub(crate) mod visibility;
pub(crate) mod webhook;
pub(crate) mod why;

use std::path::PathBuf;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Flags;

/// The settings that this command's own flags speak of, and the settings file it names.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a new command has no settings among its flags unless it says so here"
)]
pub(crate) fn flags(command: &Command) -> (Flags, Option<PathBuf>) {
    match command {
        Command::Daemon(daemon::Command::Run(flags)) => (flags.settings(), flags.config.clone()),
        Command::Daemon(daemon::Command::Start(args) | daemon::Command::Restart(args)) => {
            (args.daemon.settings(), args.daemon.config.clone())
        }
        Command::Daemon(daemon::Command::Install(args)) => {
            (args.daemon.settings(), args.daemon.config.clone())
        }
        Command::Rendezvous(rendezvous::Command::Run(args) | rendezvous::Command::Start(args)) => {
            (args.settings(), None)
        }
        Command::Rendezvous(rendezvous::Command::Beacon(args)) => (args.settings(), None),
        Command::Rendezvous(rendezvous::Command::Status(args)) => {
            let address = args.registry_addr.clone();
            (address.into_iter().map(|address| ("registry_addr", address)).collect(), None)
        }
        Command::Rendezvous(
            rendezvous::Command::Restore(rendezvous::RestoreArgs { store, .. })
            | rendezvous::Command::Import(rendezvous::ImportArgs { store, .. }),
        ) => (store.clone().into_iter().map(|store| ("store", store)).collect(), None),
        Command::Recovery(recovery::Args { command: recovery::Command::Use(args) }) => {
            let registry = args.registry.clone();
            (registry.into_iter().map(|registry| ("registry", registry)).collect(), None)
        }
        _ => (Flags::new(), None),
    }
}

/// Carries out a command.
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Demo(args) => demo::run(ctx, &args).await,
        Command::Daemon(command) => daemon::dispatch(ctx, command).await,
        Command::Rendezvous(command) => rendezvous::dispatch(ctx, command).await,
        Command::Info(args) => info::run(ctx, &args).await,
        Command::Status(args) => status::run(ctx, &args).await,
        Command::Health(args) => health::run(ctx, &args).await,
        Command::Peers(args) => peers::run(ctx, &args).await,
        Command::Connections(args) => connections::run(ctx, &args).await,
        Command::Disconnect(args) => connections::disconnect(ctx, &args).await,
        Command::Find(args) => find::run(ctx, &args).await,
        Command::Lookup(args) => lookup::run(ctx, &args).await,
        Command::Search(args) => search::run(ctx, args).await,
        Command::Handshake(args) => handshake::run(ctx, &args).await,
        Command::Pending(args) => trust::pending(ctx, args.wait).await,
        Command::Approve(args) => trust::approve(ctx, &args).await,
        Command::Reject(args) => trust::reject(ctx, &args).await,
        Command::Trust(args) => trust::run(ctx, args).await,
        Command::Trusted(args) => trust::list(ctx, &args.filter).await,
        Command::Untrust(args) => trust::untrust(ctx, &args.target).await,
        Command::Connect(args) => connect::run(ctx, &args).await,
        Command::Send(args) => send::run(ctx, args).await,
        Command::Recv(args) => recv::run(ctx, &args).await,
        Command::Listen(args) => datagram::listen(ctx, &args).await,
        Command::Dgram(args) => datagram::send(ctx, &args).await,
        Command::Broadcast(args) => datagram::broadcast(ctx, &args).await,
        Command::SendMessage(args) => send_message::run(ctx, &args).await,
        Command::SendFile(args) => send_file::run(ctx, &args).await,
        Command::Inbox(args) => inbox::run(ctx, &args).await,
        Command::Outbox(args) => outbox::run(ctx, &args).await,
        Command::Reply(args) => reply::run(ctx, &args).await,
        Command::Serve(args) => serve::run(ctx, args).await,
        Command::Forward(args) => forward::run(ctx, args).await,
        Command::Proxy(args) => proxy::run(ctx, args).await,
        Command::Gateway(command) => gateway::dispatch(ctx, command).await,
        Command::Task(command) => task::run(ctx, command).await,
        Command::EnableTasks(_) => task::enable(ctx, true).await,
        Command::DisableTasks(_) => task::enable(ctx, false).await,
        Command::Hook(args) => hook::run(ctx, &args).await,
        Command::Policy(args) => policy::run(ctx, &args).await,
        Command::PortPolicy(args) => policy::port_policy(ctx, &args).await,
        Command::Mailbox(args) => mailbox::run(ctx, &args).await,
        Command::Mcp(args) => mcp::run(ctx, &args).await,
        Command::Received(args) => received::run(ctx, &args).await,
        Command::Subscribe(args) => subscribe::run(ctx, &args).await,
        Command::Publish(args) => publish::run(ctx, &args).await,
        Command::Events(args) => events::run(ctx, args).await,
        Command::Data(command) => data::run(ctx, command).await,
        Command::Ping(args) => ping::run(ctx, &args).await,
        Command::Why(args) => why::run(ctx, &args).await,
        Command::Doctor(args) => doctor::run(ctx, &args).await,
        Command::Netcheck(args) => netcheck::run(ctx, &args).await,
        Command::Traceroute(args) => traceroute::run(ctx, &args).await,
        Command::Bench(args) => bench::run(ctx, &args).await,
        Command::Top(args) => top::run(ctx, &args).await,
        Command::Capture(args) => capture::run(ctx, &args).await,
        Command::SetHostname(args) => hostname::set(ctx, &args.name).await,
        Command::ClearHostname(_) => hostname::set(ctx, "").await,
        Command::SetPublic(_) => visibility::set(ctx, true).await,
        Command::SetPrivate(_) => visibility::set(ctx, false).await,
        Command::SetVisibility(args) => visibility::set(ctx, args.visibility == "public").await,
        Command::SetTags(args) => tags::set(ctx, &args.tags).await,
        Command::ClearTags(_) => tags::set(ctx, &[]).await,
        Command::Tags(command) => tags::run(ctx, command).await,
        Command::SetWebhook(args) => webhook::set(ctx, &args.url).await,
        Command::ClearWebhook(_) => webhook::set(ctx, "").await,
        Command::RotateKey(_) => identity::rotate(ctx).await,
        Command::Recovery(args) => recovery::run(ctx, &args).await,
        Command::Deregister(_) => identity::deregister(ctx).await,
        Command::Network(command) => network::run(ctx, command).await,
        Command::Join(args) => network::join(ctx, &args).await,
        Command::Agent(command) => agent::run(ctx, command).await,
        Command::Key(command) => key::run(ctx, command).await,
        Command::Audit(args) => operator::audit(ctx, &args).await,
        Command::Provision(args) => operator::provision(ctx, &args).await,
        Command::ProvisionStatus(args) => operator::status(ctx, &args).await,
        Command::Init(args) => config::init(ctx, &args),
        Command::Config(args) => config::run(ctx, &args),
        Command::Context(_) => Ok(context::run()),
        Command::Schema(args) => schema::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Version(_) => version::run(ctx).await,
    }
}
