//! `pilotctl rotate-key` and `deregister`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl rotate-key")]
pub(crate) struct RotateArgs {}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl deregister")]
pub(crate) struct DeregisterArgs {}

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
#[serde(transparent)]
struct Rotated(Value);

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0["public_key"].as_str().and_then(|text| text.parse::<pilot_wire::PublicKey>().ok());
        let fingerprint = key.map_or_else(|| "(not told)".to_owned(), |key| key.fingerprint());
        write!(f, "this node has a new key: {fingerprint}\naddress and number are the same")
    }
}

/// `pilotctl rotate-key`
pub(crate) async fn rotate(ctx: &Context) -> Result<Output, Failure> {
    let answer = ctx.client().await?.rotate_key().await?;
    Ok(Output::of(Rotated(json!(answer))))
}

#[derive(Serialize)]
struct Deregistered {
    #[serde(rename = "type")]
    kind: &'static str,
}

impl fmt::Display for Deregistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node is withdrawn from the registry; it registers again when the daemon starts")
    }
}

/// `pilotctl deregister`
pub(crate) async fn deregister(ctx: &Context) -> Result<Output, Failure> {
    ctx.client().await?.deregister().await?;
    Ok(Output::of(Deregistered { kind: "deregister_ok" }))
}
