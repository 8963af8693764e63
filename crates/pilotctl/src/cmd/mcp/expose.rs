//! `pilotctl mcp expose`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mcp expose -- uvx mcp-server-sqlite --db-path notes.db\n  \
    pilotctl mcp expose --from agent-b -- ./server.py\n  pilotctl mcp expose --port 1011 --max 2 -- npx -y some-server",
    after_help = "Each stream gets a process of its own, which is killed with all its children when the stream ends. It runs as \
    you and gets PILOT_FROM and PILOT_FROM_HOSTNAME. Only nodes that this node trusts are served, and `pilotctl policy` \
    applies to the port as to any other."
)]
pub(crate) struct Args {
    /// Port to offer it on
    #[arg(long, default_value_t = pilot_mcp::PORT.0, value_name = "PORT")]
    port: u16,
    /// So many streams at the same time; one more is closed at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "COUNT")]
    max: u16,
    /// Only for this node; may be given several times
    #[arg(long, value_name = "TARGET")]
    from: Vec<String>,
    /// The server and its arguments: a program that speaks the protocol on stdin and stdout
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

use std::fmt;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pilot_client::{Client, Stream};
use pilot_wire::ipc::TrustState;
use pilot_wire::{Addr, NodeId, Port};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::{humane, process, style, target};

/// How long a server may take to end by itself when its client has ended, or it is told to.
const GRACE: Duration = Duration::from_secs(2);

/// A stream and what became of it.
#[derive(Serialize)]
struct Served {
    from: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.hostname.clone().unwrap_or_else(|| self.from.to_string());
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        write!(f, "{} · {}{reason}", style::strong(who), self.outcome)
    }
}

/// `pilotctl mcp expose`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut allowed = Vec::new();
    for from in &args.from {
        allowed.push(target::find(&client, from).await?.node);
    }
    let mut listener = client.listen(Port(args.port)).await?;
    let command = Arc::new(args.command.clone());
    let mut running: JoinSet<Served> = JoinSet::new();
    let mut asked_to_end = Box::pin(process::asked_to_end());
    ctx.note(style::faint(format!("serving `{}` on port {}", args.command.join(" "), args.port)));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = accepted?;
                let from = stream.peer().addr;
                if running.len() >= usize::from(args.max) {
                    let reason = Some(format!("{} streams are served already", args.max));
                    // Closed by being dropped.
                    output::item(ctx.format, &Served { from, hostname: None, outcome: "refused", reason })?;
                    continue;
                }
                running.spawn(one(client.clone(), allowed.clone(), Arc::clone(&command), stream));
            }
            Some(ended) = running.join_next() => {
                let served = ended.map_err(|error| Failure::internal(format!("a stream crashed: {error}")))?;
                output::item(ctx.format, &served)?;
            }
            () = &mut asked_to_end => {
                // Dropping the set ends what runs: the processes are killed with it.
                return Ok(Output::streamed());
            }
        }
    }
}

/// Serves one stream to its end.
async fn one(client: Client, allowed: Vec<NodeId>, command: Arc<Vec<String>>, stream: Stream) -> Served {
    let from = stream.peer().addr;
    let refused = |reason: String| Served { from, hostname: None, outcome: "refused", reason: Some(reason) };
    if !allowed.is_empty() && !allowed.contains(&from.node) {
        return refused("it is not one of those it is offered to".to_owned());
    }
    let hostname = match friend(&client, from.node).await {
        Ok(Some(hostname)) => Some(humane::printable(&hostname)).filter(|name| !name.is_empty()),
        Ok(None) => return refused("this node does not trust it".to_owned()),
        Err(failure) => return refused(failure.message),
    };
    let (outcome, reason) = match start(&command, from, hostname.as_deref()) {
        Ok(child) => ("ended", pipe(child, stream).await.err()),
        Err(error) => ("failed", Some(format!("`{}` cannot be started: {error}", command[0]))),
    };
    Served { from, hostname, outcome, reason }
}

/// The name of a node that is trusted, itself or as a member of a network of ours. A public node is sent streams by
/// everybody, so it is not enough that one came.
async fn friend(client: &Client, node: NodeId) -> Result<Option<String>, Failure> {
    if let Some(trusted) = client.trusted().await?.into_iter().find(|trusted| trusted.node_id == node) {
        return Ok(Some(trusted.hostname));
    }
    match client.why(node, Duration::ZERO).await.map_err(Failure::from) {
        Ok(why) if why.trust == TrustState::Trusted || !why.networks.is_empty() => Ok(Some(why.hostname)),
        Ok(_) => Ok(None),
        // A daemon of the reference has no such question.
        Err(failure) if failure.code == Code::Unsupported => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A process that is killed with its children when this is dropped.
struct Group(Child);

impl Group {
    fn signal(&self, signal: Signal) {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended in this moment.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Asked first, then forced.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        if timeout(GRACE, self.0.wait()).await.is_err() {
            self.signal(Signal::KILL);
            drop(self.0.wait().await);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn start(command: &[String], from: Addr, hostname: Option<&str>) -> io::Result<Group> {
    let child = Command::new(&command[0])
        .args(&command[1..])
        .env("PILOT_FROM", from.to_string())
        .env("PILOT_FROM_HOSTNAME", hostname.unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A group of its own: it is ended with all its children, and not by the terminal's Ctrl-C.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Group(child))
}

/// Carries both directions until the server or its client has ended.
async fn pipe(mut group: Group, stream: Stream) -> Result<(), String> {
    let (Some(mut stdin), Some(mut stdout)) = (group.0.stdin.take(), group.0.stdout.take()) else {
        return Err("it has no stdin and stdout".to_owned());
    };
    let (mut reader, mut writer) = stream.into_split();
    let outgoing = async {
        let carried = copy_at_once(&mut stdout, &mut writer).await;
        drop(writer.shutdown().await);
        carried
    };
    let incoming = async {
        let carried = copy(&mut reader, &mut stdin).await;
        // The end of its input tells the server that its client has gone.
        drop(stdin);
        carried
    };
    tokio::pin!(outgoing);
    let ended = tokio::select! {
        carried = &mut outgoing => carried,
        // What it still says to what it was asked is carried, for a while.
        carried = incoming => match carried {
            Ok(_) => timeout(GRACE, &mut outgoing).await.unwrap_or(Ok(())),
            // Either the client is gone, or the server does not listen any more and may still have something to say.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                timeout(GRACE, &mut outgoing).await.unwrap_or(Ok(()))
            }
            Err(error) => Err(error),
        },
    };
    group.end().await;
    ended.map_err(|error| format!("the stream broke: {error}"))
}

/// Each piece goes out as it comes: a client waits for it.
async fn copy_at_once(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                writer.write_all(&buffer[..count]).await?;
                writer.flush().await?;
            }
        }
    }
}
