//! `pilotctl serve`.

mod port;
mod program;

use std::time::Duration;

use crate::bridge::Place;

/// What makes no sense with a service that is already there.
const REQUESTS_ONLY: [&str; 8] = ["from", "all", "jobs", "stream", "kind", "timeout", "max_output", "once"];

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pilotctl serve PORT --to PLACE [--limit COUNT]\n       pilotctl serve --exec COMMAND [OPTIONS]",
    before_help = "Examples:\n  pilotctl serve 80 --to 127.0.0.1:8080    (HTTP, gRPC, WebSocket, A2A: whatever listens there)\n  \
    pilotctl serve 80 --to unix:/run/app.sock\n  pilotctl serve --exec './answer.py'\n  pilotctl serve --exec 'wc -w' --jobs 4\n  \
    pilotctl serve --exec 'llm' --stream --from agent-b\n  pilotctl serve --exec 'jq .n' --type json --once",
    after_help = "With --to, each stream to PORT becomes a connection to the service. Who may open streams is said with \
    `pilotctl policy`; at first every node that is trusted.\n\n\
    With --exec, the message is on the program's stdin, and its stdout is the answer; another exit status than 0 is a \
    failure, with the end of stderr as the reason. The program gets PILOT_FROM, PILOT_FROM_HOSTNAME, PILOT_MESSAGE_ID, \
    PILOT_TYPE, PILOT_DEADLINE_MS and PILOT_HOPS. It is killed, with all its children, when the request is taken back or \
    its time is over."
)]
pub(crate) struct Args {
    /// Port of the network on which a service is offered
    #[arg(value_name = "PORT", requires = "to", conflicts_with = "exec")]
    pub(crate) port: Option<u16>,
    /// The service: 127.0.0.1:8080, 8080, or unix:/path/of.sock
    #[arg(long, value_name = "PLACE", requires = "port", conflicts_with_all = REQUESTS_ONLY)]
    pub(crate) to: Option<Place>,
    /// With --to: so many connections at the same time; more are turned away
    #[arg(long, value_name = "COUNT", default_value_t = 4096, requires = "to",
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) limit: u16,
    /// The program that answers, as a line for `sh`
    #[arg(long, value_name = "COMMAND", required_unless_present = "to")]
    pub(crate) exec: Option<String>,
    /// Only requests of this node
    #[arg(long, value_name = "TARGET")]
    pub(crate) from: Option<String>,
    /// Plain messages too, as nodes of release 1.18.0 send them
    #[arg(long)]
    pub(crate) all: bool,
    /// So many requests at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "COUNT")]
    pub(crate) jobs: u16,
    /// Send what the program writes as it comes, to those who want it
    #[arg(long)]
    pub(crate) stream: bool,
    /// What the answers are [default: json if the request and the output are, else text or binary]
    #[arg(long = "type", short = 't', value_parser = ["text", "json", "binary"], value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// How long the program may take, at most as long as the answer is waited for
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Longest output in bytes; what writes more has failed
    #[arg(long, default_value_t = 16 << 20, value_name = "BYTES")]
    pub(crate) max_output: usize,
    /// End after one request
    #[arg(long)]
    pub(crate) once: bool,
}

use std::fmt;
use std::sync::Arc;

use pilot_client::{Addr, Incoming, MessageId, Port, ServeOptions, Server};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::program::{Ended, Program};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::{duration, humane, process, style, target};

/// One request and what became of it.
#[derive(Serialize)]
struct Served {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    from: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_hostname: Option<String>,
    #[serde(flatten)]
    ended: Ended,
    elapsed_ms: f64,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.from_hostname.clone().unwrap_or_else(|| self.from.to_string());
        let took = duration::show(Duration::from_secs_f64(self.elapsed_ms / 1e3));
        write!(f, "{} · {} · {took}", style::strong(humane::printable(&who)), self.ended)
    }
}

/// `pilotctl serve`
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    match (args.port, &args.to, &args.exec) {
        (Some(port), Some(to), _) => Box::pin(port::run(ctx, Port(port), to.clone(), args.limit)).await,
        (_, _, Some(line)) => Box::pin(answer(ctx, &args, line)).await,
        (_, _, None) => Err(Failure::usage("give a port and --to, or --exec")),
    }
}

/// Answers requests with a program.
async fn answer(ctx: &Context, args: &Args, line: &str) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let from = match &args.from {
        Some(text) => Some(target::find(&client, text).await?.node),
        None => None,
    };
    let server = client.serve(ServeOptions { from, all: args.all }).await.map_err(|error| {
        Failure::from(error).advise(Code::Unsupported, "a daemon of release 1.18.0 hands out no requests")
    })?;
    let program = Arc::new(Program {
        line: line.to_owned(),
        stream: args.stream,
        kind: args.kind.clone(),
        timeout: args.timeout,
        max_output: args.max_output,
    });
    let (hurry, hurried) = watch::channel(false);
    let mut running = JoinSet::new();
    let mut next = Box::pin(take(server));
    let (mut taken, mut is_ending) = (0_usize, false);
    let mut asked_to_end = Box::pin(process::asked_to_end());
    ctx.note(style::faint(format!("serving requests with `{line}`")));
    loop {
        let wants_more = !is_ending && running.len() < usize::from(args.jobs) && !(args.once && taken > 0);
        if !wants_more && running.is_empty() && (is_ending || args.once) {
            return Ok(Output::streamed());
        }
        tokio::select! {
            (server, incoming) = &mut next, if wants_more => {
                taken += 1;
                next = Box::pin(take(server));
                running.spawn(serve(Arc::clone(&program), incoming?, hurried.clone()));
            }
            Some(ended) = running.join_next() => {
                let ended = ended.map_err(|error| Failure::internal(format!("a job crashed: {error}")))?;
                output::item(ctx.format, &ended?)?;
            }
            () = &mut asked_to_end => {
                asked_to_end = Box::pin(process::asked_to_end());
                if is_ending {
                    hurry.send_replace(true);
                } else if !running.is_empty() {
                    ctx.note("finishing what was begun; once more gives it back");
                }
                is_ending = true;
            }
        }
    }
}

async fn take(mut server: Server) -> (Server, Result<Incoming, Failure>) {
    let incoming = server.next().await.map_err(Failure::from);
    (server, incoming)
}

async fn serve(
    program: Arc<Program>,
    incoming: Incoming,
    hurried: watch::Receiver<bool>,
) -> Result<Served, Failure> {
    let begin = std::time::Instant::now();
    let message = incoming.message();
    let (id, message_id) = (incoming.id().to_owned(), message.message_id.clone());
    let (from, from_hostname) = (message.from, message.from_hostname.clone());
    let ended = program.answer(incoming, hurried).await?;
    let elapsed_ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(Served { id, message_id, from, from_hostname, ended, elapsed_ms })
}
