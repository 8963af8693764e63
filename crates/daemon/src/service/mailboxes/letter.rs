//! What is sealed for a peer: one data-exchange frame, with the time at which it was sealed and until when it is of use.
//!
//! A carrier that brings an old letter once more brings one that its receiver knows by its id, or one whose time is over.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use pilot_crypto::{Identity, Letterhead, SealError, UnsealError, open_sealed, seal};
use pilot_wire::dataexchange::{Control, Decoder, Delivery, Frame, MessageId};
use pilot_wire::{NodeId, PublicKey};

use crate::service::disk::unix_ns;

/// Clocks of sender and receiver may differ by so much.
const CLOCKS: Duration = Duration::from_secs(600);

const TIMES_LEN: usize = 16;

/// What is in a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inside {
    /// A message for the inbox.
    Message(Delivery),
    /// What became of messages of the receiver, or who keeps messages for the sender.
    Word(Control),
}

/// Why a letter is of no use. The text goes to the mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LetterError {
    /// The seal.
    #[error(transparent)]
    Seal(#[from] UnsealError),
    /// Its time is over.
    #[error("its time is over")]
    Over,
    /// It is not a frame that may come this way.
    #[error("there is no message in it")]
    NoMessage,
    /// The name outside is not the one inside.
    #[error("the message in it has another id")]
    OtherId,
}

/// A node and its identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) node: NodeId,
    pub(super) key: PublicKey,
}

fn head<'a>(from: Party, to: Party, id: &'a MessageId) -> Letterhead<'a> {
    Letterhead {
        sender: from.node,
        sender_key: from.key,
        receiver: to.node,
        receiver_key: to.key,
        message_id: id.as_str(),
    }
}

/// Seals a letter from this node.
pub(super) fn write(
    identity: &Identity,
    own: NodeId,
    to: Party,
    id: &MessageId,
    inside: Inside,
    now: SystemTime,
    ttl: Duration,
) -> Result<Vec<u8>, SealError> {
    let from = Party { node: own, key: identity.public() };
    let mut body = Vec::new();
    body.extend_from_slice(&millis(now).to_be_bytes());
    let until = millis(now).saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    body.extend_from_slice(&until.to_be_bytes());
    let frame = match inside {
        Inside::Message(delivery) => Frame::Delivery(delivery),
        Inside::Word(control) => Frame::Control(control, Bytes::new()),
    };
    frame.emit(&mut body);
    seal(identity, &head(from, to, id), &body)
}

/// Opens a letter to this node.
pub(super) fn read(
    identity: &Identity,
    own: NodeId,
    from: Party,
    id: &MessageId,
    sealed: Vec<u8>,
    now: SystemTime,
) -> Result<Inside, LetterError> {
    let to = Party { node: own, key: identity.public() };
    let mut body = Bytes::from(open_sealed(identity, &head(from, to, id), sealed)?);
    if body.len() < TIMES_LEN {
        return Err(LetterError::NoMessage);
    }
    let (_sealed_at, until) = (body.get_u64(), body.get_u64());
    let clocks = u64::try_from(CLOCKS.as_millis()).unwrap_or(u64::MAX);
    if millis(now) > until.saturating_add(clocks) {
        return Err(LetterError::Over);
    }
    let mut decoder = Decoder::new(body.len());
    decoder.feed(&body);
    let frame = decoder.next_frame().ok().flatten().ok_or(LetterError::NoMessage)?;
    if !decoder.is_empty() {
        return Err(LetterError::NoMessage);
    }
    match Frame::parse(frame) {
        Ok(Frame::Delivery(delivery)) => {
            // What keeps a message from being stored twice is its id, so the one that was signed must be it.
            let named = delivery.tag.as_ref().and_then(|tag| tag.message_id.as_ref());
            if named == Some(id) { Ok(Inside::Message(delivery)) } else { Err(LetterError::OtherId) }
        }
        Ok(Frame::Control(word @ (Control::Receipts { .. } | Control::Mailboxes { .. }), _)) => {
            Ok(Inside::Word(word))
        }
        // Letters in letters, and what makes sense only between those who are there.
        Ok(Frame::Control(
            Control::Cancel { .. }
            | Control::Keeps
            | Control::Deposit { .. }
            | Control::Forward { .. }
            | Control::Transfer { .. },
            _,
        ))
        | Ok(Frame::FileStream(_))
        | Err(_) => Err(LetterError::NoMessage),
    }
}

