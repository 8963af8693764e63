//! What is shown: rates out of two readings, the order of rows, what is selected. No clock and no terminal.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::time::Duration;

use pilot_wire::ipc::{ConnInfo, PeerInfo};
use pilot_wire::{Addr, NodeId, Port, StreamId};
use serde::Serialize;

use super::reading::Reading;
use crate::paths::rtt;
use crate::{duration, humane, style};

/// One view of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Snapshot {
    pub(super) node: Node,
    pub(super) rendezvous: Rendezvous,
    pub(super) totals: Totals,
    pub(super) peers: Vec<PeerRow>,
    pub(super) streams: Vec<StreamRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Node {
    pub(super) hostname: String,
    pub(super) address: Addr,
    pub(super) version: String,
    pub(super) uptime_secs: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rendezvous {
    pub(super) registry: String,
    pub(super) registered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) beacon: String,
    /// Unknown until it did or was given up.
    pub(super) beacon_answers: Option<bool>,
    /// `udp` or `web`.
    pub(super) transport: String,
}

/// Of the whole node. Rates are in bytes a second, and missing without an earlier reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub(super) in_per_sec: Option<u64>,
    pub(super) out_per_sec: Option<u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Packets that wait for a key.
    pub(super) queued_packets: u64,
    /// Bytes that programs wrote and that wait for room in their streams.
    pub(super) queued_bytes: u64,
    pub(super) dropped_frames: u64,
    pub(super) programs: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PeerRow {
    pub(super) node_id: NodeId,
    /// Its hostname, or its address.
    pub(super) name: String,
    pub(super) address: Addr,
    /// `direct`, `relay` or `-`.
    pub(super) path: &'static str,
    pub(super) rtt_us: Option<u64>,
    pub(super) in_per_sec: Option<u64>,
    pub(super) out_per_sec: Option<u64>,
    /// Milliseconds since it was last heard.
    pub(super) heard_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct StreamRow {
    pub(super) id: StreamId,
    pub(super) peer: String,
    pub(super) local_port: Port,
    pub(super) remote_port: Port,
    pub(super) state: String,
    pub(super) in_per_sec: Option<u64>,
    pub(super) out_per_sec: Option<u64>,
    /// Congestion window in bytes.
    pub(super) window: u64,
    pub(super) in_flight: u64,
    /// Segments sent again.
    pub(super) resent: u64,
}

impl Snapshot {
    /// What is shown of `now`, with rates since `before` if that was the same daemon.
    pub(super) fn between(before: Option<&Reading>, now: &Reading) -> Self {
        let before = before.filter(|before| before.status.pid == now.status.pid);
        let time = before.map_or(Duration::ZERO, |before| now.at.saturating_sub(before.at));
        let rate = |then: Option<u64>, count: u64| rate(time, then?, count);
        let status = &now.status;
        let health = &now.health;
        let earlier = before.map(|before| &before.health);
        Self {
            node: Node {
                hostname: status.hostname.clone(),
                address: status.address,
                version: status.version.clone(),
                uptime_secs: status.uptime_secs,
            },
            rendezvous: Rendezvous {
                registry: status.registry.address.clone(),
                registered: status.registry.connected,
                error: status.registry.error.clone(),
                beacon: status.beacon.clone(),
                beacon_answers: status.beacon_answers,
                transport: status.transport.clone(),
            },
            totals: Totals {
                in_per_sec: rate(earlier.map(|health| health.bytes_recv), health.bytes_recv),
                out_per_sec: rate(earlier.map(|health| health.bytes_sent), health.bytes_sent),
                bytes_in: health.bytes_recv,
                bytes_out: health.bytes_sent,
                queued_packets: health.queued_packets.unwrap_or_default(),
                queued_bytes: health.queued_bytes.unwrap_or_default(),
                dropped_frames: health.dropped_frames.unwrap_or_default(),
                programs: health.programs.unwrap_or_default(),
            },
            peers: now
                .peers
                .iter()
                .map(|peer| {
                    let then = before.and_then(|before| before.peer(peer.node_id));
                    PeerRow {
                        node_id: peer.node_id,
                        name: name(peer),
                        address: address(peer),
                        path: path(peer),
                        rtt_us: peer.rtt_us,
                        in_per_sec: rate(then.and_then(|then| then.bytes_recv), peer.bytes_recv.unwrap_or(0)),
                        out_per_sec: rate(
                            then.and_then(|then| then.bytes_sent),
                            peer.bytes_sent.unwrap_or(0),
                        ),
                        heard_ms: peer.idle_ms,
                    }
                })
                .collect(),
            streams: now
                .streams
                .iter()
                .map(|stream| {
                    let then =
                        before.and_then(|before| before.streams.iter().find(|then| is_same(then, stream)));
                    let peer = now.peer(stream.remote_addr.node);
                    StreamRow {
                        id: stream.id,
                        peer: peer.map_or_else(|| stream.remote_addr.to_string(), name),
                        local_port: stream.local_port,
                        remote_port: stream.remote_port,
                        state: stream.state.clone(),
                        in_per_sec: rate(then.map(|then| then.bytes_recv), stream.bytes_recv),
                        out_per_sec: rate(then.map(|then| then.bytes_sent), stream.bytes_sent),
                        window: stream.cong_win,
                        in_flight: stream.in_flight,
                        resent: stream.retransmits + stream.fast_retx,
                    }
                })
                .collect(),
        }
    }
}

fn is_same(then: &ConnInfo, now: &ConnInfo) -> bool {
    (then.id, then.remote_addr) == (now.id, now.remote_addr)
}

/// Bytes a second; none without time between, or of a counter that began anew.
fn rate(time: Duration, then: u64, now: u64) -> Option<u64> {
    let bytes = u128::from(now.checked_sub(then)?);
    u64::try_from((bytes * 1000).checked_div(time.as_millis())?).ok()
}

fn address(peer: &PeerInfo) -> Addr {
    peer.address.unwrap_or_else(|| Addr::backbone(peer.node_id))
}

/// A hostname is a peer's word.
fn name(peer: &PeerInfo) -> String {
    if peer.hostname.is_empty() { address(peer).to_string() } else { humane::printable(&peer.hostname) }
}

fn path(peer: &PeerInfo) -> &'static str {
    match (peer.relay, peer.endpoint.is_empty()) {
        (true, _) => "relay",
        (false, true) => "-",
        (false, false) => "direct",
    }
}

