//! Numbers for Prometheus, in the text format of OpenMetrics. Names are the reference's where it has them
//! (spec/registry.md 16); every label has a fixed set of values.

use super::{BeaconPulse, Desk, RegistryPulse, access::Visitor, health};
use crate::meters::Meters;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use pilot_metrics::{CONTENT_TYPE, Collector, DescriptorEncoder, Histogram, Out, Process};
use std::{fmt, sync::Arc};

pub(super) async fn metrics(State(desk): State<Arc<Desk>>, visitor: Visitor) -> Response {
    if !visitor.is_insider {
        let why = "metrics are for this machine, or take the token: Authorization: Bearer ...\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let scrape = Scrape {
        meters: Arc::clone(&desk.sources.meters),
        registry: desk.sources.registry.borrow().clone(),
        beacon: *desk.sources.beacon.borrow(),
        process: Process::look(),
        uptime: desk.uptime().as_secs_f64(),
        ready: health::faults(&desk).is_empty(),
    };
    match pilot_metrics::text(scrape) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[derive(Debug)]
struct Scrape {
    meters: Arc<Meters>,
    registry: RegistryPulse,
    beacon: BeaconPulse,
    process: Process,
    uptime: f64,
    ready: bool,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.requests(&mut out)?;
        self.connections(&mut out)?;
        self.nodes(&mut out)?;
        self.store(&mut out)?;
        self.beacon(&mut out)?;
        self.process(&mut out)
    }
}

impl Scrape {
    fn requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let meters = &self.meters;
        // Kinds that nobody has asked yet are left out; there are no others than the registry knows.
        let asked: Vec<_> = meters.requests().iter().filter(|requests| requests.time.count() > 0).collect();
        let counts = asked.iter().map(|requests| (requests.kind.name(), requests.time.count()));
        out.counters("pilot_requests", "Requests answered, by type", "type", counts)?;
        let errors = asked.iter().map(|requests| (requests.kind.name(), requests.errors.get()));
        out.counters("pilot_errors", "Requests answered with an error, by type", "type", errors)?;
        let times = asked.iter().map(|requests| (requests.kind.name(), &requests.time));
        out.histograms(
            "pilot_request_duration_seconds",
            "From when a request was read until its reply was there",
            "type",
            times,
        )?;
        for (name, help, kind) in [
            ("pilot_registrations", "Registrations, of new nodes and of known ones", "register"),
            ("pilot_deregistrations", "Nodes that said good-bye", "deregister"),
            ("pilot_trust_reports", "Reports of trust", "report_trust"),
            ("pilot_trust_revocations", "Trust taken back", "revoke_trust"),
            ("pilot_handshake_requests", "Requests for trust", "request_handshake"),
            ("pilot_key_rotations", "Keys replaced", "rotate_key"),
            ("pilot_invites_sent", "Invitations into networks", "invite_to_network"),
        ] {
            out.counter(name, help, meters.granted(kind))?;
        }
        let refused = self.registry.overview.refused;
        let reasons = [
            ("limited", refused.limited),
            ("unsigned", refused.unsigned),
            ("unknown", refused.unknown),
            ("denied", refused.denied),
            ("invalid", refused.invalid),
            ("unreadable", meters.unreadable.get()),
        ];
        out.counters("pilot_refused", "Requests refused, by reason", "reason", reasons)?;
        out.counter(
            "pilot_throttled",
            "Times a connection that asked too much was read later",
            meters.throttled.get(),
        )
    }

    fn connections(&self, out: &mut Out<'_>) -> fmt::Result {
        let (meters, overview) = (&self.meters, &self.registry.overview);
        out.gauge("pilot_registry_tcp_connections", "Connections to the registry", overview.connections)?;
        out.gauge("pilot_held_requests", "Requests that wait for news", overview.held)?;
        out.counter(
            "pilot_connections_accepted",
            "Connections to the registry so far",
            meters.accepted.get(),
        )?;
        let protections = [("tls", meters.protected.get()), ("none", meters.plain.get())];
        out.counters(
            "pilot_connections_entered",
            "Connections to the registry that were let in, by what protects them",
            "protection",
            protections,
        )?;
        let away = meters.turned_away.get();
        out.counter("pilot_connections_turned_away", "Connections of which one address had too many", away)?;
        out.counters("pilot_connections_ended", "Connections that ended, by reason", "reason", meters.ends())
    }

    fn nodes(&self, out: &mut Out<'_>) -> fmt::Result {
        let overview = &self.registry.overview;
        let round = &overview.round;
        out.gauge("pilot_nodes_online", "Nodes that are registered", overview.online)?;
        out.gauge("pilot_nodes_total", "Nodes that have ever registered", overview.nodes)?;
        out.gauge("pilot_nodes_public", "Registered nodes that anybody may see", round.public)?;
        out.gauge("pilot_nodes_relay_only", "Registered nodes reached by relay only", round.relay_only)?;
        out.gauge("pilot_task_executors", "Registered nodes that take tasks", round.task_executors)?;
        out.gauge("pilot_trust_links", "Pairs of nodes that trust each other", overview.trust_links)?;
        out.gauge("pilot_networks_total", "Networks", overview.networks)?;
        out.gauge("pilot_inboxes", "Nodes with an inbox", overview.inboxes)
    }

    fn store(&self, out: &mut Out<'_>) -> fmt::Result {
        let meters = &self.meters;
        out.histogram("pilot_store_commit_seconds", "One commit, until it is on disk", &meters.commit_time)?;
        out.histogram("pilot_store_commit_records", "Records of one commit", &meters.commit_size)?;
        out.counter(
            "pilot_store_failures",
            "Times the store could not be read or written",
            meters.store_failures.get(),
        )?;
        out.gauge(
            "pilot_store_writable",
            "1 unless the last attempt to write failed",
            u64::from(self.registry.writable),
        )
    }

    fn beacon(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.beacon.stats;
        out.gauge("pilot_beacon_nodes", "Nodes that the beacon reaches", stats.nodes)?;
        out.gauge("pilot_beacon_web_connections", "Nodes on the web", self.beacon.web)?;
        out.counter("pilot_beacon_discovered", "Discovers answered", stats.discovered)?;
        out.counter("pilot_beacon_introduced", "Pairs introduced", stats.introduced)?;
        out.gauge("pilot_beacon_peers", "Other beacons that are linked", stats.beacons)?;
        out.counter("pilot_beacon_forwarded_frames", "Frames passed on to other beacons", stats.forwarded)?;
        out.counter("pilot_beacon_received_frames", "Frames that came from other beacons", stats.received)?;
        out.counter("pilot_beacon_unsent", "Datagrams that a socket did not take", stats.unsent)?;
        out.counter("pilot_beacon_relayed_frames", "Frames relayed", stats.relayed)?;
        out.counter("pilot_beacon_relayed_bytes", "Bytes of the frames relayed", stats.relayed_bytes)?;
        let dropped = [
            ("unreadable", stats.unreadable),
            ("impostor", stats.impostor),
            ("unreachable", stats.unreachable),
            ("limited", stats.too_many),
            ("congested", stats.congested),
        ];
        out.counters("pilot_beacon_dropped", "Messages not acted upon, by reason", "reason", dropped)
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        out.gauge("pilot_ready", "1 if nodes can be served", u64::from(self.ready))?;
        out.gauge("pilot_uptime_seconds", "Since the start", self.uptime)?;
        self.process.encode(out)
    }
}
