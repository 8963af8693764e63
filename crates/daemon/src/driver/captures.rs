//! Packets of this node for local programs that watch.
//!
//! A program fetches: it asks, and is answered when there is something. So the daemon holds one bounded queue for each,
//! in the node, and what does not fit is dropped and counted there.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pilot_proto::tap::TapId;
use pilot_wire::capture::{Filter, Record};
use pilot_wire::ipc::{Code, Command, Done, Reply};

use super::Driver;
use super::clients::ClientId;
use super::replies::{Refusal, ReplyTo};

/// Bytes of one reply, so that it fits into a frame with room to spare.
const REPLY_MAX: usize = 256 << 10;

/// The programs that watch.
#[derive(Debug, Default)]
pub(super) struct Captures {
    by_client: BTreeMap<ClientId, Capture>,
}

#[derive(Debug)]
struct Capture {
    tap: TapId,
    /// The two clocks at the start: times of packets are counted from there, so that they never go back.
    begun: Instant,
    wall: SystemTime,
    /// The program waits for a packet.
    waiting: Option<ReplyTo>,
}

impl Capture {
    /// Nanoseconds of Unix time.
    fn wall(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun);
        let wall = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default() + since;
        u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Driver {
    pub(super) fn on_capture(&mut self, now: Instant, to: ReplyTo, filter: Filter) {
        self.end_capture(to.client);
        let Some(tap) = self.node.add_tap(filter) else {
            let refusal = Refusal::new(Code::Busy, "too many programs capture packets already");
            return self.refuse(to, refusal.hint("stop one of them"));
        };
        let capture = Capture { tap, begun: now, wall: SystemTime::now(), waiting: None };
        self.captures.by_client.insert(to.client, capture);
        self.answer(to, Command::CallOk, &Done {});
    }

    pub(super) fn on_packets(&mut self, to: ReplyTo, wait: bool) {
        let id = to.client;
        let Some(capture) = self.captures.by_client.get_mut(&id) else {
            return self.refuse(to, Refusal::new(Code::NotFound, "this program has not begun to capture"));
        };
        // An earlier question is answered first, with what there is: nothing, usually.
        let earlier = capture.waiting.take();
        let ready = !wait || self.node.next_seen_len(capture.tap).is_some();
        if let Some(earlier) = earlier {
            self.send_packets(earlier);
        }
        if ready {
            self.send_packets(to);
        } else if let Some(capture) = self.captures.by_client.get_mut(&id) {
            capture.waiting = Some(to);
        }
    }

    /// Answers those who wait for packets, if there are any now.
    pub(super) fn serve_captures(&mut self) {
        if self.captures.by_client.is_empty() {
            return;
        }
        let mut due = Vec::new();
        for capture in self.captures.by_client.values_mut() {
            if self.node.next_seen_len(capture.tap).is_some() {
                due.extend(capture.waiting.take());
            }
        }
        for to in due {
            self.send_packets(to);
        }
    }

    /// The program is gone, or begins anew.
    pub(super) fn end_capture(&mut self, client: ClientId) {
        if let Some(capture) = self.captures.by_client.remove(&client) {
            self.node.remove_tap(capture.tap);
            if let Some(to) = capture.waiting {
                self.refuse(to, Refusal::new(Code::Closed, "the capture was begun anew"));
            }
        }
    }

    fn send_packets(&mut self, to: ReplyTo) {
        let Some(capture) = self.captures.by_client.get(&to.client) else { return };
        let mut body = Vec::new();
        self.node.seen(capture.tap).emit(&mut body);
        while let Some(length) = self.node.next_seen_len(capture.tap)
            && body.len() + Record::wire_len(length) <= REPLY_MAX
            && let Some(seen) = self.node.next_seen(capture.tap)
        {
            let record = Record { time: capture.wall(seen.at), meta: seen.meta, packet: &seen.packet };
            record.emit(&mut body);
        }
        self.reply(to, &Reply::Packets { body: body.into() });
    }
}
