//! The state machine as carriers see it: what to write next, what an answer means, what the end of a connection means.

use bytes::Bytes;
use pilot_wire::dataexchange::{Answer, Control, FrameType, RawFrame, is_refused_for_good};
use pilot_wire::outbox::State;

use super::super::entry::{Entry, Now, Seq};
use super::super::lane::{
    Flight, Job, LIVE_MAX, LaneKey, Letter, RECEIPTS_AT_ONCE, Run, Track, WINDOW_BYTES, WINDOW_FRAMES, Word,
};
use super::{Known, Ledger};

/// A receiver that hangs up so often in a row instead of answering one message does not want it.
pub(super) const HANG_UPS_MAX: u32 = 5;

/// How a carrier's work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum End {
    /// There was no connection. Why.
    Unreachable(String),
    /// It broke. Why.
    Broken(String),
    /// The receiver closed it in order.
    HungUp,
    /// The carrier left, because there is nothing to do or the receiver takes no more now.
    Left,
}

/// What a carrier is to do.
#[derive(Debug)]
pub(in super::super) enum Next {
    /// Write these.
    Write(Vec<Job>),
    /// Wait for answers, or for something to do.
    Wait,
    /// There is nothing to do, and others need a carrier.
    Idle,
    /// End the connection.
    Leave,
}

/// What a receiver's answer to a message means.
enum Verdict {
    Stored,
    /// It does not know ids.
    OlderForm,
    /// Never.
    Refused(String),
    /// Not now.
    Later(String),
}

impl Ledger {
    /// What the carrier of a lane writes next. It is under way from now on.
    pub(in super::super) fn next(&mut self, key: LaneKey, now: Now) -> Next {
        let known = self.known.get(&key.0).copied();
        let Some(lane) = self.lanes.get_mut(&key) else { return Next::Leave };
        if lane.stopping {
            return if lane.flights.is_empty() { Next::Leave } else { Next::Wait };
        }
        let mut jobs = Vec::new();
        if lane.live.len() >= LIVE_MAX {
            self.effects.live_room = true;
        }
        while let Some(delivery) = lane.live.pop_front() {
            lane.flights.push_back(Flight::Live);
            jobs.push(Job::Live(Box::new(delivery)));
        }
        if !matches!(known, Some(Known::Tagged | Known::Untagged)) {
            if !lane.receipts.is_empty() {
                let count = lane.receipts.len().min(RECEIPTS_AT_ONCE);
                let receipts: Vec<_> = lane.receipts.drain(..count).collect();
                let control = Control::Receipts { receipts };
                let word = Word { control, body: Bytes::new(), until: now.instant };
                jobs.push(word.job());
                lane.flights.push_back(Flight::Word(word));
            }
            while let Some(word) = lane.words.pop_front() {
                jobs.push(word.job());
                lane.flights.push_back(Flight::Word(word));
            }
        }
        let window = match known {
            Some(Known::Ours) => WINDOW_FRAMES,
            // What is not known to keep the order, or to recognise a repetition, gets one at a time.
            Some(Known::Tagged | Known::Untagged) | None => 1,
        };
        while let Some(job) = self.next_message(key, known, window, now) {
            let is_question = matches!(job, Job::Message(_));
            jobs.push(job);
            if known.is_none() && is_question {
                self.ask_what_it_is(key, &mut jobs);
                break;
            }
        }
        let Some(lane) = self.lanes.get(&key) else { return Next::Leave };
        match jobs.is_empty() {
            false => Next::Write(jobs),
            true if !lane.flights.is_empty() => Next::Wait,
            true if self.carriers >= self.limits.carriers => Next::Leave,
            true => Next::Idle,
        }
    }

    fn next_message(&mut self, key: LaneKey, known: Option<Known>, window: usize, now: Now) -> Option<Job> {
        loop {
            let lane = self.lanes.get_mut(&key)?;
            let seq = lane.next_message(self.durable)?;
            let entry = self.entries.get_mut(&seq)?;
            if entry.cancelled {
                self.settle(seq, State::Cancelled, now, |_| {});
                continue;
            }
            if entry.record.expires <= now.wall {
                self.expire(seq, now);
                continue;
            }
            let bytes = entry.record.bytes;
            let is_suspect = entry.hang_ups > 0;
            if is_suspect && !lane.proven {
                // Is the receiver alive? Only then it means something that it hangs up on this message.
                return lane.flights.is_empty().then(|| {
                    lane.flights.push_back(Flight::Probe);
                    Job::Word { control: Control::Receipts { receipts: Vec::new() }, body: Bytes::new() }
                });
            }
            let window =
                if is_suspect || lane.suspect_under_way || key.1 == Track::Files { 1 } else { window };
            let under_way =
                lane.flights.iter().filter(|flight| matches!(flight, Flight::Message { .. })).count();
            if under_way >= window || (under_way > 0 && lane.bytes_under_way() + bytes > WINDOW_BYTES) {
                return None;
            }
            lane.suspect_under_way = is_suspect;
            let tagged = known != Some(Known::Untagged);
            entry.under_way = true;
            entry.attempts = entry.attempts.saturating_add(1);
            lane.written = Some(seq);
            lane.to = entry.record.to;
            lane.flights.push_back(Flight::Message { seq, tagged, bytes });
            self.effects.moved.insert(seq);
            let letter = Box::new(letter(seq, entry, tagged, now));
            return Some(match key.1 {
                Track::Messages => Job::Message(letter),
                Track::Files => Job::File(letter),
            });
        }
    }

