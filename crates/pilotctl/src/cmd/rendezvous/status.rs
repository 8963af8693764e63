//! `pilotctl rendezvous status`: where it is, and how it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{StatusArgs, recorded, without};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{local_rendezvous, pages, style};

/// Its pages answer from memory.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Status {
    running: bool,
    registry_addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beacon_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web_missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_missing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
}

/// What the pages say.
#[derive(Serialize, Deserialize)]
struct Stats {
    ready: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
    version: String,
    uptime_secs: u64,
    total_nodes: u64,
    active_nodes: u64,
    total_trust_links: u64,
    networks_total: u64,
    total_requests: u64,
    #[serde(default)]
    connections: Option<u64>,
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Serialize, Deserialize)]
struct Process {
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
    descriptors: Option<u64>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.running {
            writeln!(
                f,
                "{}: nobody answers at {}",
                style::strong("rendezvous not running"),
                self.registry_addr
            )?;
            return write!(f, "start it with `pilotctl rendezvous start`");
        }
        match &self.stats {
            Some(stats) if !stats.ready => {
                let faults = stats.faults.join("; ");
                writeln!(f, "{} {faults}", style::strong("rendezvous running, but not ready:"))?;
            }
            Some(_) | None => writeln!(f, "{}", style::good("rendezvous running"))?,
        }
        writeln!(f, "  registry  {}", self.registry_addr)?;
        if self.plaintext == Some(false) {
            writeln!(f, "            TLS only")?;
        }
        let page = self.http_addr.as_ref().map(|addr| format!("http://{addr}/"));
        let no_web = self.web_missing.as_ref().map(|missing| without(missing, "--web-listen"));
        let no_pages = self.http_missing.as_ref().map(|missing| without(missing, "--http-listen"));
        let rows = [
            ("cert", &self.registry_fingerprint),
            ("beacon", &self.beacon_addr),
            ("web", &self.web_addr),
            ("web cert", &self.web_fingerprint),
            ("web", &no_web),
            ("pages", &page),
            ("pages", &no_pages),
            ("store", &self.store),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                writeln!(f, "  {name:<9} {value}")?;
            }
        }
        if let Some(pid) = self.pid {
            writeln!(f, "  pid       {pid}")?;
        }
        if let Some(stats) = &self.stats {
            writeln!(f, "  nodes     {} online, {} known", stats.active_nodes, stats.total_nodes)?;
            writeln!(f, "  trust     {} links", stats.total_trust_links)?;
            writeln!(f, "  networks  {}", stats.networks_total)?;
            let uptime = crate::duration::show(Duration::from_secs(stats.uptime_secs));
            writeln!(
                f,
                "  up        {uptime}, {} requests, version {}",
                stats.total_requests, stats.version
            )?;
            if let Some(Process { memory_bytes: Some(memory), cpu_seconds: Some(cpu), .. }) = stats.process {
                writeln!(f, "  process   {} MiB of memory, {cpu:.1} s of processor time", memory >> 20)?;
            }
        }
        Ok(())
    }
}

pub(super) async fn status(ctx: &Context, args: &StatusArgs) -> Result<Output, Failure> {
    let recorded = recorded(ctx).filter(|_| args.registry_addr.is_none());
    let registry_addr = match &recorded {
        Some(ready) => ready.registry_addr.clone(),
        None => ctx.settings.get("registry_addr").unwrap_or("127.0.0.1:9000").to_owned(),
    };
    let running = local_rendezvous::answers(&registry_addr).await;
    let http_addr = recorded.as_ref().and_then(|ready| ready.http_addr.clone());
    // A rendezvous whose pages do not answer is running nevertheless.
    let stats = match &http_addr {
        Some(http) if running => pages::get(http, "/api/stats", None, PATIENCE).await.ok(),
        Some(_) | None => None,
    };
    let output = Output::of(Status {
        running,
        registry_addr,
        registry_fingerprint: recorded.as_ref().map(|ready| ready.registry_fingerprint.clone()),
        plaintext: recorded.as_ref().map(|ready| ready.plaintext),
        beacon_addr: recorded.as_ref().map(|ready| ready.beacon_addr.clone()),
        web_addr: recorded.as_ref().and_then(|ready| ready.web_addr.clone()),
        web_fingerprint: recorded.as_ref().and_then(|ready| ready.web_fingerprint.clone()),
        web_missing: recorded.as_ref().and_then(|ready| ready.web_missing.clone()),
        http_addr,
        http_missing: recorded.as_ref().and_then(|ready| ready.http_missing.clone()),
        store: recorded.as_ref().map(|ready| ready.store.clone()),
        pid: recorded.map(|ready| ready.pid),
        stats: stats.and_then(|json| serde_json::from_slice(&json).ok()),
    });
    Ok(if running { output } else { output.exiting_as(Code::NotRunning) })
}
