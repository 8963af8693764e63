//! Numbers for Prometheus, in the text format of OpenMetrics, over HTTP. Off unless an address is given; what each number
//! means is said in docs/operations.md. No label has values that a peer could add to.

mod http;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use pilot_metrics::{Collector, DescriptorEncoder, Out, Process};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::driver::{Command, Pulse};
use crate::service::Backlog;

/// How long the loop and the services may take to say how they are.
const PATIENCE: Duration = Duration::from_secs(3);

/// For so long the last answer is given again, so that whoever asks all the time costs the loop nothing.
const FRESH: Duration = Duration::from_millis(200);

/// Serves the numbers until the daemon ends.
pub(crate) async fn serve(listener: TcpListener, commands: mpsc::Sender<Command>) {
    http::serve(listener, Desk { commands, last: Mutex::default() }).await;
}

/// Answers what is asked over HTTP.
struct Desk {
    commands: mpsc::Sender<Command>,
    /// The lock also makes further askers wait for the one who looks.
    last: Mutex<Option<(Instant, String)>>,
}

/// Why there are no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Silent {
    #[error("the daemon's loop does not answer")]
    Loop,
    #[error("the numbers cannot be written down")]
    Text,
}

impl Desk {
    /// All numbers.
    async fn metrics(&self) -> Result<String, Silent> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let mut pulse = self.pulse().await?;
        let backlog = match pulse.services.take() {
            // They may wait for a disk; what the loop knows is worth showing without them.
            Some(services) => timeout(PATIENCE, services.backlog()).await.ok(),
            None => None,
        };
        let scrape = Scrape { pulse, backlog, process: Process::look() };
        let text = pilot_metrics::text(scrape).map_err(|fmt::Error| Silent::Text)?;
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    /// Whether the loop turns.
    async fn health(&self) -> Result<(), Silent> {
        self.pulse().await.map(drop)
    }

    async fn pulse(&self) -> Result<Pulse, Silent> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Pulse(answer)).await.ok()?;
            answered.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten().ok_or(Silent::Loop)
    }
}

/// Listens where the owner wants the numbers.
///
/// # Errors
/// What the system says if it cannot be listened on.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever reaches this address can read the metrics of this node");
    }
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

struct Scrape {
    pulse: Pulse,
    backlog: Option<Backlog>,
    process: Process,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.standing(&mut out)?;
        self.peers(&mut out)?;
        self.trust(&mut out)?;
        self.traffic(&mut out)?;
        self.streams(&mut out)?;
        self.programs(&mut out)?;
        if let Some(backlog) = &self.backlog {
            messages(backlog, &mut out)?;
        }
        self.process.encode(&mut out)
    }
}

impl Scrape {
    fn standing(&self, out: &mut Out<'_>) -> fmt::Result {
        let pulse = &self.pulse;
        out.gauges(
            "pilot_node_build_info",
            "Always 1; the label says which version runs",
            "version",
            [(env!("CARGO_PKG_VERSION"), 1u64)],
        )?;
        out.gauge("pilot_node_uptime_seconds", "Since the start", pulse.uptime.as_secs_f64())?;
        out.gauge("pilot_node_registered", "1 while there is a connection to a registry", pulse.registered)?;
        let losses = pulse.tally.registry_losses;
        out.counter("pilot_node_registry_losses", "Connections to a registry that were lost", losses)?;
        if let Some(at) = pulse.tally.registry_contact {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let help = "When a registry last said something, in seconds since 1970";
            out.gauge("pilot_node_registry_last_contact_timestamp_seconds", help, at)?;
        }
        if let Some(answers) = pulse.beacon_answers {
            out.gauge("pilot_node_beacon_answers", "1 while the beacon answers", answers)?;
        }
        out.gauge("pilot_node_alarms", "What was said to this node and is not believed", pulse.alarms)?;
        out.gauge("pilot_node_policy_broken", "1 if the owner's rules cannot be read", pulse.policy_broken)
    }

