//! `pilotctl lookup`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl lookup 2\n  pilotctl lookup agent-b --json\n  pilotctl lookup 0:0000.0000.0002"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
}

use std::fmt;

use pilot_wire::ipc::Call;
use serde::Serialize;
use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::target;

/// Signed words in the registry's object, for programs only. What people need of them is in the other fields.
const SIGNED: [&str; 3] = ["attested", "record", "key_changes"];

/// The registry's own object, as it is.
#[derive(Serialize)]
#[serde(transparent)]
struct Report(Value);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fields) = self.0.as_object() else { return write!(f, "{}", self.0) };
        let for_people = |name: &str| name != "type" && !SIGNED.contains(&name);
        for (name, value) in fields.iter().filter(|(name, _)| for_people(name)) {
            let shown = match value {
                Value::String(text) => text.clone(),
                Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
            };
            writeln!(f, "{name:<16} {shown}")?;
        }
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `pilotctl lookup`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let mut found: Value = client.call(Call::Lookup { node: peer.node }).await?;
    let key = found["public_key"].as_str().and_then(|text| text.parse::<pilot_wire::PublicKey>().ok());
    if let (Some(key), Some(fields)) = (key, found.as_object_mut()) {
        fields.insert("key_fingerprint".into(), key.fingerprint().into());
    }
    Ok(Output::of(Report(found)))
}
