//! What the daemon tells about itself.

use std::time::Instant;

use pilot_proto::node::{Drop, PathView, PeerView, StreamView};
use pilot_wire::ipc::{
    ConnInfo, DIALECT_FEATURE, Health, Info, PeerInfo, RegistryStatus, ServiceStatus, Status,
};
use pilot_wire::mailbox::Path;
use pilot_wire::{Addr, NodeId, Port};
use serde_json::json;

use super::Driver;
use super::paths::{micros, millis};
use super::streams::Attachment;
use crate::config::{TlsMode, Transport};

/// Rows of a list in one reply, so that it fits a frame: a stream takes about 400 bytes, and `Info` has two lists.
pub(super) const ROWS_MAX: usize = 1000;

/// The same for relations, of which a network can bring thousands.
pub(super) const RELATIONS_MAX: usize = 4000;

impl Driver {
    pub(super) fn address(&self) -> Addr {
        self.node.id().map_or(Addr::UNSET, Addr::backbone)
    }

    fn endpoint(&self) -> String {
        let observed = self.node.observed().filter(|address| !address.ip().is_unspecified());
        let endpoint = observed.or(self.profile.listen);
        endpoint.map(|address| address.to_string()).unwrap_or_default()
    }

    pub(super) fn info(&self, now: Instant) -> Info {
        let stats = self.node.stats();
        let peers = self.peer_list(now);
        let conns = self.conn_list();
        let encrypted = peers.iter().filter(|peer| peer.encrypted).count() as u64;
        Info {
            node_id: self.node.id().unwrap_or_default(),
            address: self.address(),
            hostname: self.profile.hostname.clone(),
            email: String::new(),
            endpoint: self.endpoint(),
            beacon_addr: self.beacon_in_use(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: ["reply_window", "dial_awaits_key", "key_request", "dgram_confirm", DIALECT_FEATURE]
                .map(str::to_owned)
                .to_vec(),
            transport: self.transport().to_owned(),
            motd: String::new(),
            uptime_secs: self.uptime(),
            connections: self.live_streams(),
            ports: self.ports.len() as u64,
            peers: peers.len() as u64,
            encrypted_peers: encrypted,
            authenticated_peers: peers.iter().filter(|peer| peer.authenticated).count() as u64,
            relay_peer_count: peers.iter().filter(|peer| peer.relay).count() as u64,
            encrypt: self.config.encrypt,
            identity: true,
            public_key: Some(self.own_key()),
            networks: self.network_addresses(),
            peer_list_truncated: peers.len() > ROWS_MAX,
            peer_list: peers.into_iter().take(ROWS_MAX).collect(),
            conn_list_truncated: conns.len() > ROWS_MAX,
            conn_list: conns.into_iter().take(ROWS_MAX).collect(),
            bytes_sent: stats.bytes_sent,
            bytes_recv: stats.bytes_received,
            pkts_sent: stats.datagrams_sent,
            pkts_recv: stats.datagrams_received,
            handshake_pending_count: self.node.trust().pending().count() as u64,
            accept_queue_drops: self.refused_streams,
            webhook_queue_dropped: self.webhook.dropped(),
            webhook_circuit_skips: 0,
            network: Some(self.network_status()),
            tunnel_encryption_success: stats.datagrams_received,
            tunnel_encryption_failure: stats.dropped(Drop::NotAuthentic),
        }
    }

    pub(super) fn health(&self) -> Health {
        let stats = self.node.stats();
        let count = |wanted: fn(&PeerView) -> bool| self.node.peers().filter(wanted).count() as u64;
        Health {
            status: if self.policy.broken().is_some() { "policy_broken" } else { "ok" }.to_owned(),
            uptime_seconds: self.uptime(),
            connections: self.live_streams(),
            peers: count(|peer| peer.encrypted),
            encrypted_peers: count(|peer| peer.encrypted),
            authenticated_peers: count(|peer| peer.authenticated),
            relay_peer_count: count(|peer| peer.encrypted && peer.path == PathView::Relayed),
            bytes_sent: stats.bytes_sent,
            bytes_recv: stats.bytes_received,
            handshake_pending_count: self.node.trust().pending().count() as u64,
            accept_queue_drops: self.refused_streams,
            webhook_queue_dropped: self.webhook.dropped(),
            webhook_circuit_skips: 0,
            beacon_addr: self.beacon_in_use(),
            transport: self.transport().to_owned(),
            programs: Some(self.clients.len() as u64),
            queued_packets: Some(self.node.peers().map(|peer| peer.queued as u64).sum()),
            queued_bytes: Some(self.streams.values().map(Attachment::untaken_bytes).sum()),
            dropped_frames: Some(Drop::ALL.iter().map(|why| stats.dropped(*why)).sum()),
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_secs: self.uptime(),
            home: self.config.home.display().to_string(),
            inbox_dir: self.config.home.join("inbox").display().to_string(),
            received_dir: self.config.home.join("received").display().to_string(),
            socket: self.config.socket.display().to_string(),
            listen: self.socket.local().to_string(),
            node_id: self.node.id().unwrap_or_default(),
            address: self.address(),
            hostname: self.profile.hostname.clone(),
            public_key: Some(self.own_key()),
            public: self.profile.public,
            encrypt: self.config.encrypt,
            auto_approve: self.config.trust_auto_approve,
            registry: RegistryStatus {
                address: self.registry.address.clone(),
                connected: self.registry.connected,
                error: self.registry.error.clone(),
                tls: self.registry_protection(),
            },
            beacon: self.beacon_in_use(),
            transport: self.transport().to_owned(),
            web: self.web_status(Instant::now()),
            beacon_answers: self.beacon_answers(),
            candidates: self.own_candidates(),
            nat: self.own_nat(),
            services: self.service_list(),
            peers: self.node.peers().filter(|peer| peer.encrypted).count() as u64,
            connections: self.live_streams(),
            pending: self.node.trust().pending().count() as u64,
            policy_broken: self.policy.broken(),
            key_expiry: self.registry.key_expiry.clone(),
            alarms: self.memory.alarms.clone(),
            metrics: self.metrics.map(|address| address.to_string()),
        }
    }

    fn service_list(&self) -> Vec<ServiceStatus> {
        let enabled = self.config.services;
        let all = [
            ("echo", Port::ECHO, enabled.echo),
            ("handshake", Port::HANDSHAKE, true),
            ("dataexchange", Port::DATA_EXCHANGE, enabled.data_exchange),
            ("eventstream", Port::EVENT_STREAM, enabled.event_stream),
            ("tasks", Port::TASKS, enabled.tasks),
        ];
        let running = all.into_iter().filter(|(_, _, on)| *on);
        running.map(|(name, port, _)| ServiceStatus { name: name.to_owned(), port }).collect()
    }

    /// The peers with a tunnel.
    pub(super) fn peer_list(&self, now: Instant) -> Vec<PeerInfo> {
        self.node.peers().filter(|peer| peer.encrypted).map(|peer| self.peer_info(now, &peer)).collect()
    }

    fn peer_info(&self, now: Instant, peer: &PeerView) -> PeerInfo {
        let endpoint = match peer.path {
            PathView::Direct(address) => address.to_string(),
            PathView::Relayed => self.beacon_in_use(),
            PathView::Unknown => String::new(),
        };
        let rtt = self.node.path_report(peer.node).and_then(|report| report.rtt);
        let idle = peer.heard.map(|heard| now.saturating_duration_since(heard).as_millis());
        PeerInfo {
            node_id: peer.node,
            endpoint,
            encrypted: peer.encrypted,
            authenticated: peer.authenticated,
            forward_secret: Some(peer.agreed),
            relay: peer.path == PathView::Relayed,
            hostname: self.hostname_of(peer.node),
            rtt_us: rtt.map(micros),
            idle_ms: idle.and_then(|idle| u64::try_from(idle).ok()),
            networks: self.networks_behind(peer.node),
            alarms: self.alarms_of(peer.node),
            bytes_sent: Some(peer.bytes_sent),
            bytes_recv: Some(peer.bytes_received),
            ..PeerInfo::default()
        }
    }

    /// The way to a node, in the words that messages are kept with.
    pub(super) fn path_of(&self, node: NodeId) -> Path {
        if node == self.own_node() {
            return Path::Own;
        }
        match self.node.peers().find(|peer| peer.node == node).map(|peer| peer.path) {
            Some(PathView::Direct(address)) => Path::Direct { endpoint: address.to_string() },
            Some(PathView::Relayed) => Path::Relayed,
            Some(PathView::Unknown) | None => Path::Unknown,
        }
    }

    /// All streams of the node.
    pub(super) fn conn_list(&self) -> Vec<ConnInfo> {
        self.node.streams().map(conn_info).collect()
    }

    fn live_streams(&self) -> u64 {
        self.streams.len() as u64
    }

    fn uptime(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(super) fn shutting_down(&self) -> serde_json::Value {
        json!({
            "known_peers": self.node.peers().count(),
            "open_connections": self.live_streams(),
            "uptime_seconds": self.uptime(),
        })
    }

    /// The settings in force, as `pilotctl config` shows them.
    pub(super) fn settings(&self) -> serde_json::Value {
        let config = &self.config;
        json!({
            "registry": config.registries.join(","),
            "registry_tls": match config.registry_tls.mode {
                TlsMode::Auto => "auto",
                TlsMode::Require => "require",
                TlsMode::Off => "off",
            },
            "beacon": self.beacon_in_use(),
            "beacon_web": config.web.url,
            "transport": match config.web.transport {
                Transport::Auto => "auto",
                Transport::Udp => "udp",
                Transport::Web => "web",
            },
            "listen": self.socket.local(),
            "socket": config.socket,
            "identity": config.identity,
            "hostname": self.profile.hostname,
            "public": self.profile.public,
            "encrypt": config.encrypt,
            "keepalive": format!("{}s", config.keepalive.as_secs()),
            "idle_timeout": format!("{}s", config.idle_timeout.as_secs()),
            "trust_auto_approve": config.trust_auto_approve,
            "webhook": self.memory.webhook.clone().unwrap_or_default(),
            "no_echo": !config.services.echo,
            "no_dataexchange": !config.services.data_exchange,
            "no_eventstream": !config.services.event_stream,
            "no_tasks": !config.services.tasks,
            "metrics": self.metrics,
            "otlp": config.otlp,
        })
    }
}

fn conn_info(stream: StreamView) -> ConnInfo {
    let stats = stream.stats;
    ConnInfo {
        id: stream.id,
        local_port: stream.local,
        remote_addr: stream.remote.addr,
        remote_port: stream.remote.port,
        state: stream.state.to_string(),
        half_close: Some(stats.half_close),
        cong_win: stats.congestion_window,
        ssthresh: stats.slow_start_threshold,
        in_flight: stats.in_flight,
        srtt_ms: millis(stats.smoothed_rtt),
        rttvar_ms: millis(stats.rtt_variation),
        unacked: stats.unacknowledged_segments,
        ooo_buf: stats.holes,
        peer_recv_win: stats.peer_window,
        recv_win: stats.receive_window,
        in_recovery: stats.in_recovery,
        bytes_sent: stats.bytes_sent,
        bytes_recv: stats.bytes_received,
        segs_sent: stats.segments_sent,
        segs_recv: stats.segments_received,
        retransmits: stats.timeouts,
        fast_retx: stats.fast_retransmits,
        sack_recv: stats.sacks_received,
        sack_sent: stats.sacks_sent,
        dup_acks: stats.duplicate_acks,
    }
}
