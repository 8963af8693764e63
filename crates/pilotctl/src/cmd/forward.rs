//! `pilotctl forward`: a local socket whose connections are streams to a peer's port.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl forward 127.0.0.1:9090 agent-b:80\n  pilotctl forward 0 agent-b:80       \
    (any free port; it is printed)\n  pilotctl forward unix:/tmp/b.sock 1:0001.0002.0003:443",
    after_help = "When the daemon is restarted, the listener stays, and a connection waits up to 5 s for it. On SIGTERM or \
    Ctrl-C no more is accepted, and open connections have 10 s to finish."
)]
pub(crate) struct Args {
    /// Where to listen: 127.0.0.1:9090, 9090, or unix:/path/of.sock; port 0 is any that is free
    #[arg(value_name = "LISTEN")]
    pub(crate) listen: Place,
    /// The peer and its port: agent-b:80
    #[arg(value_name = "TARGET:PORT")]
    pub(crate) to: To,
    /// So many connections at the same time; more are turned away
    #[arg(long, value_name = "COUNT", default_value_t = 4096,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) limit: u16,
    /// Listen where other machines can connect, and lend them this node's trust
    #[arg(long)]
    pub(crate) allow_remote: bool,
}

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bridge::{Crowd, Daemon, Dialler, Listener, Listening, Notice, Place, Reach, Socket, To};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{notify, process};

/// `pilotctl forward`
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    let asked_to_end = process::asked_to_end();
    let daemon = Daemon::connect(ctx).await?;
    let listener = Listener::bind(&args.listen, Reach::remote_if(args.allow_remote)).await?;
    let at = listener.place().to_string();
    let (sender, incoming) = mpsc::channel(1);
    let mut sources = JoinSet::new();
    sources.spawn(async move { while sender.send(listener.accept().await).await.is_ok() {} });
    Notice::Listening(Listening { kind: None, at, to: Some(args.to.to_string()) }).tell(ctx.format);
    notify::ready();
    let (dialler, to) = (Arc::new(Dialler::new(daemon)), Arc::new(args.to));
    let carry = move |socket| {
        let (dialler, to) = (Arc::clone(&dialler), Arc::clone(&to));
        async move { dialler.carry(socket, &to).await }
    };
    let crowd = Crowd::new(ctx, args.limit);
    Box::pin(crowd.attend(incoming, sources, asked_to_end, carry, Socket::reset)).await
}