impl Node {
    pub(super) fn line(&self) -> String {
        let name = if self.hostname.is_empty() { "no name" } else { &self.hostname };
        let up = duration::show(Duration::from_secs(self.uptime_secs));
        format!("{name}  {}  up {up}  pilot {}", self.address, self.version)
    }
}

impl Rendezvous {
    pub(super) fn line(&self) -> String {
        let registered = match (self.registered, &self.error) {
            (true, _) => "connected".to_owned(),
            (false, Some(error)) => format!("away: {}", humane::printable(error)),
            (false, None) => "away".to_owned(),
        };
        let beacon = match self.beacon_answers {
            _ if self.beacon.is_empty() => "none".to_owned(),
            Some(true) => format!("{} answers ({})", self.beacon, self.transport),
            Some(false) => format!("{} does not answer ({})", self.beacon, self.transport),
            None => format!("{} ({})", self.beacon, self.transport),
        };
        format!("beacon {beacon}  registry {} {registered}", self.registry)
    }
}

impl Totals {
    pub(super) fn traffic(&self) -> String {
        format!(
            "in {}/s ({} in all)  out {}/s ({} in all)",
            speed(self.in_per_sec),
            humane::bytes(self.bytes_in),
            speed(self.out_per_sec),
            humane::bytes(self.bytes_out),
        )
    }

    pub(super) fn queues(&self) -> String {
        format!(
            "waiting {} for a key, {} for streams  dropped {} frames  {}",
            humane::count(self.queued_packets, "packet"),
            humane::bytes(self.queued_bytes),
            self.dropped_frames,
            humane::count(self.programs, "program"),
        )
    }
}

/// Without the `/s`, which stands in the heading.
pub(super) fn speed(rate: Option<u64>) -> String {
    rate.map_or_else(|| "-".to_owned(), humane::bytes)
}

