//! `pilotctl info`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl info\n  pilotctl info --json")]
pub(crate) struct Args {}

use std::fmt;
use std::time::Duration;

use pilot_wire::ipc::paths::{Nat, OwnCandidate};
use pilot_wire::ipc::{Call, Info, RegistryTls, ServiceStatus, Status};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::paths::nat;
use crate::{duration, humane, style};

/// The reference's `info` object, and what our daemon knows beyond it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    info: Info,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
    /// What its tasks have earned it, if the registry tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    polo_score: Option<i64>,
    #[serde(flatten)]
    more: Option<More>,
}

#[derive(Serialize)]
struct More {
    registry: String,
    registry_connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_tls: Option<RegistryTls>,
    public: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    beacon_answers: Option<bool>,
    candidates: Vec<OwnCandidate>,
    nat: Nat,
    services: Vec<ServiceStatus>,
    socket: String,
    home: String,
    pid: u32,
}

/// What of [`Status`] is not in [`Info`].
impl From<Status> for More {
    fn from(status: Status) -> Self {
        More {
            registry: status.registry.address,
            registry_connected: status.registry.connected,
            registry_tls: status.registry.tls,
            public: status.public,
            beacon_answers: status.beacon_answers,
            candidates: status.candidates,
            nat: status.nat,
            services: status.services,
            socket: status.socket,
            home: status.home,
            pid: status.pid,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.info;
        let up = duration::show(Duration::from_secs(info.uptime_secs));
        writeln!(
            f,
            "{} {} · up {up}",
            style::good("●"),
            style::strong(format!("pilot daemon {}", info.version))
        )?;
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<10} {value}");
        row("address", format!("{} · node {}", style::strong(info.address), info.node_id))?;
        let name =
            if info.hostname.is_empty() { "(none: pilotctl set-hostname NAME)" } else { &info.hostname };
        row("hostname", name.to_owned())?;
        if let Some(fingerprint) = &self.key_fingerprint {
            row("key", format!("ed25519 {fingerprint}"))?;
        }
        if let Some(score) = self.polo_score {
            row("score", format!("{score} · earned with tasks"))?;
        }
        if let Some(more) = &self.more {
            let state = if more.registry_connected { "connected" } else { "no answer, trying on" };
            let protection = match &more.registry_tls {
                Some(tls) if tls.used => " · TLS",
                Some(_) => " · plaintext, not protected",
                None => "",
            };
            row("registry", format!("{} · {state}{protection}", more.registry))?;
            row(
                "visibility",
                if more.public { "public".into() } else { "private: trusted nodes only".to_owned() },
            )?;
        }
        if !info.beacon_addr.is_empty() {
            let way = if info.transport == "web" { " · over the web" } else { "" };
            let state = match self.more.as_ref().and_then(|more| more.beacon_answers) {
                Some(true) => " · answers",
                Some(false) => " · does not answer over UDP: see `pilotctl netcheck`",
                None => "",
            };
            row("beacon", format!("{}{way}{state}", info.beacon_addr))?;
        }
        if let Some(more) = &self.more {
            for (index, candidate) in more.candidates.iter().enumerate() {
                let name = if index == 0 { "reached at" } else { "" };
                row(name, format!("{} · {}", candidate.address, candidate.kind.words()))?;
            }
            if more.nat != Nat::default() {
                row("NAT", nat(more.nat))?;
            }
            row("transport", info.transport.clone())?;
        }
        let direct = info.peers.saturating_sub(info.relay_peer_count);
        let counts =
            format!("{} encrypted, {direct} direct, {} relayed", info.encrypted_peers, info.relay_peer_count);
        row("peers", format!("{} ({counts}) · {}", info.peers, humane::count(info.connections, "stream")))?;
        row(
            "traffic",
            format!("sent {} · received {}", humane::bytes(info.bytes_sent), humane::bytes(info.bytes_recv)),
        )?;
        if let Some(more) = &self.more {
            let services: Vec<String> =
                more.services.iter().map(|s| format!("{} {}", s.name, s.port)).collect();
            row("built in", services.join(" · "))?;
            row("socket", more.socket.clone())?;
            row("state", more.home.clone())?;
        }
        for network in &info.networks {
            let name = if network.name.is_empty() { String::new() } else { format!("{} ", network.name) };
            let trust = match network.trust {
                Some(true) => " · members are trusted",
                Some(false) => " · members are not trusted",
                None => "",
            };
            let end = network.expires_at.map(|end| format!(" · until {}", humane::utc(end)));
            let text = format!(
                "{name}{} as {}{trust}{}",
                network.network_id,
                network.address,
                end.unwrap_or_default()
            );
            row("network", text)?;
        }
        if info.handshake_pending_count > 0 {
            row("waiting", format!("{} ask for trust: pilotctl pending", info.handshake_pending_count))?;
        }
        Ok(())
    }
}

/// `pilotctl info`
pub(crate) async fn run(ctx: &Context, _: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let info = client.info().await?;
    let more = match client.call::<Status>(Call::Status).await.map_err(Failure::from) {
        Ok(status) => Some(More::from(status)),
        Err(failure) if failure.code == Code::Unsupported => None,
        Err(failure) => return Err(failure),
    };
    let mut polo_score = None;
    if more.as_ref().is_some_and(|more| more.registry_connected) {
        // Without an answer there is no score to show; the rest is known here.
        let own = client.call::<serde_json::Value>(Call::Lookup { node: info.node_id }).await;
        polo_score = own.ok().and_then(|own| own["polo_score"].as_i64());
    }
    let key_fingerprint = info.public_key.map(|key| key.fingerprint());
    Ok(Output::of(Report { info, key_fingerprint, polo_score, more }))
}
