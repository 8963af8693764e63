//! What our nodes put behind key exchanges and key requests (docs/handshake.md). Release 1.18.0 ignores it.
//!
//! Layout: `"PV2" | kind, one byte | content`. A kind of a later version says as much as [`Extension::Hello`].

/// Length of either message of the agreement: ephemeral key, payload of eight bytes, tag.
pub const MESSAGE_LEN: usize = 56;

const MAGIC: [u8; 3] = *b"PV2";

const HELLO: u8 = 0;
const INITIATION: u8 = 1;
const ANSWER: u8 = 2;
const INITIATION_WITH_COOKIE: u8 = 3;
const COOKIE: u8 = 4;

/// Proves that its holder receives what is sent to an address. Four bytes are enough to shed load: of a flood of forged
/// ones, one in four thousand million is taken for genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub [u8; 4]);

/// What follows a key exchange (PILA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Nothing known here: a node of another make.
    Absent,
    /// The sender agrees on keys of the moment, and cannot begin because it does not know our identity yet.
    Hello,
    /// The first message of the agreement.
    Initiation {
        /// The message.
        message: [u8; MESSAGE_LEN],
        /// What the receiver gave out under load.
        cookie: Option<Cookie>,
    },
    /// The second message, which answers an initiation of ours.
    Answer {
        /// The first bytes of the initiation: whoever has not seen it cannot make us compute anything.
        to: [u8; 4],
        /// The message.
        message: [u8; MESSAGE_LEN],
    },
}

impl Extension {
    /// What a trailer says. Never fails: what is not ours, or cut short, is [`Absent`](Self::Absent) as it is for older
    /// nodes.
    #[must_use]
    pub fn parse(trailer: &[u8]) -> Self {
        let Some((&[m0, m1, m2, kind], content)) = trailer.split_first_chunk::<4>() else {
            return Self::Absent;
        };
        if [m0, m1, m2] != MAGIC {
            return Self::Absent;
        }
        if kind == ANSWER
            && let Some((&to, message)) = content.split_first_chunk()
            && let Some(&message) = message.first_chunk()
        {
            return Self::Answer { to, message };
        }
        match (kind, content.first_chunk::<MESSAGE_LEN>()) {
            (INITIATION, Some(&message)) => Self::Initiation { message, cookie: None },
            (INITIATION_WITH_COOKIE, Some(&message)) => {
                let cookie = content[MESSAGE_LEN..].first_chunk().map(|&cookie| Cookie(cookie));
                Self::Initiation { message, cookie }
            }
            _ => Self::Hello,
        }
    }

    /// Appends it, at most 64 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let mut put = |kind, content: &[u8]| {
            out.extend_from_slice(&MAGIC);
            out.push(kind);
            out.extend_from_slice(content);
        };
        match self {
            Self::Absent => {}
            Self::Hello => put(HELLO, &[]),
            Self::Initiation { message, cookie: None } => put(INITIATION, message),
            Self::Initiation { message, cookie: Some(cookie) } => {
                put(INITIATION_WITH_COOKIE, message);
                out.extend_from_slice(&cookie.0);
            }
            Self::Answer { to, message } => {
                put(ANSWER, to);
                out.extend_from_slice(message);
            }
        }
    }
}

/// What follows a key request (PILK) of a node that is busy: it takes our initiation only with this cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The first bytes of the initiation: whoever has not seen it cannot talk us out of the genuine cookie.
    pub to: [u8; 4],
    /// The cookie.
    pub cookie: Cookie,
}

impl Busy {
    /// What a trailer says, if it says this.
    #[must_use]
    pub fn parse(trailer: &[u8]) -> Option<Self> {
        let (&[m0, m1, m2, kind], content) = trailer.split_first_chunk::<4>()?;
        let (&to, content) = content.split_first_chunk()?;
        let &cookie = content.first_chunk()?;
        ([m0, m1, m2] == MAGIC && kind == COOKIE).then_some(Self { to, cookie: Cookie(cookie) })
    }

    /// Appends it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(COOKIE);
        out.extend_from_slice(&self.to);
        out.extend_from_slice(&self.cookie.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_as_it_was_written() {
        let message = [7; MESSAGE_LEN];
        for form in [
            Extension::Absent,
            Extension::Hello,
            Extension::Initiation { message, cookie: None },
            Extension::Initiation { message, cookie: Some(Cookie([1, 2, 3, 4])) },
            Extension::Answer { to: [1, 2, 3, 4], message },
        ] {
            let mut bytes = Vec::new();
            form.emit(&mut bytes);
            assert!(bytes.len() <= 64);
            assert_eq!(Extension::parse(&bytes), form);
        }
        let mut bytes = Vec::new();
        let busy = Busy { to: [1, 2, 3, 4], cookie: Cookie([9; 4]) };
        busy.emit(&mut bytes);
        assert_eq!(Busy::parse(&bytes), Some(busy));
    }

    #[test]
    fn what_others_put_there_is_not_taken_for_ours() {
        assert_eq!(Extension::parse(b""), Extension::Absent);
        assert_eq!(Extension::parse(b"PV"), Extension::Absent);
        assert_eq!(Extension::parse(&[0xa5; 40]), Extension::Absent);
        assert_eq!(Busy::parse(&[0xa5; 40]), None);
        assert_eq!(Busy::parse(b"PV2\x04abcdefg"), None);
    }

    #[test]
    fn a_later_version_and_a_message_cut_short_still_say_that_there_is_one() {
        assert_eq!(Extension::parse(b"PV2\x63whatever"), Extension::Hello);
        assert_eq!(Extension::parse(b"PV2\x01short"), Extension::Hello);
    }
}