impl PeerRow {
    pub(super) const HEADINGS: [&'static str; 7] =
        ["PEER", "ADDRESS", "PATH", "RTT", "IN/s", "OUT/s", "HEARD"];

    pub(super) fn cells(&self) -> [String; 7] {
        let heard = self.heard_ms.map(Duration::from_millis).map(|heard| duration::show(floor(heard)));
        [
            self.name.clone(),
            self.address.to_string(),
            self.path.to_owned(),
            rtt(self.rtt_us),
            speed(self.in_per_sec),
            speed(self.out_per_sec),
            heard.unwrap_or_else(|| "never".to_owned()),
        ]
    }
}

/// Tenths of a second are enough, and what is less is now.
fn floor(time: Duration) -> Duration {
    if time < Duration::from_secs(1) { Duration::ZERO } else { time }
}

impl StreamRow {
    pub(super) const HEADINGS: [&'static str; 7] =
        ["STREAM WITH", "PORTS", "STATE", "IN/s", "OUT/s", "WINDOW", "RESENT"];

    pub(super) fn cells(&self) -> [String; 7] {
        [
            self.peer.clone(),
            format!("{}→{}", self.local_port, self.remote_port),
            self.state.clone(),
            speed(self.in_per_sec),
            speed(self.out_per_sec),
            humane::bytes(self.window),
            self.resent.to_string(),
        ]
    }
}

/// One table, as `--once` prints it.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", style::strong(self.node.line()))?;
        writeln!(f, "{}", self.rendezvous.line())?;
        writeln!(f, "{}", self.totals.traffic())?;
        writeln!(f, "{}", self.totals.queues())?;
        let peer = |[name, address, path, rtt, incoming, outgoing, heard]: [&str; 7]| {
            format!("{name:<18} {address:<17} {path:<6} {rtt:>10} {incoming:>10} {outgoing:>10} {heard:>8}")
        };
        writeln!(f, "{}", style::faint(peer(PeerRow::HEADINGS)))?;
        for row in &self.peers {
            writeln!(f, "{}", peer(row.cells().each_ref().map(String::as_str)))?;
        }
        let stream = |[name, ports, state, incoming, outgoing, window, resent]: [&str; 7]| {
            format!(
                "{name:<18} {ports:<12} {state:<11} {incoming:>10} {outgoing:>10} {window:>10} {resent:>7}"
            )
        };
        writeln!(f, "{}", style::faint(stream(StreamRow::HEADINGS)))?;
        for row in &self.streams {
            writeln!(f, "{}", stream(row.cells().each_ref().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// The column that orders the peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Path,
    Rtt,
    In,
    Out,
    Heard,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Name => Self::Path,
            Self::Path => Self::Rtt,
            Self::Rtt => Self::In,
            Self::In => Self::Out,
            Self::Out => Self::Heard,
            Self::Heard => Self::Name,
        }
    }

    /// Its place among [`PeerRow::HEADINGS`].
    pub(super) fn column(self) -> usize {
        match self {
            Self::Name => 0,
            Self::Path => 2,
            Self::Rtt => 3,
            Self::In => 4,
            Self::Out => 5,
            Self::Heard => 6,
        }
    }

    /// Rates begin with the highest, all others with the lowest. What is not known comes last.
    fn compare(self, a: &PeerRow, b: &PeerRow) -> Ordering {
        let known = |value: Option<u64>| value.unwrap_or(u64::MAX);
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Path => a.path.cmp(b.path),
            Self::Rtt => known(a.rtt_us).cmp(&known(b.rtt_us)),
            Self::In => Reverse(a.in_per_sec).cmp(&Reverse(b.in_per_sec)),
            Self::Out => Reverse(a.out_per_sec).cmp(&Reverse(b.out_per_sec)),
            Self::Heard => known(a.heard_ms).cmp(&known(b.heard_ms)),
        }
        .then(a.node_id.cmp(&b.node_id))
    }
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort,
    Pause,
    Up,
    Down,
    /// The details of the selected peer, or no details.
    Enter,
    /// No details; without them, the end.
    Back,
}

/// What somebody else has to do for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Ask the daemon about a peer.
    Details(NodeId),
}

/// The live view.
#[derive(Debug, Default)]
pub(super) struct Board {
    latest: Option<Reading>,
    pub(super) shown: Snapshot,
    pub(super) sort: Sort,
    pub(super) selected: Option<NodeId>,
    pub(super) paused: bool,
    /// What is known of a peer, by name.
    pub(super) details: Option<Details>,
    /// What is wrong.
    pub(super) notice: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) title: String,
    pub(super) rows: Vec<(String, String)>,
}