    /// With the first message goes an empty word, whose answer tells one of our nodes from another.
    fn ask_what_it_is(&mut self, key: LaneKey, jobs: &mut Vec<Job>) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let asks = |flight: &Flight| matches!(flight, Flight::Probe | Flight::Word(_));
        if !lane.flights.iter().any(asks) {
            lane.flights.push_back(Flight::Probe);
            let control = Control::Receipts { receipts: Vec::new() };
            jobs.push(Job::Word { control, body: Bytes::new() });
        }
    }

    /// The carrier has a connection.
    pub(in super::super) fn on_connected(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.run = Run::Connected;
            lane.away = false;
            lane.reason = None;
        }
    }

    /// The receiver answered what was written first of that which is under way. `None` when it answered something that
    /// is none, or nothing was asked: the connection is of no use then.
    pub(in super::super) fn on_frame(&mut self, key: LaneKey, frame: &RawFrame, now: Now) -> Option<()> {
        let answer = Answer::parse(frame).ok()?;
        let lane = self.lanes.get_mut(&key)?;
        let flight = lane.flights.pop_front()?;
        lane.proven = true;
        match flight {
            Flight::Live => {}
            Flight::Probe | Flight::Word(_) => {
                if !answer.is_unsupported(FrameType::CONTROL) {
                    self.know(key.0, Known::Ours);
                } else if self.known.get(&key.0) != Some(&Known::Untagged) {
                    self.know(key.0, Known::Tagged);
                }
            }
            Flight::Message { seq, tagged, .. } => self.on_message_answered(key, seq, tagged, &answer, now),
        }
        Some(())
    }

    fn on_message_answered(&mut self, key: LaneKey, seq: Seq, tagged: bool, answer: &Answer, now: Now) {
        match verdict(answer, tagged) {
            Verdict::Stored => self.on_stored(key, seq, Some(tagged), answer.text(), now),
            Verdict::OlderForm => {
                self.know(key.0, Known::Untagged);
                self.back_to_queue(seq, now);
                if let Some(lane) = self.lanes.get_mut(&key) {
                    // Nothing was written after it: what is not known to know ids gets one at a time.
                    lane.written = None;
                }
            }
            Verdict::Refused(reason) => {
                self.settle(seq, State::Refused, now, |record| {
                    (record.reason, record.ack) = (Some(reason), Some(answer.text()));
                });
            }
            Verdict::Later(reason) => self.on_later(key, seq, reason, now),
        }
    }

    /// The receiver has it.
    pub(in super::super) fn on_stored(
        &mut self,
        key: LaneKey,
        seq: Seq,
        tagged: Option<bool>,
        ack: String,
        now: Now,
    ) {
        self.settle(seq, State::Stored, now, |record| {
            (record.ack, record.tagged, record.reason) = (Some(ack), tagged, None);
        });
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.failures = 0;
            lane.reason = None;
            if key.1 == Track::Files {
                lane.flights.clear();
            }
        }
    }

    /// The receiver does not want a file, and will not.
    pub(in super::super) fn on_file_refused(&mut self, key: LaneKey, seq: Seq, reason: String, now: Now) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.flights.clear();
        }
        self.settle(seq, State::Refused, now, |record| record.reason = Some(reason));
    }

    /// The bytes of a message are lost.
    pub(in super::super) fn on_lost(&mut self, seq: Seq, reason: String, now: Now) {
        self.settle(seq, State::Refused, now, |record| record.reason = Some(reason));
    }

    /// The receiver cannot take it now: the carrier leaves, and comes back after a pause.
    fn on_later(&mut self, key: LaneKey, seq: Seq, reason: String, now: Now) {
        self.back_to_queue(seq, now);
        if let Some(lane) = self.lanes.get_mut(&key) {
            // Of several refusals in a row the first one is the cause.
            if !lane.stopping {
                lane.reason = Some(reason);
            }
            lane.stopping = true;
        }
    }

    /// A message that was under way is not stored, as far as anybody knows.
    fn back_to_queue(&mut self, seq: Seq, now: Now) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        entry.under_way = false;
        self.effects.moved.insert(seq);
        if entry.cancelled {
            self.settle(seq, State::Cancelled, now, |_| {});
        } else if entry.record.expires <= now.wall {
            self.expire(seq, now);
        }
    }

    /// The carrier of the lane has ended.
    pub(in super::super) fn on_end(&mut self, key: LaneKey, end: End, now: Now) {
        self.carriers = self.carriers.saturating_sub(1);
        self.effects.look = true;
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let flights = std::mem::take(&mut lane.flights);
        lane.written = None;
        let head = flights.iter().find_map(|flight| match flight {
            Flight::Message { seq, .. } => Some(*seq),
            Flight::Probe | Flight::Word(_) | Flight::Live => None,
        });
        let (failed, reason) = match end {
            End::Left => (lane.stopping, None),
            End::HungUp if flights.is_empty() => (lane.stopping, None),
            End::HungUp => (true, Some("the receiver closed the connection without an answer".to_owned())),
            End::Unreachable(ref reason) | End::Broken(ref reason) => (true, Some(reason.clone())),
        };
        // What the receiver said itself is the better reason.
        if reason.is_some() && !lane.stopping {
            lane.reason = reason;
        }
        if matches!(end, End::Unreachable(_)) {
            lane.away = true;
        }
        let proven = lane.proven;
        let again = matches!(lane.run, Run::Dialing { again: true });
        lane.stopping = false;
        // What is of use now or never did not make it.
        lane.live.clear();
        self.effects.live_room = true;
        lane.failures = if failed { lane.failures.saturating_add(1) } else { 0 };
        for flight in flights.into_iter().rev() {
            match flight {
                Flight::Word(word) => self.put_back(key, word, now),
                Flight::Message { seq, .. } => self.back_to_queue(seq, now),
                Flight::Probe | Flight::Live => {}
            }
        }
        let random = self.random();
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.run = Run::Idle((failed && !again).then(|| now.instant + lane.pause(random)));
        }
        if end == End::HungUp
            && let Some(seq) = head
            && let Some(entry) = self.entries.get_mut(&seq)
            && entry.is_pending()
            && (proven || entry.hang_ups == 0)
        {
            entry.hang_ups += 1;
            if entry.hang_ups >= HANG_UPS_MAX {
                let reason = format!(
                    "the receiver closed the connection {HANG_UPS_MAX} times instead of answering; the message may be \
                     too large for it"
                );
                self.settle(seq, State::Refused, now, |record| record.reason = Some(reason));
            }
        }
    }

    fn put_back(&mut self, key: LaneKey, word: Word, now: Now) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        match word.control {
            Control::Receipts { receipts } => {
                for receipt in receipts.into_iter().rev() {
                    lane.receipts.push_front(receipt);
                }
            }
            Control::Cancel { .. }
            | Control::Keeps
            | Control::Mailboxes { .. }
            | Control::Deposit { .. }
            | Control::Forward { .. }
            | Control::Transfer { .. } => {
                if word.until > now.instant {
                    lane.words.push_front(word);
                }
            }
        }
    }
}

