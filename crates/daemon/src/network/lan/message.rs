//! The messages of multicast DNS (RFC 6762) that make up our service: a question who is there, and an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::tag::{INSTANCE_LEN, Instance};

/// `_pilot-node._udp.local`, label by label.
const SERVICE: [&str; 3] = ["_pilot-node", "_udp", "local"];

/// Records of one message that are looked at. An honest answer has four and one for each address.
const RECORDS_MAX: u16 = 64;

/// Announcements and addresses of one message that are kept.
const ANNOUNCED_MAX: usize = 8;
const ADDRESSES_MAX: usize = 16;

/// Jumps in one name: each leads backwards, but a chain of them need not be long to be hostile.
const JUMPS_MAX: usize = 8;

/// Longest name (RFC 1035 2.3.4).
const NAME_MAX: usize = 255;

/// Lifetimes in the caches of others (RFC 6762 10): of names of services, and of what changes with an address.
const TTL_SERVICE: u32 = 4500;
const TTL_HOST: u32 = 120;

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const ANY: u16 = 255;
const IN: u16 = 1;
/// The answer replaces what was cached (RFC 6762 10.2); in a question, an answer to the asker alone will do (5.4).
const TOP: u16 = 0x8000;
const RESPONSE: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
/// Response bit and operation: what must be 0 in a question.
const KIND: u16 = 0xF800;

/// A node that says where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) instance: Instance,
    pub(super) port: u16,
    pub(super) addresses: Vec<IpAddr>,
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Who is there, besides these (RFC 6762 7.1)?
    Question {
        /// They need not answer.
        known: Vec<Instance>,
    },
    /// These are.
    Announced(Vec<Announcement>),
}

/// The question who is there besides us.
pub(super) fn question(us: Instance) -> Vec<u8> {
    let mut out = header(0, 1, 1);
    name(&mut out, &SERVICE);
    out.extend([PTR, IN].map(u16::to_be_bytes).as_flattened());
    let instance = us.to_string();
    record(&mut out, &SERVICE, PTR, IN, TTL_SERVICE, |out| {
        name(out, &[instance.as_str(), SERVICE[0], SERVICE[1], SERVICE[2]]);
    });
    out
}

impl Announcement {
    /// The answer; `goodbye` takes it back (RFC 6762 10.1).
    pub(super) fn emit(&self, goodbye: bool) -> Vec<u8> {
        let instance = self.instance.to_string();
        let full = [instance.as_str(), SERVICE[0], SERVICE[1], SERVICE[2]];
        let host = [instance.as_str(), "local"];
        let ttl = |ttl| if goodbye { 0 } else { ttl };
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        let mut out = header(RESPONSE | AUTHORITATIVE, 0, 3 + addresses.len() as u16);
        record(&mut out, &SERVICE, PTR, IN, ttl(TTL_SERVICE), |out| name(out, &full));
        record(&mut out, &full, SRV, IN | TOP, ttl(TTL_HOST), |out| {
            out.extend([0, 0, self.port].map(u16::to_be_bytes).as_flattened());
            name(out, &host);
        });
        // RFC 6763 6.1: it must be there, and be one empty text if there is nothing to say.
        record(&mut out, &full, TXT, IN | TOP, ttl(TTL_SERVICE), |out| out.push(0));
        for address in addresses {
            match address {
                IpAddr::V4(v4) => {
                    record(&mut out, &host, A, IN | TOP, ttl(TTL_HOST), |out| out.extend(v4.octets()));
                }
                IpAddr::V6(v6) => {
                    record(&mut out, &host, AAAA, IN | TOP, ttl(TTL_HOST), |out| out.extend(v6.octets()));
                }
            }
        }
        out
    }
}

