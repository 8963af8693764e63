//! A node that the script plays: registered, with keys that are agreed as they must be, and free to say what it likes.

use pilot_crypto::{AgreementKey, Initiation, Pair, SessionKey, TAG_LEN, respond};
use pilot_wire::packet::{Flags, Header, MAX_PAYLOAD, Packet, Protocol};
use pilot_wire::path::{self, Candidate, Candidates, Kind, Nat};
use pilot_wire::tunnel::{
    Busy, Cookie, Extension, Frame, KeyExchange, MESSAGE_LEN, Nonce, SealedHeader, signed_bytes,
};
use pilot_wire::{Addr, NodeId, Port};

use super::{IDS, PORT, PUPPET, home, identity, stranger};
use crate::script::Script;

#[derive(Default)]
pub(super) struct Puppet {
    /// With each of the two.
    links: [Link; 2],
    drawn: u8,
}

#[derive(Default)]
struct Link {
    session: Option<Session>,
    begun: Option<(Initiation, [u8; MESSAGE_LEN])>,
    /// The last packet that was understood.
    heard: Option<Header>,
}

struct Session {
    seal: SessionKey,
    open: SessionKey,
    prefix: [u8; 4],
    counter: u64,
}

impl Puppet {
    fn ephemeral(&mut self) -> AgreementKey {
        self.drawn = self.drawn.wrapping_add(1);
        AgreementKey::from_bytes(&[self.drawn | 1; 32])
    }

    fn shown() -> AgreementKey {
        AgreementKey::from_bytes(&[0x77; 32])
    }

    /// The key exchange of release 1.18.0, and what a newer node puts behind it.
    pub(super) fn exchange(extension: &Extension) -> Vec<u8> {
        let (identity, agreement) = (identity(PUPPET), Self::shown().public());
        let mut trailer = Vec::new();
        extension.emit(&mut trailer);
        let mut bytes = Vec::new();
        Frame::KeyExchange(KeyExchange {
            sender: IDS[PUPPET],
            agreement,
            identity: identity.public(),
            signature: identity.sign(&signed_bytes(IDS[PUPPET], &agreement)),
            trailer: &trailer,
        })
        .emit(&mut bytes);
        bytes
    }

    /// Begins to agree on keys of the moment.
    pub(super) fn begin(&mut self, with: usize) -> Option<Vec<u8>> {
        let statics = Pair::new(&identity(PUPPET), &identity(with).public()).ok()?;
        let prologue = prologue(IDS[PUPPET], IDS[with]);
        let (initiation, message) =
            Initiation::start(statics, self.ephemeral(), &prologue, &[self.drawn; 8]).ok()?;
        let message = message.try_into().ok()?;
        self.links[with].begun = Some((initiation, message));
        Some(Self::exchange(&Extension::Initiation { message, cookie: None }))
    }

    /// Takes what a node sent, and what goes back at once.
    pub(super) fn take(&mut self, from: usize, datagram: &[u8]) -> Option<Vec<u8>> {
        match Frame::parse(datagram).ok()? {
            Frame::KeyExchange(exchange) => self.agree(from, &exchange),
            Frame::KeyRequest { trailer, .. } => match Busy::parse(trailer) {
                Some(Busy { cookie, .. }) => self.again(from, cookie),
                None => Some(Self::exchange(&Extension::Absent)),
            },
            Frame::Sealed { sender, nonce, ciphertext } => {
                let link = &mut self.links[from];
                let mut ciphertext = ciphertext.to_vec();
                let open = &link.session.as_ref()?.open;
                let opened =
                    open.open_in_place(nonce.to_bytes(), &sender.0.to_be_bytes(), &mut ciphertext).ok()?;
                link.heard = Some(Packet::parse_sealed(opened).ok()?.header);
                None
            }
            Frame::Plain { packet } => {
                self.links[from].heard = Some(Packet::parse(packet).ok()?.header);
                None
            }
            Frame::Punch => None,
        }
    }

    fn again(&self, with: usize, cookie: Cookie) -> Option<Vec<u8>> {
        let message = self.links[with].begun.as_ref()?.1;
        Some(Self::exchange(&Extension::Initiation { message, cookie: Some(cookie) }))
    }

