//! What only the holders of keys can make: agreements on keys, and sealed letters.

use pilot_crypto::{
    Agreed, AgreementKey, Identity, Initiation, Letterhead, Pair, TAG_LEN, open_sealed, respond,
};
use pilot_wire::NodeId;

use crate::script::Script;

const PROLOGUE: &[u8] = b"for fuzzing";

/// An agreement between two nodes with somebody in between: whatever he says, who finishes has the keys of the other side
/// and read what the other side wrote.
pub fn noise(input: &[u8]) {
    let mut script = Script::new(input);
    let [ours, theirs] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
    let pair = |from: &Identity, to: &Identity| Pair::new(from, &to.public()).expect("a point of the curve");
    let key = |seed: u8| AgreementKey::from_bytes(&[seed; 32]);
    let (initiation, mut first) =
        Initiation::start(pair(&ours, &theirs), key(3), PROLOGUE, b"first one").expect("usable keys");
    let touched = tamper(&mut script, &mut first);
    let answered = respond(&pair(&theirs, &ours), &key(4), PROLOGUE, &first, b"second one");
    let (responder, mut second) = match answered {
        Ok((agreed, answer)) => {
            // The tag covers everything; what follows a message would be a longer payload, and fail.
            assert!(!touched, "a changed first message was taken");
            assert_eq!(agreed.payload, b"first one");
            (Some(agreed), answer)
        }
        Err(_) => {
            assert!(touched, "an honest first message was refused");
            (None, Vec::new())
        }
    };
    let touched = tamper(&mut script, &mut second);
    match (initiation.finish(&second), responder) {
        (Ok(agreed), Some(responder)) => {
            assert!(!touched, "a changed second message was taken");
            assert_eq!(agreed.payload, b"second one");
            assert_eq!(agreed.transcript, responder.transcript);
            understand(&agreed, &responder, script.piece());
            understand(&responder, &agreed, script.piece());
        }
        (Ok(_), None) => panic!("an answer that nobody gave was taken"),
        (Err(_), responder) => assert!(touched || responder.is_none(), "an honest answer was refused"),
    }
}

fn understand(from: &Agreed, to: &Agreed, words: &[u8]) {
    let mut sealed = words.to_vec();
    let tag: [u8; TAG_LEN] = from.seal.seal_in_place([0; 12], b"", &mut sealed);
    sealed.extend_from_slice(&tag);
    let opened = to.open.open_in_place([0; 12], b"", &mut sealed).expect("the keys of the other side");
    assert_eq!(opened, words);
}

/// Changes a message as the script says, or puts another one in its place. True if it is another one now.
fn tamper(script: &mut Script<'_>, message: &mut Vec<u8>) -> bool {
    let before = message.clone();
    match script.byte() % 4 {
        0 => {}
        1 => {
            let at = usize::from(script.byte());
            let flip = script.byte();
            if let Some(byte) = message.get_mut(at) {
                *byte ^= flip;
            }
        }
        2 => message.truncate(usize::from(script.byte())),
        _ => *message = script.piece().to_vec(),
    }
    // The last bit of a public key is not part of its value (RFC 7748 section 5), but of the transcript it is.
    *message != before
}

/// A sealed letter: it opens as it was written, or not at all.
pub fn letter(input: &[u8]) {
    let mut script = Script::new(input);
    let [sender, receiver] = [5, 6].map(|seed| Identity::from_seed(&[seed; 32]));
    let head = Letterhead {
        sender: NodeId(5),
        sender_key: sender.public(),
        receiver: NodeId(6),
        receiver_key: receiver.public(),
        message_id: "0123456789abcdef",
    };
    // A seal has a fresh key each time; the same one is kept for all inputs of a process so that they can be repeated.
    static SEALED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let body = b"the body of a letter";
    let sealed = SEALED.get_or_init(|| pilot_crypto::seal(&sender, &head, body).expect("random bytes"));
    let mut changed = sealed.clone();
    for _ in 0..3 {
        let at = usize::from(script.byte()) | usize::from(script.byte()) << 8;
        match script.byte() % 4 {
            0 => {}
            1 => {
                let flip = script.byte();
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= flip;
                }
            }
            2 => changed.truncate(at),
            _ => changed.splice(at.min(changed.len()).., script.piece().iter().copied()).for_each(drop),
        }
    }
    match open_sealed(&receiver, &head, changed.clone()) {
        Ok(opened) => {
            assert_eq!(opened, body);
            assert_eq!(&changed, sealed, "a changed letter opens");
        }
        Err(_) => assert_ne!(&changed, sealed, "a letter does not open"),
    }
    // And one that is nothing else than the input.
    assert!(open_sealed(&receiver, &head, input.to_vec()).is_err(), "anybody can seal in another's name");
    pilot_daemon::fuzzing::letter_inside(input);
}