fn header(flags: u16, questions: u16, answers: u16) -> Vec<u8> {
    [0, flags, questions, answers, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec()
}

fn name(out: &mut Vec<u8>, labels: &[&str]) {
    for label in labels {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

fn record(out: &mut Vec<u8>, of: &[&str], kind: u16, class: u16, ttl: u32, data: impl FnOnce(&mut Vec<u8>)) {
    name(out, of);
    out.extend([kind, class].map(u16::to_be_bytes).as_flattened());
    out.extend(ttl.to_be_bytes());
    let at = out.len();
    out.extend([0, 0]);
    data(out);
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

impl Message {
    /// `None` for everything that is not about our service.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let mut reader = Reader { datagram, at: 0 };
        let [_, flags, questions, answers, authorities, additional] = reader.numbers()?;
        if flags & RESPONSE == 0 {
            if flags & KIND != 0 || !reader.asks_for_us(questions)? {
                return None;
            }
            let mut records = Records::default();
            reader.records(answers, &mut records);
            return Some(Self::Question { known: records.known });
        }
        for _ in 0..questions {
            reader.name()?;
            reader.numbers::<2>()?;
        }
        let mut records = Records::default();
        reader.records(answers.saturating_add(authorities).saturating_add(additional), &mut records);
        let announced = records.announced();
        (!announced.is_empty()).then_some(Self::Announced(announced))
    }
}

/// What was found in a message.
#[derive(Default)]
struct Records {
    known: Vec<Instance>,
    services: Vec<(Instance, u16, Vec<u8>)>,
    hosts: Vec<(Vec<u8>, IpAddr)>,
}

impl Records {
    fn announced(self) -> Vec<Announcement> {
        let with_addresses = self.services.into_iter().map(|(instance, port, target)| {
            let of_target = self.hosts.iter().filter(|(host, _)| *host == target);
            Announcement { instance, port, addresses: of_target.map(|(_, ip)| *ip).collect() }
        });
        with_addresses.filter(|announced| !announced.addresses.is_empty()).collect()
    }
}

struct Reader<'a> {
    datagram: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.datagram.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u16; N]> {
        let bytes = self.bytes(2 * N)?;
        Some(std::array::from_fn(|i| u16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    /// A name in lower case, its labels with their lengths; pointers are followed (RFC 1035 4.1.4).
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut at = self.at;
        let mut jumps = 0;
        loop {
            let length = *self.datagram.get(at)?;
            match length {
                0 => {
                    if jumps == 0 {
                        self.at = at + 1;
                    }
                    return Some(labels);
                }
                1..=63 => {
                    let label = self.datagram.get(at..)?.get(..1 + usize::from(length))?;
                    labels.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += label.len();
                }
                0xC0.. => {
                    let low = *self.datagram.get(at + 1)?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3F, low]));
                    if target >= at || jumps == JUMPS_MAX {
                        return None;
                    }
                    if jumps == 0 {
                        self.at = at + 2;
                    }
                    jumps += 1;
                    at = target;
                }
                64..=0xBF => return None,
            }
            if labels.len() > NAME_MAX {
                return None;
            }
        }
    }

    fn asks_for_us(&mut self, questions: u16) -> Option<bool> {
        let mut asks = false;
        for _ in 0..questions.min(RECORDS_MAX) {
            let asked = self.name()?;
            let [kind, class] = self.numbers()?;
            asks |= matches!(kind, PTR | ANY) && class & !TOP == IN && asked == service();
        }
        Some(asks)
    }

    /// Reads so many records, or as many as can be read.
    fn records(&mut self, count: u16, records: &mut Records) {
        for _ in 0..count.min(RECORDS_MAX) {
            let Some(()) = self.record(records) else { return };
        }
    }

    fn record(&mut self, records: &mut Records) -> Option<()> {
        let owner = self.name()?;
        let [kind, class] = self.numbers()?;
        let ttl = u32::from_be_bytes(*self.bytes(4)?.first_chunk()?);
        let [length] = self.numbers()?;
        let end = self.at + usize::from(length);
        // A lifetime of 0 takes a record back.
        if ttl > 0 && class & !TOP == IN {
            match kind {
                SRV if records.services.len() < ANNOUNCED_MAX => {
                    let [_, _, port] = self.numbers()?;
                    let target = self.name()?;
                    if let Some(instance) = instance(&owner) {
                        records.services.push((instance, port, target));
                    }
                }
                PTR if records.known.len() < ANNOUNCED_MAX && owner == service() => {
                    let target = self.name()?;
                    records.known.extend(instance(&target));
                }
                A if records.hosts.len() < ADDRESSES_MAX => {
                    let ip: [u8; 4] = *self.bytes(4)?.first_chunk()?;
                    records.hosts.push((owner, Ipv4Addr::from(ip).into()));
                }
                AAAA if records.hosts.len() < ADDRESSES_MAX => {
                    let ip: [u8; 16] = *self.bytes(16)?.first_chunk()?;
                    records.hosts.push((owner, Ipv6Addr::from(ip).into()));
                }
                _ => {}
            }
        }
        self.at = end;
        Some(())
    }
}

/// Our service's name as [`Reader::name`] gives it.
fn service() -> Vec<u8> {
    let mut labels = Vec::new();
    name(&mut labels, &SERVICE);
    labels.pop();
    labels
}

