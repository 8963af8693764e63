//! `pilotctl proxy`: a proxy for programs that know nothing but host names.

mod http;
mod socks;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl proxy --socks5 127.0.0.1:1080\n  \
    pilotctl proxy --socks5 127.0.0.1:1080 --http 127.0.0.1:8118\n  \
    curl --proxy socks5h://127.0.0.1:1080 http://agent-b.pilot/\n  http_proxy=http://127.0.0.1:8118 curl http://agent-b.pilot/",
    after_help = "Host names: agent-b.pilot (hostname), 2.pilot (node number), 1-0001.0002.0003.pilot (the address \
    1:0001.0002.0003). All others are refused, and never looked up. The HTTP proxy takes CONNECT and http:// requests, one \
    request per connection."
)]
pub(crate) struct Args {
    /// Listen for SOCKS5: 127.0.0.1:1080, 1080, or unix:/path/of.sock; port 0 is any that is free
    #[arg(long, value_name = "LISTEN", required_unless_present = "http")]
    pub(crate) socks5: Option<Place>,
    /// Listen for HTTP CONNECT and http:// requests
    #[arg(long, value_name = "LISTEN")]
    pub(crate) http: Option<Place>,
    /// So many connections at the same time; more are turned away
    #[arg(long, value_name = "COUNT", default_value_t = 4096,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) limit: u16,
    /// Listen where other machines can connect, and lend them this node's trust
    #[arg(long)]
    pub(crate) allow_remote: bool,
}

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bridge::{
    BadName, Crossing, Crowd, Daemon, Dialler, Listener, Listening, Notice, Place, Reach, Socket, To,
    host_name, part,
};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{notify, process};

/// How long a program may take to say where it wants to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socks5,
    Http,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Http => "http",
        }
    }
}

/// A program that does not get where it wants to go: what it is told in its own language, and why.
struct Refusal {
    words: Vec<u8>,
    peer: String,
    failure: Box<Failure>,
}

/// `pilotctl proxy`
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    let asked_to_end = process::asked_to_end();
    let daemon = Daemon::connect(ctx).await?;
    let reach = Reach::remote_if(args.allow_remote);
    let (sender, incoming) = mpsc::channel(1);
    let mut sources = JoinSet::new();
    let mut bound = Vec::new();
    for (kind, place) in [(Kind::Socks5, &args.socks5), (Kind::Http, &args.http)] {
        let Some(place) = place else { continue };
        let listener = Listener::bind(place, reach).await?;
        let at = listener.place().to_string();
        bound.push(Notice::Listening(Listening { kind: Some(kind.name()), at, to: None }));
        let sender = sender.clone();
        sources.spawn(async move { while sender.send((kind, listener.accept().await)).await.is_ok() {} });
    }
    bound.iter().for_each(|notice| notice.tell(ctx.format));
    notify::ready();
    let dialler = Arc::new(Dialler::new(daemon));
    let carry = move |(kind, socket)| carry(kind, socket, Arc::clone(&dialler));
    let turn_away = |(_, socket): (Kind, Socket)| socket.reset();
    Box::pin(Crowd::new(ctx, args.limit).attend(incoming, sources, asked_to_end, carry, turn_away)).await
}

async fn carry(kind: Kind, socket: Socket, dialler: Arc<Dialler>) -> Crossing {
    let served = match kind {
        Kind::Socks5 => socks::serve(socket, &dialler).await,
        Kind::Http => http::serve(socket, &dialler).await,
    };
    match served {
        Ok(crossing) => crossing,
        Err((socket, refusal)) => {
            part(socket, &refusal.words).await;
            Crossing::failed(refusal.peer, *refusal.failure)
        }
    }
}

/// Where a program wants to go, which it says as a host name and a port.
fn destination(host: &str, port: u16) -> Result<To, Failure> {
    match host_name(host) {
        Ok(target) => Ok(To { target, port: pilot_client::Port(port) }),
        Err(BadName::NotOurs) => Err(Failure::new(
            Code::PermissionDenied,
            format!("`{host}` is not a name of this network, and nothing else is reached from here"),
        )
        .hint("names end with .pilot: agent-b.pilot, 1-0001.0002.0003.pilot")),
        Err(BadName::Malformed) => Err(Failure::new(Code::NotFound, format!("`{host}` names no node"))
            .hint("write agent-b.pilot, 2.pilot or 1-0001.0002.0003.pilot")),
    }
}