/// A message as it goes out now.
pub(super) fn letter(seq: Seq, entry: &Entry, tagged: bool, now: Now) -> Letter {
    let record = &entry.record;
    let mut extension = record.extension.clone();
    extension.receipts = true;
    extension.ordered = true;
    if extension.ttl_ms.is_some() {
        extension.ttl_ms = Some(record.expires.saturating_sub(now.wall));
    }
    Letter {
        seq,
        id: record.id.clone(),
        kind: record.kind,
        bytes: record.bytes,
        name: record.name.clone(),
        reply_to: record.reply_to.clone(),
        extension,
        tagged,
        place: record.place,
        cached: entry.cached.clone(),
    }
}

impl Word {
    fn job(&self) -> Job {
        Job::Word { control: self.control.clone(), body: self.body.clone() }
    }
}

fn verdict(answer: &Answer, tagged: bool) -> Verdict {
    if tagged && answer.is_unsupported(FrameType::TAGGED) {
        return Verdict::OlderForm;
    }
    match answer {
        Answer::Stored { .. } => Verdict::Stored,
        Answer::Failed { reason, .. } | Answer::Refused(reason) => match is_refused_for_good(reason) {
            true => Verdict::Refused(reason.clone()),
            false => Verdict::Later(reason.clone()),
        },
        // Nothing is asked for its times.
        Answer::Timed(_) => Verdict::Later("the receiver gave an answer to another question".to_owned()),
    }
}