    fn agree(&mut self, from: usize, exchange: &KeyExchange<'_>) -> Option<Vec<u8>> {
        match Extension::parse(exchange.trailer) {
            Extension::Initiation { message, .. } => {
                let statics = Pair::new(&identity(PUPPET), &identity(from).public()).ok()?;
                let prologue = prologue(IDS[from], IDS[PUPPET]);
                let (agreed, answer) =
                    respond(&statics, &self.ephemeral(), &prologue, &message, &[self.drawn; 8]).ok()?;
                let prefix = prefix(&agreed.transcript, 4);
                self.links[from].session =
                    Some(Session { seal: agreed.seal, open: agreed.open, prefix, counter: 0 });
                let to = [message[0], message[1], message[2], message[3]];
                Some(Self::exchange(&Extension::Answer { to, message: answer.try_into().ok()? }))
            }
            Extension::Answer { message, .. } => {
                let link = &mut self.links[from];
                let agreed = link.begun.as_ref()?.0.finish(&message).ok()?;
                let prefix = prefix(&agreed.transcript, 0);
                link.session = Some(Session { seal: agreed.seal, open: agreed.open, prefix, counter: 0 });
                None
            }
            Extension::Hello | Extension::Absent => {
                let secret = Self::shown().agree(&exchange.agreement).ok()?;
                let counter = self.links[from].session.as_ref().map_or(0, |session| session.counter);
                let (seal, open) = (SessionKey::derive(&secret), SessionKey::derive(&secret));
                self.links[from].session = Some(Session { seal, open, prefix: *b"PUPP", counter });
                None
            }
        }
    }

    /// Any packet, sealed as it must be. In clear where nothing is sealed.
    pub(super) fn say(&mut self, to: usize, clear: bool, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let (header, payload) = self.packet(to, script);
        let mut packet = Vec::new();
        Packet { header, payload: &payload }.emit(&mut packet);
        if clear {
            packet.splice(0..0, *b"PILT");
            return Some(packet);
        }
        let session = self.links[to].session.as_mut()?;
        session.counter += 1;
        let nonce = Nonce { prefix: session.prefix, counter: session.counter };
        let front = SealedHeader { sender: IDS[PUPPET], nonce };
        let tag: [u8; TAG_LEN] =
            session.seal.seal_in_place(nonce.to_bytes(), &front.associated_data(), &mut packet);
        let mut bytes = Vec::new();
        front.emit(&mut bytes);
        bytes.extend_from_slice(&packet);
        bytes.extend_from_slice(&tag);
        Some(bytes)
    }

    fn packet(&self, to: usize, script: &mut Script<'_>) -> (Header, Vec<u8>) {
        let shape = script.byte();
        let ports = [PORT, Port::PING, path::PORT, Port::ECHO, Port::HANDSHAKE, Port(49_152), Port(50_000)];
        let port = |choice: u8| ports[usize::from(choice) % ports.len()];
        let protocol = [Protocol::Stream, Protocol::Stream, Protocol::Control, Protocol::Datagram];
        let choice = script.byte();
        let (from, into) = (port(choice >> 4), port(choice & 0x0F));
        let flags = Flags::from_bits(script.byte());
        let (here, there) = (Addr::backbone(IDS[PUPPET]).port(from), Addr::backbone(IDS[to]).port(into));
        let mut header = Header::new(protocol[usize::from(shape & 3)], flags, here, there);
        let mut offset =
            || u32::from(script.byte()).wrapping_mul(0x0101_0001).rotate_left(u32::from(shape >> 6) * 8);
        let (seq, ack) = (offset(), offset());
        (header.seq, header.ack) = (pilot_wire::Seq(seq), pilot_wire::Seq(ack));
        // An answer to what was heard, or nearly.
        if shape & 4 != 0
            && let Some(heard) = self.links[to].heard
        {
            (header.src_port, header.dst_port) = (heard.dst_port, heard.src_port);
            header.seq = pilot_wire::Seq(heard.ack.0.wrapping_add(seq & 0x0F));
            header.ack = pilot_wire::Seq(heard.seq.0.wrapping_add(ack & 0x0F));
        }
        header.window = u16::from(script.byte()) * 257;
        let mut payload = if shape & 8 == 0 { script.piece().to_vec() } else { candidates(script) };
        if shape & 16 != 0 {
            let length = usize::from(script.byte()) * 32;
            payload.resize(length.min(MAX_PAYLOAD), shape);
        }
        (header, payload)
    }
}

/// Where the puppet says that it is.
fn candidates(script: &mut Script<'_>) -> Vec<u8> {
    let kinds = [Kind::Host, Kind::Observed, Kind::Mapped];
    let generation = u64::from(script.byte());
    let count = script.byte() % 16;
    let list = (0..count).map(|_| {
        let choice = script.byte();
        let addr =
            if choice & 8 == 0 { stranger(choice) } else { home(usize::from(choice & 3) % 3, choice >> 4) };
        Candidate { kind: kinds[usize::from(choice >> 6) % kinds.len()], addr }
    });
    let mut payload = Vec::new();
    Candidates { generation, nat: Nat::default(), list: list.collect() }.emit(&mut payload);
    payload
}

fn prefix(transcript: &[u8; 32], at: usize) -> [u8; 4] {
    std::array::from_fn(|index| transcript[at + index])
}

/// What docs/handshake.md binds the agreement to.
fn prologue(initiator: NodeId, responder: NodeId) -> Vec<u8> {
    let mut bytes = b"pilot tunnel v2".to_vec();
    bytes.extend(initiator.0.to_be_bytes());
    bytes.extend(responder.0.to_be_bytes());
    bytes
}
