//! The packets that a stream emits.

use std::time::Instant;

use pilot_wire::{
    Seq,
    packet::{Flags, HEADER_LEN, Header, Protocol},
    sack::SackList,
};

use super::{
    Owed, Phase, Sent, SentKind, Stream,
    options::{LEGACY_SEGMENT, Offer, data_room, emit_data},
    receive::Receiver,
    send::{Fin, Outgoing},
};

impl Stream {
    /// Appends the next packet to `out`, if one is to be sent now. Call until `None`; after that the stream wants to be
    /// asked again after any other call, or when [`poll_timeout`](Self::poll_timeout) has passed.
    pub fn poll_segment(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Sent> {
        let sent = self.poll_packet(now, out)?;
        self.liveness.spoken = now;
        Some(sent)
    }

    fn poll_packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Sent> {
        if let Some(owed) = self.owed.take() {
            return Some(self.emit_owed(owed, out));
        }
        match &mut self.phase {
            Phase::Dialing(opening) => {
                if !opening.due {
                    return None;
                }
                opening.sent(now);
                let with_data = opening.carries_data();
                Some(self.emit_syn(Flags::SYN, with_data, out))
            }
            Phase::Answering(opening) => {
                if opening.due {
                    opening.sent(now);
                    return Some(self.emit_syn(Flags::SYN | Flags::ACK, false, out));
                }
                self.poll_connected(now, out)
            }
            Phase::Connected { .. } => self.poll_connected(now, out),
            Phase::TimeWait { .. } => {
                let due = self.acks.is_due() && !self.agreed.is_legacy();
                due.then(|| self.emit_ack(out))
            }
            Phase::Closed => None,
        }
    }

    fn poll_connected(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Sent> {
        if let Some(step) = self.receiver.as_ref().and_then(|receiver| self.acks.take_step(receiver.next())) {
            return Some(self.emit_step(step, out));
        }
        if self.agreed.is_legacy() && self.acks.is_due() && self.sender.fin() == Fin::Queued {
            // The reference's FIN has no room for it, and after a FIN the peer does not look any more.
            return Some(self.emit_ack(out));
        }
        if let Some(outgoing) = self.sender.poll(now) {
            return Some(self.emit_outgoing(outgoing, out));
        }
        if self.liveness.probe_due {
            self.liveness.probe_due = false;
            return Some(self.emit_probe(out));
        }
        self.acks.is_due().then(|| self.emit_ack(out))
    }

    fn emit_outgoing(&mut self, outgoing: Outgoing, out: &mut Vec<u8>) -> Sent {
        let start = out.len();
        let (payload, kind) = match outgoing {
            Outgoing::Data { start, len, again } => {
                let header = self.header(Flags::ACK, self.sender.seq(start));
                let (parts, count) = self.sender.payload(start, len);
                header.emit_with(&parts[..count], out);
                self.carried();
                (len as usize, if again { SentKind::Retransmission } else { SentKind::Data })
            }
            Outgoing::Fin { at, again } => {
                if !again {
                    self.fin_confirms = self.receiver.as_ref().is_some_and(Receiver::finished);
                }
                let seq = self.sender.seq(at);
                // The reference's own FIN has neither acknowledgement nor window, and it takes a FIN|ACK for the answer.
                if self.agreed.is_legacy() {
                    self.bare(Flags::FIN, seq).emit_with(&[], out);
                } else {
                    self.header(Flags::FIN | Flags::ACK, seq).emit_with(&[], out);
                    self.carried();
                }
                (0, SentKind::Fin)
            }
        };
        Sent { len: out.len() - start, payload, kind }
    }

    fn emit_owed(&mut self, owed: Owed, out: &mut Vec<u8>) -> Sent {
        let ack = self.receiver.as_ref().map_or(Seq(0), Receiver::ack);
        let (header, kind) = match owed {
            Owed::FinAnswer => {
                let header = Header { ack, ..self.bare(Flags::FIN | Flags::ACK, self.sender.next_seq()) };
                (header, SentKind::Fin)
            }
            Owed::Reset => (Header { ack, ..self.bare(Flags::RST, self.sender.next_seq()) }, SentKind::Reset),
            Owed::StrayReset(seq) => (self.bare(Flags::RST, seq), SentKind::Reset),
        };
        header.emit_with(&[], out);
        Sent { len: HEADER_LEN, payload: 0, kind }
    }

    fn emit_syn(&mut self, flags: Flags, with_data: bool, out: &mut Vec<u8>) -> Sent {
        // Windows in SYNs are in units that every peer knows; the agreed unit holds afterwards.
        let free = self.limits.receive_buffer.saturating_sub(self.unread());
        let slots = free / usize::from(LEGACY_SEGMENT);
        let window = u16::try_from(slots).unwrap_or(u16::MAX);
        let ack = self.receiver.as_ref().map_or(Seq(0), Receiver::ack);
        let header = Header { ack, window, ..self.bare(flags, self.initial) };
        if let Some(receiver) = &mut self.receiver {
            receiver.announce_syn(window, LEGACY_SEGMENT);
            self.acks.sent();
        }
        let mut options = Vec::new();
        let answering = flags.contains(Flags::ACK);
        if self.limits.options && !(answering && self.agreed.is_legacy()) {
            Offer::ours(&self.limits).emit(&mut options);
        }
        if with_data && self.limits.early_data {
            self.add_first_data(&mut options);
        }
        header.emit_with(&[&options], out);
        Sent { len: HEADER_LEN + options.len(), payload: options.len(), kind: SentKind::Handshake }
    }

    /// As much of the beginning of the stream as fits. What the peer takes of it, its answer tells.
    fn add_first_data(&mut self, options: &mut Vec<u8>) {
        let room = usize::from(self.path_segment.min(LEGACY_SEGMENT)).min(self.opening_max);
        let room = room.saturating_sub(options.len());
        let data = self.sender.beginning(data_room(room));
        emit_data(&data, options);
        self.sender.sent_early(data.len() as u64);
    }

    fn emit_ack(&mut self, out: &mut Vec<u8>) -> Sent {
        let header = self.header(Flags::ACK, self.sender.next_seq());
        let blocks = self.sack_blocks();
        let mut payload = [0; 5 + 8 * pilot_wire::sack::MAX_BLOCKS_EXTENDED];
        let len = blocks.wire_len();
        if len > 0 {
            self.sacks_sent += 1;
            let mut wire = Vec::with_capacity(len);
            blocks.emit(&mut wire);
            payload[..len].copy_from_slice(&wire);
        }
        header.emit_with(&[&payload[..len]], out);
        self.announce(header.window);
        self.acks.sent();
        Sent { len: HEADER_LEN + len, payload: len, kind: SentKind::Acknowledgement }
    }

    /// One of several acknowledgements for a batch.
    fn emit_step(&mut self, step: u64, out: &mut Vec<u8>) -> Sent {
        let mut header = self.header(Flags::ACK, self.sender.next_seq());
        if let Some(receiver) = &self.receiver {
            header.ack = receiver.seq(step);
        }
        header.emit_with(&[], out);
        Sent { len: HEADER_LEN, payload: 0, kind: SentKind::Acknowledgement }
    }

    /// A packet that asks the peer for a sign of life. One of ours answers a repeated number; the reference answers only
    /// repeated data, but counts an empty packet as a sign of ours.
    fn emit_probe(&mut self, out: &mut Vec<u8>) -> Sent {
        let legacy = self.agreed.is_legacy();
        let insist = legacy && self.liveness.probes > 1;
        let seq = self.sender.next_seq();
        let header = self.header(Flags::ACK, if legacy && !insist { seq } else { seq - 1 });
        let repeated: &[u8] = if insist { &[0] } else { &[] };
        header.emit_with(&[repeated], out);
        self.announce(header.window);
        Sent { len: HEADER_LEN + repeated.len(), payload: repeated.len(), kind: SentKind::Acknowledgement }
    }

    fn sack_blocks(&mut self) -> SackList {
        let max = usize::from(self.agreed.sack_blocks);
        let legacy = self.agreed.is_legacy();
        let Some(receiver) = &mut self.receiver else { return SackList::EMPTY };
        if legacy { receiver.lowest_blocks(max) } else { receiver.recent_blocks(max) }
    }

    /// A data packet carried acknowledgement and window. Blocks still need a packet of their own.
    fn carried(&mut self) {
        let Some(receiver) = &mut self.receiver else { return };
        let window = receiver.window();
        receiver.announce(window);
        let blocks_due = self.acks.is_due() && (receiver.islands() > 0 || receiver.has_duplicate());
        if !blocks_due {
            self.acks.sent();
        }
    }

    fn announce(&mut self, window: u16) {
        if let Some(receiver) = &mut self.receiver {
            receiver.announce(window);
        }
    }

    fn header(&self, flags: Flags, seq: Seq) -> Header {
        let (ack, window) = self.receiver.as_ref().map_or((Seq(0), 0), |r| (r.ack(), r.window()));
        Header { ack, window, ..self.bare(flags, seq) }
    }

    fn bare(&self, flags: Flags, seq: Seq) -> Header {
        Header { seq, ..Header::new(Protocol::Stream, flags, self.local, self.remote) }
    }
}