impl Board {
    /// Shows a new reading.
    pub(super) fn take(&mut self, reading: Reading) {
        self.notice = None;
        self.shown = Snapshot::between(self.latest.as_ref(), &reading);
        self.latest = Some(reading);
        self.order();
    }

    pub(super) fn press(&mut self, key: Key) -> Wish {
        match key {
            Key::Quit => return Wish::Quit,
            Key::Sort => {
                self.sort = self.sort.next();
                self.order();
            }
            Key::Pause => self.paused = !self.paused,
            Key::Up => self.select(|place, _| place.saturating_sub(1)),
            Key::Down => self.select(|place, last| (place + 1).min(last)),
            Key::Enter if self.details.is_some() => self.details = None,
            Key::Enter => return self.selected.map_or(Wish::Nothing, Wish::Details),
            Key::Back if self.details.is_some() => self.details = None,
            Key::Back => return Wish::Quit,
        }
        Wish::Nothing
    }

    /// The row that is selected.
    pub(super) fn place(&self) -> Option<usize> {
        let selected = self.selected?;
        self.shown.peers.iter().position(|row| row.node_id == selected)
    }

    /// Rows move, the selection stays with its peer. One that is gone is no longer selected.
    fn order(&mut self) {
        let sort = self.sort;
        self.shown.peers.sort_by(|a, b| sort.compare(a, b));
        if self.place().is_none() {
            self.selected = self.shown.peers.first().map(|row| row.node_id);
        }
    }

