//! Rules for names and labels (spec/registry.md 3).

use super::refusal::{HostnameFault, Refusal};

/// Longest hostname or network name, in bytes.
const NAME_MAX: usize = 63;
/// Longest label, in bytes.
const TAG_MAX: usize = 32;
/// Most labels of a node, or of a member in a network.
pub(super) const TAGS_MAX: usize = 10;

const RESERVED_HOSTNAMES: &[&str] = &["localhost", "backbone", "broadcast"];
const RESERVED_NETWORKS: &[&str] = &["backbone"];

pub(crate) fn check_hostname(name: &str) -> Result<(), HostnameFault> {
    check(name, RESERVED_HOSTNAMES)
}

pub(crate) fn check_network_name(name: &str) -> Result<(), HostnameFault> {
    check(name, RESERVED_NETWORKS)
}

fn check(name: &str, reserved: &[&str]) -> Result<(), HostnameFault> {
    if name.len() > NAME_MAX {
        return Err(HostnameFault::TooLong(NAME_MAX));
    }
    if !is_label(name) {
        return Err(HostnameFault::Alphabet);
    }
    if reserved.contains(&name) {
        return Err(HostnameFault::Reserved(name.to_owned()));
    }
    Ok(())
}

fn is_label(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|byte| is_letter(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// One leading `#` is taken off, and of equal labels one is kept.
pub(crate) fn check_tags(tags: &[String]) -> Result<Vec<String>, Refusal> {
    if tags.len() > TAGS_MAX {
        return Err(Refusal::TooManyTags(TAGS_MAX));
    }
    let mut kept = Vec::new();
    for tag in tags {
        let tag = tag.strip_prefix('#').unwrap_or(tag);
        if tag.is_empty() {
            return Err(Refusal::TagEmpty);
        }
        if tag.len() > TAG_MAX {
            return Err(Refusal::TagTooLong(tag.to_owned(), TAG_MAX));
        }
        if !is_label(tag) {
            return Err(Refusal::TagInvalid(tag.to_owned()));
        }
        if !kept.iter().any(|other| other == tag) {
            kept.push(tag.to_owned());
        }
    }
    Ok(kept)
}
