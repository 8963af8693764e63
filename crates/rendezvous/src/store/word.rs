//! What instances say to each other through the database, as short texts: a notification is a line of less than 8000
//! bytes.

use super::Word;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use pilot_wire::NodeId;

/// Nodes in one text: 4 bytes each, and a third more in base64.
const NODES_PER_TEXT: usize = 1400;

/// A text on the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A write with this number was committed.
    Changed(u64),
    /// A word.
    Word(Word),
    /// Nothing but a sign of life.
    Here,
}

/// `Heard` becomes as many texts as it takes.
pub(super) fn texts(instance: u64, word: &Word) -> Vec<String> {
    match word {
        Word::Heard(nodes) => nodes
            .chunks(NODES_PER_TEXT)
            .map(|nodes| {
                let bytes: Vec<u8> = nodes.iter().flat_map(|node| node.0.to_be_bytes()).collect();
                format!("{instance:016x} h {}", STANDARD_NO_PAD.encode(bytes))
            })
            .collect(),
        Word::Beacon { id, addr } => vec![format!("{instance:016x} b {id} {addr}")],
    }
}

pub(super) fn changed(instance: u64, revision: u64) -> String {
    format!("{instance:016x} c {revision}")
}

pub(super) fn here(instance: u64) -> String {
    format!("{instance:016x} .")
}

/// Who says what; none if it is not understood.
pub(super) fn parse(text: &str) -> Option<(u64, Notice)> {
    let (instance, rest) = text.split_once(' ')?;
    let instance = u64::from_str_radix(instance, 16).ok()?;
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let notice = match kind {
        "." => Notice::Here,
        "c" => Notice::Changed(rest.parse().ok()?),
        "h" => {
            let bytes = STANDARD_NO_PAD.decode(rest).ok()?;
            let (numbers, []) = bytes.as_chunks() else { return None };
            let nodes = numbers.iter().map(|number| NodeId(u32::from_be_bytes(*number)));
            Notice::Word(Word::Heard(nodes.collect()))
        }
        "b" => {
            let (id, addr) = rest.split_once(' ')?;
            Notice::Word(Word::Beacon { id: id.parse().ok()?, addr: addr.to_owned() })
        }
        _ => return None,
    };
    Some((instance, notice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let nodes: Vec<NodeId> =
            (0..5000_u32).map(|number| NodeId(number.wrapping_mul(2_654_435_761))).collect();
        let mut heard = Vec::new();
        for text in texts(u64::MAX, &Word::Heard(nodes.clone())) {
            assert!(text.len() < 8000);
            match parse(&text) {
                Some((u64::MAX, Notice::Word(Word::Heard(nodes)))) => heard.extend(nodes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, nodes);
        let beacon = Word::Beacon { id: 7, addr: "[2001:db8::1]:9001".to_owned() };
        assert_eq!(parse(&texts(1, &beacon)[0]), Some((1, Notice::Word(beacon))));
        assert_eq!(parse(&changed(2, 99)), Some((2, Notice::Changed(99))));
        assert_eq!(parse(&here(3)), Some((3, Notice::Here)));
    }

    #[test]
    fn nonsense_is_no_word() {
        for text in ["", "x", "1", "1 z", "1 c", "1 c -1", "1 h AAA", "1 h ===", "1 b 7", "1 b x y", "zz c 1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