    fn select(&mut self, step: impl FnOnce(usize, usize) -> usize) {
        let Some(last) = self.shown.peers.len().checked_sub(1) else { return };
        let place = step(self.place().unwrap_or(0), last);
        self.selected = self.shown.peers.get(place).map(|row| row.node_id);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use pilot_wire::ipc::{Health, RegistryStatus, Status};

    use super::*;

    fn peer(node: u32, hostname: &str, bytes: u64, rtt_us: Option<u64>) -> PeerInfo {
        PeerInfo {
            node_id: NodeId(node),
            hostname: hostname.to_owned(),
            endpoint: "192.0.2.7:513".to_owned(),
            encrypted: true,
            relay: node == 3,
            rtt_us,
            idle_ms: Some(u64::from(node) * 800),
            bytes_sent: Some(bytes),
            bytes_recv: Some(bytes * 2),
            ..PeerInfo::default()
        }
    }

    /// A node with three peers, that has moved so many bytes with the first.
    pub(in super::super) fn reading(seconds: u64, bytes: u64) -> Reading {
        Reading {
            at: Duration::from_secs(seconds),
            status: Status {
                pid: 7,
                version: "0.1.0".to_owned(),
                uptime_secs: 4000 + seconds,
                hostname: "agent-a".to_owned(),
                address: Addr::backbone(NodeId(1)),
                registry: RegistryStatus {
                    address: "192.0.2.1:9000".to_owned(),
                    connected: true,
                    ..RegistryStatus::default()
                },
                beacon: "192.0.2.1:9001".to_owned(),
                beacon_answers: Some(true),
                transport: "udp".to_owned(),
                ..Status::default()
            },
            health: Health {
                bytes_sent: 1000 + bytes,
                bytes_recv: 2000 + 2 * bytes,
                queued_packets: Some(1),
                queued_bytes: Some(2048),
                dropped_frames: Some(4),
                programs: Some(2),
                ..Health::default()
            },
            peers: vec![
                peer(2, "agent-b", bytes, Some(1200)),
                peer(3, "", 0, None),
                peer(4, "agent-0", 10 * bytes, Some(300)),
            ],
            streams: vec![ConnInfo {
                id: StreamId(5),
                local_port: Port(49_152),
                remote_addr: Addr::backbone(NodeId(2)),
                remote_port: Port(1001),
                state: "ESTABLISHED".to_owned(),
                cong_win: 64 << 10,
                bytes_sent: bytes,
                retransmits: 1,
                fast_retx: 2,
                ..ConnInfo::default()
            }],
        }
    }

    fn names(board: &Board) -> Vec<&str> {
        board.shown.peers.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn rates_are_the_difference_of_two_readings_over_the_time_between_them() {
        let shown = Snapshot::between(Some(&reading(10, 0)), &reading(14, 4000));
        assert_eq!((shown.totals.in_per_sec, shown.totals.out_per_sec), (Some(2000), Some(1000)));
        let rates: Vec<_> = shown.peers.iter().map(|row| (row.in_per_sec, row.out_per_sec)).collect();
        assert_eq!(rates, [(Some(2000), Some(1000)), (Some(0), Some(0)), (Some(20_000), Some(10_000))]);
        assert_eq!(shown.streams[0].out_per_sec, Some(1000));
        assert_eq!((shown.streams[0].peer.as_str(), shown.streams[0].resent), ("agent-b", 3));
    }

    #[test]
    fn without_an_earlier_reading_of_the_same_daemon_there_is_no_rate() {
        let now = reading(14, 4000);
        let mut before = reading(10, 9000);
        assert_eq!(Snapshot::between(Some(&before), &now).totals.out_per_sec, None, "the counter went back");
        before = reading(10, 0);
        before.status.pid = 8;
        assert_eq!(Snapshot::between(Some(&before), &now).totals.out_per_sec, None, "another daemon");
        assert_eq!(Snapshot::between(Some(&now), &now).totals.out_per_sec, None, "no time between");
        assert_eq!(Snapshot::between(None, &now).peers[0].out_per_sec, None);
        before = reading(10, 0);
        before.peers.clear();
        before.streams.clear();
        let shown = Snapshot::between(Some(&before), &now);
        assert_eq!((shown.peers[0].out_per_sec, shown.streams[0].out_per_sec), (None, None), "it is new");
    }

    #[test]
    fn each_press_of_s_orders_by_the_next_column_and_the_selection_stays_with_its_peer() {
        let mut board = Board::default();
        board.take(reading(10, 0));
        board.take(reading(11, 1000));
        assert_eq!(names(&board), ["0:0000.0000.0003", "agent-0", "agent-b"]);
        board.press(Key::Down);
        board.press(Key::Down);
        board.press(Key::Down);
        assert_eq!((board.selected, board.place()), (Some(NodeId(2)), Some(2)), "not beyond the last");
        let mut orders = Vec::new();
        for _ in 0..6 {
            assert_eq!(board.press(Key::Sort), Wish::Nothing);
            let nodes: Vec<u32> = board.shown.peers.iter().map(|row| row.node_id.0).collect();
            orders.push((board.sort, nodes));
            assert_eq!(board.selected, Some(NodeId(2)));
        }
        assert_eq!(
            orders,
            [
                (Sort::Path, vec![2, 4, 3]),
                (Sort::Rtt, vec![4, 2, 3]),
                (Sort::In, vec![4, 2, 3]),
                (Sort::Out, vec![4, 2, 3]),
                (Sort::Heard, vec![2, 3, 4]),
                (Sort::Name, vec![3, 4, 2]),
            ]
        );
    }

    #[test]
    fn a_peer_that_is_gone_is_no_longer_selected() {
        let mut board = Board::default();
        assert_eq!(board.press(Key::Down), Wish::Nothing);
        assert_eq!(board.press(Key::Enter), Wish::Nothing, "there is nobody");
        board.take(reading(10, 0));
        board.press(Key::Down);
        assert_eq!(board.selected, Some(NodeId(4)));
        let mut later = reading(11, 0);
        later.peers.pop();
        board.take(later);
        assert_eq!(board.selected, Some(NodeId(3)));
        board.press(Key::Up);
        assert_eq!(board.place(), Some(0), "not above the first");
    }

    #[test]
    fn enter_asks_for_details_and_closes_them_and_back_closes_them_before_it_ends() {
        let mut board = Board::default();
        board.take(reading(10, 0));
        assert_eq!(board.press(Key::Enter), Wish::Details(NodeId(3)));
        board.details = Some(Details { title: String::new(), rows: Vec::new() });
        assert_eq!(board.press(Key::Enter), Wish::Nothing);
        assert_eq!(board.details, None);
        board.details = Some(Details { title: String::new(), rows: Vec::new() });
        assert_eq!(board.press(Key::Back), Wish::Nothing);
        assert_eq!(board.press(Key::Back), Wish::Quit);
        assert_eq!(board.press(Key::Quit), Wish::Quit);
        board.press(Key::Pause);
        assert!(board.paused);
    }

    #[test]
    fn a_hostname_cannot_move_the_cursor() {
        let mut now = reading(10, 0);
        now.peers[0].hostname = "a\x1b[2Jb".to_owned();
        assert_eq!(Snapshot::between(None, &now).peers[0].name, "a [2Jb");
    }
}