/// The instance in `<instance>._pilot-node._udp.local`.
fn instance(owner: &[u8]) -> Option<Instance> {
    let (length, rest) = owner.split_first()?;
    let (label, rest) = rest.split_at_checked(usize::from(*length))?;
    if label.len() != INSTANCE_LEN || rest != service() {
        return None;
    }
    str::from_utf8(label).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            instance: "0123456789abcdeffedcba9876543210".parse().unwrap(),
            port: 4711,
            addresses: vec!["192.168.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        }
    }

    #[test]
    fn questions_and_announcements_are_read_as_they_were_written() {
        let us = announcement().instance;
        assert_eq!(Message::parse(&question(us)), Some(Message::Question { known: vec![us] }));
        let written = announcement().emit(false);
        assert_eq!(Message::parse(&written), Some(Message::Announced(vec![announcement()])));
        assert_eq!(Message::parse(&announcement().emit(true)), None, "a goodbye names nobody");
        for length in 0..written.len() {
            // The first address is enough; without one there is nothing to say.
            if let Some(Message::Announced(found)) = Message::parse(&written[..length]) {
                assert_eq!(found[0].addresses, announcement().addresses[..1], "{length}");
            }
        }
    }

    #[test]
    fn a_question_that_is_cut_is_none_or_asks_everybody() {
        let written = question(announcement().instance);
        for length in 0..written.len() {
            let expected = (length >= 40).then_some(Message::Question { known: Vec::new() });
            assert_eq!(Message::parse(&written[..length]), expected, "{length}");
        }
    }

    #[test]
    fn the_question_is_what_other_programs_ask() {
        let asked = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x0b_pilot-node\x04_udp\x05local\0\0\x0c\0\x01";
        assert_eq!(question(announcement().instance)[12..asked.len()], asked[12..]);
        let anybody = Some(Message::Question { known: Vec::new() });
        assert_eq!(Message::parse(asked), anybody);
        let mut loud = asked.to_vec();
        loud[13..24].make_ascii_uppercase();
        loud[asked.len() - 2] = 0x80;
        assert_eq!(Message::parse(&loud), anybody, "in capitals, for the asker alone");
        let mut other = asked.to_vec();
        other[15] = b'q';
        assert_eq!(Message::parse(&other), None);
    }

    #[test]
    fn compressed_names_are_read() {
        let mut out = header(RESPONSE, 0, 2);
        let full = ["0123456789abcdeffedcba9876543210", SERVICE[0], SERVICE[1], SERVICE[2]];
        record(&mut out, &full, SRV, IN, 120, |out| {
            out.extend([0, 0, 0, 0, 18, 103]);
            out.extend([0xC0, 12]);
        });
        out.extend([0xC0, 12]);
        out.extend([0, 1, 0, 1, 0, 0, 0, 120, 0, 4, 192, 168, 1, 5]);
        let Some(Message::Announced(found)) = Message::parse(&out) else { panic!("not read") };
        assert_eq!(found[0].addresses, announcement().addresses[..1]);
    }

    #[test]
    fn names_that_lead_in_circles_or_forwards_are_no_names() {
        for pointer in [[0xC0, 12], [0xC0, 14], [0xFF, 0xFF], [0x80, 0]] {
            let mut out = header(RESPONSE, 0, 1);
            out.extend(pointer);
            out.extend([0, 1, 0, 1, 0, 0, 0, 120, 0, 4, 192, 168, 1, 5]);
            assert_eq!(Message::parse(&out), None);
        }
        // Each jump is backwards, and there are too many.
        let mut out = header(0, 40, 0);
        name(&mut out, &["x"]);
        out.extend([0, 1, 0, 1]);
        for _ in 0..30 {
            let target = (out.len() - 6) as u8;
            out.extend([1, b'y', 0xC0, target, 0, 1, 0, 1]);
        }
        assert_eq!(Message::parse(&out), None);
    }

    #[test]
    fn a_message_that_is_full_of_records_is_read_in_part() {
        let mut out = header(RESPONSE, 0, u16::MAX);
        for _ in 0..100 {
            out.extend(&announcement().emit(false)[12..]);
        }
        let Some(Message::Announced(found)) = Message::parse(&out) else { panic!("not read") };
        assert_eq!(found.len(), ANNOUNCED_MAX);
        assert!(found.iter().all(|found| found.addresses.len() <= ADDRESSES_MAX));
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_is_too_strange(mut datagram: Vec<u8>, response: bool) {
            if let Some(flags) = datagram.get_mut(2) {
                *flags = if response { 0x84 } else { 0 };
            }
            let _ = Message::parse(&datagram);
        }
    }
}