    fn peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let pulse = &self.pulse;
        let paths = [
            ("direct", pulse.direct),
            ("relayed", pulse.relayed),
            ("web", pulse.web),
            ("unknown", pulse.unknown),
        ];
        out.gauges("pilot_node_peers", "Peers with a tunnel, by how they are reached", "path", paths)?;
        if !pulse.round_trips.is_empty() {
            let quantiles = [("0.5", 50), ("0.9", 90), ("1", 100)];
            let values = quantiles.map(|(name, percent)| (name, quantile(&pulse.round_trips, percent)));
            let help = "Round trips to the peers with a tunnel: the median, that of 90 of 100, the longest";
            out.gauges("pilot_node_round_trip_seconds", help, "quantile", values)?;
        }
        let tally = &pulse.tally;
        let kinds = [("first", tally.keys_agreed), ("again", tally.keys_renewed)];
        out.counters("pilot_node_key_exchanges", "Keys agreed with peers", "kind", kinds)?;
        let changes = [
            ("direct", tally.went_direct),
            ("relayed", tally.went_relayed),
            ("silent", tally.went_silent),
            ("wrong_key", tally.wrong_key),
            ("downgrade", tally.downgrades),
        ];
        out.counters("pilot_node_path_changes", "Changes of how peers are reached", "to", changes)
    }

    fn trust(&self, out: &mut Out<'_>) -> fmt::Result {
        let (pulse, tally) = (&self.pulse, &self.pulse.tally);
        out.gauge("pilot_node_trusted", "Nodes that this one trusts", pulse.trusted)?;
        out.gauge(
            "pilot_node_handshakes_pending",
            "Requests for trust that wait for the owner",
            pulse.pending,
        )?;
        let outcomes = [
            ("asked", tally.trust_asked),
            ("trusted", tally.trust_agreed),
            ("rejected", tally.trust_rejected),
            ("revoked", tally.trust_revoked),
            ("undeliverable", tally.trust_undeliverable),
        ];
        out.counters("pilot_node_handshakes", "What became of requests for trust", "outcome", outcomes)
    }

    fn traffic(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.pulse.stats;
        let bytes = [("in", stats.bytes_received), ("out", stats.bytes_sent)];
        out.counters("pilot_node_bytes", "Bytes of datagrams, with all headers", "direction", bytes)?;
        let packets = [("in", stats.datagrams_received), ("out", stats.datagrams_sent)];
        out.counters("pilot_node_packets", "Datagrams", "direction", packets)?;
        let relayed = [("in", stats.relayed_bytes_received), ("out", stats.relayed_bytes_sent)];
        let help = "Of the bytes, those in frames that the beacon passes on";
        out.counters("pilot_node_relay_bytes", help, "direction", relayed)?;
        let drops = pilot_proto::node::Drop::ALL.map(|why| (why.name(), stats.dropped(why)));
        out.counters("pilot_node_drops", "Frames that came and were of no use", "reason", drops)?;
        out.counter(
            "pilot_node_retransmits",
            "Segments of streams that were sent again",
            self.pulse.retransmits,
        )
    }

    fn streams(&self, out: &mut Out<'_>) -> fmt::Result {
        let (pulse, tally) = (&self.pulse, &self.pulse.tally);
        out.gauge("pilot_node_streams", "Open streams", pulse.streams)?;
        let opened = [("ours", tally.streams_dialed), ("theirs", tally.streams_accepted)];
        out.counters("pilot_node_streams_opened", "Streams that came about", "by", opened)?;
        let ended = [
            ("finished", tally.streams_finished),
            ("reset", tally.streams_reset),
            ("timed_out", tally.streams_timed_out),
        ];
        out.counters("pilot_node_streams_ended", "Streams that ended, by how", "how", ended)?;
        out.counter("pilot_node_dials_failed", "Streams that never came about", tally.dials_failed)?;
        out.counter(
            "pilot_node_streams_refused",
            "Streams of peers for which a program had no room",
            pulse.refused_streams,
        )
    }

    fn programs(&self, out: &mut Out<'_>) -> fmt::Result {
        let pulse = &self.pulse;
        out.gauge("pilot_node_programs", "Programs of this machine that are connected", pulse.programs)?;
        out.gauge("pilot_node_ports", "Ports that are listened on", pulse.ports)?;
        let help = "Events that a webhook was too slow for";
        out.counter("pilot_node_webhook_dropped", help, pulse.webhook_dropped)?;
        match pulse.spans_dropped {
            Some(dropped) => out.counter("pilot_node_spans_dropped", "Spans that no collector took", dropped),
            None => Ok(()),
        }
    }
}

fn messages(backlog: &Backlog, out: &mut Out<'_>) -> fmt::Result {
    out.gauge("pilot_node_outbox_messages", "Messages to be delivered", backlog.outbox_messages)?;
    out.gauge("pilot_node_outbox_bytes", "Their bytes", backlog.outbox_bytes)?;
    if let Some((all, unread)) = backlog.inbox {
        out.gauge("pilot_node_inbox_messages", "Messages in the inbox", all)?;
        out.gauge("pilot_node_inbox_unread", "Of these, those that no program has taken", unread)?;
    }
    let Some(events) = &backlog.events else { return Ok(()) };
    out.gauge("pilot_node_event_subscriptions", "Subscriptions at this node's broker", events.subscribers)?;
    let queued = events.subscriptions.iter().map(|subscription| subscription.queued).sum::<u64>();
    out.gauge("pilot_node_events_queued", "Events on their way to subscribers", queued)?;
    let counters = &events.counters;
    let fates = [
        ("published", counters.published),
        ("received", counters.received),
        ("delivered", counters.delivered),
        ("dropped", counters.dropped),
        ("refused", counters.refused),
    ];
    out.counters("pilot_node_events", "Events at this node's broker, by what became of them", "fate", fates)
}

/// The value that so many of a hundred do not exceed; `sorted` is not empty.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).or(sorted.last()).map_or(0.0, Duration::as_secs_f64)
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) fn request(head: &[u8]) {
        super::http::fuzz(head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let trips: Vec<Duration> = (1..=10).map(Duration::from_secs).collect();
        assert_eq!([50, 90, 100].map(|percent| quantile(&trips, percent)), [5.0, 9.0, 10.0]);
        assert_eq!([50, 100].map(|percent| quantile(&trips[..1], percent)), [1.0, 1.0]);
    }
}
