//! Files: `send_file`.

use std::path::PathBuf;

use pilot_client::ipc::Code;
use pilot_client::{FileOptions, Progress, Queued};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Desk, Report};
use crate::daemon::resolve;
use crate::fault::Fault;
use crate::pace::Pace;
use crate::words::one_line;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    /// Hostname, address or node number.
    peer: String,
    /// The file or folder on this machine, as an absolute path.
    path: String,
    /// The name that the receiver shall see; the last part of the path when left out.
    name: Option<String>,
    /// When the peer cannot be reached now, leave the file with the daemon, which delivers a copy later.
    or_later: Option<bool>,
}

/// A file that was sent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Sent {
    /// Whom it is for.
    to: String,
    /// Its name there.
    name: String,
    /// Its length.
    bytes: u64,
    /// stored: the peer has it and has checked it; queued: it is delivered when the peer can be reached.
    state: String,
    /// SHA-256, hexadecimal; of a folder that of its manifest. Absent while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Report for Sent {
    fn text(&self) -> String {
        let name = one_line(&self.name, 255);
        format!("{name}, {} bytes, to {}: {}", self.bytes, self.to, self.state)
    }
}

pub(crate) async fn send(desk: &Desk, pace: &Pace, args: Send) -> Result<Sent, Fault> {
    let path = PathBuf::from(&args.path);
    if !path.is_absolute() {
        return Err(Fault::usage("`path` must be absolute: this server has a directory of its own"));
    }
    let client = desk.daemon.client().await?;
    let peer = resolve(&client, &args.peer).await?;
    let options = FileOptions { name: args.name.clone(), ..FileOptions::default() };
    let (far, mut reached) = watch::channel(None::<Progress>);
    let sending = client.send_file_with(peer.address, &path, options, |progress| {
        far.send_replace(Some(progress));
    });
    let telling = async {
        while reached.changed().await.is_ok() {
            let progress = *reached.borrow_and_update();
            if let Some(Progress { done, total, .. }) = progress {
                pace.progress().measure(done, total).await;
            }
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let sent = tokio::select! {
        biased;
        sent = sending => sent,
        // The receiver keeps what it has; the next call goes on there.
        () = pace.stopped() => return Err(Fault::cancelled()),
        never = telling => match never {},
    };
    match sent {
        Ok(receipt) => Ok(Sent {
            to: peer.address.to_string(),
            name: receipt.name,
            bytes: receipt.bytes,
            state: "stored".to_owned(),
            sha256: Some(receipt.sha256.iter().map(|byte| format!("{byte:02x}")).collect()),
        }),
        Err(error)
            if args.or_later == Some(true)
                && matches!(error.code(), Code::Unreachable | Code::Timeout | Code::Busy) =>
        {
            let item = client.queue(Queued::file(peer.address, path, args.name)).await?;
            Ok(Sent {
                to: peer.address.to_string(),
                name: item.name.unwrap_or_default(),
                bytes: item.bytes,
                state: "queued".to_owned(),
                sha256: None,
            })
        }
        Err(error) if error.code() == Code::Unreachable => {
            Err(Fault::from(error).hint("with `or_later` the daemon delivers it when it can"))
        }
        Err(error) => Err(error.into()),
    }
}