fn millis(time: SystemTime) -> u64 {
    unix_ns(time) / 1_000_000
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_head<'a>(from: Party, to: Party, id: &'a MessageId) -> Letterhead<'a> {
    head(from, to, id)
}

#[cfg(test)]
mod tests {
    use pilot_wire::dataexchange::{Content, NamedFile, Receipt, ReceiptState, Tag};

    use super::*;

    const ALICE: NodeId = NodeId(7);
    const BOB: NodeId = NodeId(9);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn alice() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn bob() -> Identity {
        Identity::from_seed(&[2; 32])
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn id() -> MessageId {
        "m-1".parse().unwrap()
    }

    fn message(id: &str) -> Inside {
        let tag = Tag { message_id: Some(id.parse().unwrap()), ..Tag::default() };
        Inside::Message(Delivery {
            tag: Some(tag),
            sent_at_ns: None,
            content: Content::Text(Bytes::from_static(b"hello")),
        })
    }

    fn written(inside: Inside) -> Vec<u8> {
        let to = Party { node: BOB, key: bob().public() };
        write(&alice(), ALICE, to, &id(), inside, now(), DAY).unwrap()
    }

    fn read_at(sealed: Vec<u8>, now: SystemTime) -> Result<Inside, LetterError> {
        let from = Party { node: ALICE, key: alice().public() };
        read(&bob(), BOB, from, &id(), sealed, now)
    }

    #[test]
    fn what_is_written_is_read() {
        let receipts = vec![Receipt { id: id(), state: ReceiptState::Stored }];
        for inside in [
            message("m-1"),
            Inside::Word(Control::Receipts { receipts }),
            Inside::Word(Control::Mailboxes { nodes: vec![NodeId(3)] }),
        ] {
            assert_eq!(read_at(written(inside.clone()), now()), Ok(inside));
        }
    }

    #[test]
    fn a_letter_brought_when_its_time_is_over_is_not_read() {
        let sealed = written(message("m-1"));
        assert!(read_at(sealed.clone(), now() + DAY).is_ok());
        assert!(read_at(sealed.clone(), now() + DAY + CLOCKS).is_ok());
        let late = now() + DAY + CLOCKS + Duration::from_secs(1);
        assert_eq!(read_at(sealed, late), Err(LetterError::Over));
    }

    #[test]
    fn a_message_under_a_name_that_is_not_its_own_is_not_read() {
        assert_eq!(read_at(written(message("m-2")), now()), Err(LetterError::OtherId));
        let nameless = Delivery { tag: None, sent_at_ns: None, content: Content::Text(Bytes::new()) };
        assert_eq!(read_at(written(Inside::Message(nameless)), now()), Err(LetterError::OtherId));
    }

    #[test]
    fn a_file_in_one_frame_may_come_as_a_letter() {
        let Inside::Message(text) = message("m-1") else { panic!() };
        let file = NamedFile { name: Bytes::from_static(b"a.txt"), data: Bytes::from_static(b"x") };
        let inside = Inside::Message(Delivery { content: Content::File(file), ..text });
        assert_eq!(read_at(written(inside.clone()), now()), Ok(inside));
    }

    #[test]
    fn letters_in_letters_and_orders_to_those_who_are_there_are_not_read() {
        for control in [
            Control::Keeps,
            Control::Cancel { id: id() },
            Control::Deposit { to: BOB, id: id(), ttl_ms: 1 },
            Control::Forward { from: ALICE, id: id() },
        ] {
            assert_eq!(read_at(written(Inside::Word(control)), now()), Err(LetterError::NoMessage));
        }
    }

    #[test]
    fn what_is_no_frame_is_not_read() {
        let head = |identity: &Identity| Letterhead {
            sender: ALICE,
            sender_key: alice().public(),
            receiver: BOB,
            receiver_key: identity.public(),
            message_id: "m-1",
        };
        let times = [millis(now()).to_be_bytes(), u64::MAX.to_be_bytes()].concat();
        for body in [&b""[..], b"short", &times, &[&times[..], &[0, 0, 0, 1, 0, 0, 0, 9]].concat()] {
            let sealed = seal(&alice(), &head(&bob()), body).unwrap();
            assert_eq!(read_at(sealed, now()), Err(LetterError::NoMessage), "{body:?}");
        }
    }
}
