//! `pilotctl gateway start`.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::StartArgs;
use super::control::{self, Request};
use super::table::{Given, Table};
use crate::bridge::{Crowd, Daemon, Dialler, Listener, Listening, Notice, Place, Reach, Socket};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{Format, Output};
use crate::{notify, process, settings};

/// Gives addresses until asked to end, by a signal or by `gateway stop`.
pub(super) async fn run(ctx: &Context, args: StartArgs) -> Result<Output, Failure> {
    let asked_to_end = process::asked_to_end();
    let daemon = Daemon::connect(ctx).await?;
    let home = ctx.settings.home();
    settings::private_directory(home).map_err(|e| Failure::io(format!("making {}", home.display()), &e))?;
    let control =
        Listener::bind(&Place::Unix(control::path(ctx)), Reach::Machine).await.map_err(|failure| {
            if failure.code != Code::AlreadyExists {
                return failure;
            }
            Failure::new(Code::AlreadyExists, "a gateway is running")
                .hint("give it more with `pilotctl gateway map`, or stop it with `pilotctl gateway stop`")
        })?;
    let pid_file = home.join("gateway.pid");
    let pid = std::process::id();
    settings::write_private(&pid_file, pid.to_string().as_bytes())
        .map_err(|e| Failure::io(format!("writing {}", pid_file.display()), &e))?;

    let (sender, incoming) = mpsc::channel(1);
    let mut table = Table::new(daemon.clone(), args.subnet, args.ports, sender);
    let at = control.place().to_string();
    Notice::Listening(Listening { kind: Some("control"), at, to: None }).tell(ctx.format);
    for target in &args.targets {
        tell(&table.map(target, None).await?, ctx.format);
    }
    notify::ready();
    let (stop, stopped) = oneshot::channel();
    let mut sources = JoinSet::new();
    sources.spawn(attend(control, table, stop, ctx.format));
    let dialler = Arc::new(Dialler::new(daemon));
    let carry = move |(socket, to)| {
        let dialler = Arc::clone(&dialler);
        async move { dialler.carry(socket, &to).await }
    };
    let end = async {
        tokio::select! {
            () = asked_to_end => {}
            _ = stopped => {}
        }
    };
    let turn_away = |(socket, _): (Socket, _)| socket.reset();
    let ended = Crowd::new(ctx, args.limit).attend(incoming, sources, end, carry, turn_away).await;
    drop(std::fs::remove_file(&pid_file));
    ended
}

fn tell(given: &Given, format: Format) {
    let (at, to) = (given.local_ip.to_string(), Some(given.target.clone()));
    Notice::Listening(Listening { kind: Some("address"), at, to }).tell(format);
}

/// Answers questions, one after the other, until asked to stop.
async fn attend(control: Listener, mut table: Table, stop: oneshot::Sender<()>, format: Format) {
    loop {
        let Some((request, socket)) = control::question(control.accept().await).await else { continue };
        let answer: Result<Value, Failure> = match request {
            Request::Map { target, ip } => table.map(&target, ip).await.map(|given| {
                tell(&given, format);
                json!(given)
            }),
            Request::Unmap { ip } => table.unmap(ip).map(|ip| json!(ip)),
            Request::List => Ok(json!(table.list())),
            Request::Stop => {
                control::answer(socket, Ok(json!(std::process::id()))).await;
                // Whoever waits for this is there until the end.
                let _ = stop.send(());
                return;
            }
        };
        control::answer(socket, answer).await;
    }
}
