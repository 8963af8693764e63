//! A packet as a line, for people and for programs.

use std::fmt;

use pilot_wire::capture::{Carrier, Direction, Record};
use pilot_wire::packet::{Flags, Header, Packet, Protocol};
use pilot_wire::sack::{self, SackList};
use pilot_wire::{Addr, Port};
use serde::Serialize;

use crate::{humane, style};

/// One packet.
#[derive(Serialize)]
pub(super) struct Line {
    /// Nanoseconds of Unix time.
    time_ns: u64,
    /// `in` or `out`.
    direction: &'static str,
    /// `direct`, `relay` or `own`.
    path: &'static str,
    encrypted: bool,
    /// Where the datagram went to or came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// What is in it; missing if it is no packet.
    #[serde(flatten)]
    content: Option<Content>,
    /// Why it is no packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
    /// Bytes of the packet.
    bytes: usize,
}

#[derive(Serialize)]
struct Content {
    protocol: &'static str,
    /// As tcpdump writes them: `S`, `F`, `R`, `.` for an acknowledgement.
    flags: String,
    src: Addr,
    src_port: Port,
    dst: Addr,
    dst_port: Port,
    seq: u32,
    ack: u32,
    window: u16,
    /// Bytes of payload.
    length: usize,
    /// Blocks of a selective acknowledgement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sack: Vec<[u32; 2]>,
}

impl Line {
    pub(super) fn of(record: &Record<'_>) -> Self {
        let parsed = Packet::parse_sealed(record.packet);
        Self {
            time_ns: record.time,
            direction: match record.meta.direction {
                Direction::Received => "in",
                Direction::Sent => "out",
            },
            path: match record.meta.carrier {
                Carrier::Own => "own",
                Carrier::Direct => "direct",
                Carrier::Relay => "relay",
            },
            encrypted: record.meta.encrypted,
            endpoint: record.meta.endpoint.map(|endpoint| endpoint.to_string()),
            malformed: parsed.as_ref().err().map(ToString::to_string),
            content: parsed.ok().map(|Packet { header, payload }| Content::of(&header, payload)),
            bytes: record.packet.len(),
        }
    }
}

impl Content {
    fn of(header: &Header, payload: &[u8]) -> Self {
        let acknowledges = header.protocol == Protocol::Stream && header.flags == Flags::ACK;
        let sack = if acknowledges { SackList::parse(payload, sack::MAX_BLOCKS_EXTENDED) } else { None };
        let sack = sack.filter(|list| list.wire_len() == payload.len());
        let named = [(Flags::SYN, 'S'), (Flags::FIN, 'F'), (Flags::RST, 'R'), (Flags::ACK, '.')];
        let set = named.iter().filter(|(flag, _)| header.flags.contains(*flag));
        Self {
            protocol: match header.protocol {
                Protocol::Stream => "stream",
                Protocol::Datagram => "datagram",
                Protocol::Control => "control",
            },
            flags: set.map(|(_, letter)| letter).collect(),
            src: header.src,
            src_port: header.src_port,
            dst: header.dst,
            dst_port: header.dst_port,
            seq: header.seq.0,
            ack: header.ack.0,
            window: header.window,
            length: payload.len(),
            sack: sack
                .iter()
                .flat_map(|list| list.blocks())
                .map(|block| [block.left.0, block.right.0])
                .collect(),
        }
    }
}

/// `10:31:02.123456 out 0:0000.0000.0001:49152 > 0:0000.0000.0002:7 stream [S] seq 1, win 512, length 20`
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000);
        let day = humane::utc(seconds);
        let clock = day.split(' ').nth(1).unwrap_or_default();
        write!(f, "{} {:<3} ", style::faint(format!("{clock}.{:06}", nanos / 1000)), self.direction)?;
        match (&self.content, &self.malformed) {
            (Some(content), _) => content.fmt(f)?,
            (None, Some(why)) => write!(f, "no packet ({why}), {} bytes", self.bytes)?,
            (None, None) => write!(f, "{} bytes", self.bytes)?,
        }
        let endpoint = self.endpoint.as_deref().map(|at| format!(" {at}")).unwrap_or_default();
        let clear = if self.encrypted || self.path == "own" { "" } else { ", in clear" };
        write!(f, " {}", style::faint(format!("· {}{endpoint}{clear}", self.path)))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} > {}:{} ", self.src, self.src_port, self.dst, self.dst_port)?;
        write!(f, "{}", self.protocol)?;
        if self.protocol != "stream" {
            let pong = if self.flags.contains('.') { " answer" } else { "" };
            return write!(f, "{pong} length {}", self.length);
        }
        write!(f, " [{}] seq {}", self.flags, self.seq)?;
        if self.flags.contains('.') {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {} length {}", self.window, self.length)?;
        if !self.sack.is_empty() {
            let blocks: Vec<String> =
                self.sack.iter().map(|[left, right]| format!("{left}-{right}")).collect();
            write!(f, " sack {}", blocks.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pilot_wire::capture::Meta;
    use pilot_wire::sack::SackBlock;
    use pilot_wire::{NodeId, Seq};

    use super::*;

    fn shown(protocol: Protocol, flags: Flags, payload: &[u8]) -> String {
        let [from, to] =
            [(1, 49_152), (2, 7)].map(|(node, port)| Addr::backbone(NodeId(node)).port(Port(port)));
        let mut header = Header::new(protocol, flags, from, to);
        (header.seq, header.ack, header.window) = (Seq(5), Seq(9), 512);
        let mut packet = Vec::new();
        header.emit_with(&[payload], &mut packet);
        line(&packet)
    }

    fn line(packet: &[u8]) -> String {
        let endpoint = Some("192.0.2.7:513".parse().unwrap());
        let meta = Meta { direction: Direction::Sent, carrier: Carrier::Direct, encrypted: true, endpoint };
        let record = Record { time: 1_795_254_000_123_456_789, meta, packet };
        let text = Line::of(&record).to_string();
        text.replace("\x1b[2m", "").replace("\x1b[0m", "")
    }

    #[test]
    fn a_packet_is_a_line_as_tcpdump_writes_it() {
        assert_eq!(
            shown(Protocol::Stream, Flags::SYN | Flags::ACK, b"hello"),
            "09:40:00.123456 out 0:0000.0000.0001:49152 > 0:0000.0000.0002:7 stream [S.] seq 5 ack 9 win 512 \
             length 5 · direct 192.0.2.7:513"
        );
        assert_eq!(
            shown(Protocol::Datagram, Flags::NONE, b"hello"),
            "09:40:00.123456 out 0:0000.0000.0001:49152 > 0:0000.0000.0002:7 datagram length 5 · direct 192.0.2.7:513"
        );
    }

    #[test]
    fn a_selective_acknowledgement_names_its_blocks() {
        let mut list = SackList::EMPTY;
        assert!(list.push(SackBlock { left: Seq(10), right: Seq(20) }));
        let mut payload = Vec::new();
        list.emit(&mut payload);
        let text = shown(Protocol::Stream, Flags::ACK, &payload);
        assert!(text.contains("[.] seq 5 ack 9 win 512 length 13 sack 10-20 "), "{text}");
        payload.push(0);
        let text = shown(Protocol::Stream, Flags::ACK, &payload);
        assert!(!text.contains("sack"), "what is longer is data: {text}");
    }

    #[test]
    fn what_is_no_packet_is_said_to_be_none() {
        assert!(line(b"short").contains("no packet (unknown version 7), 5 bytes"), "{}", line(b"short"));
    }
}
