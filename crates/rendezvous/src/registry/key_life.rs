//! For how long keys are valid (spec/registry.md 6 and 12).

use super::{Key, Refusal, State, record::KeyLife};
use crate::clock::{parse_rfc3339, rfc3339};
use pilot_wire::{
    NodeId,
    registry::{KeyInfo, Response, SetKeyExpiry},
};
use std::time::Instant;

const DAY: u64 = 86_400;
/// Longest life that can be given to a key, in seconds.
const LIFE_MAX: u64 = 10 * 365 * DAY;

/// A moment in the future, or none: empty text and `never` are none.
pub(super) fn moment(text: &str, now: u64) -> Result<Option<u64>, Refusal> {
    if matches!(text, "" | "never") {
        return Ok(None);
    }
    let at = parse_rfc3339(text).ok_or_else(|| Refusal::ExpiryFormat(text.chars().take(64).collect()))?;
    if at <= now {
        return Err(Refusal::ExpiryPast);
    }
    if at > now + LIFE_MAX {
        return Err(Refusal::ExpiryFar);
    }
    Ok(Some(at))
}

impl State {
    /// A key that has ended keeps nobody alive: the node expires, unless it gets another key before. Within a day of the
    /// end it is said what is coming.
    pub(super) fn check_key_life(&self, now: Instant, node: NodeId) -> Result<Option<String>, Refusal> {
        let Some(end) = self.key_lives.get(&node).and_then(|life| life.expires_at) else { return Ok(None) };
        let unix = self.clock.unix(now);
        if unix >= end {
            return Err(Refusal::KeyExpired(node, rfc3339(end)));
        }
        Ok((end - unix < DAY).then(|| format!("key expires at {}", rfc3339(end))))
    }

    pub(super) fn set_key_expiry(
        &mut self,
        now: Instant,
        request: &SetKeyExpiry,
    ) -> Result<Response, Refusal> {
        let node = request.node_id;
        let is_enterprise = |id| self.networks.get(id).is_some_and(|network| network.enterprise);
        if !self.networks.of(node).any(is_enterprise) {
            return Err(Refusal::ExpiryNeedsEnterprise);
        }
        let expires_at = moment(&request.expires_at, self.clock.unix(now))?;
        self.key_lives.entry(node).or_default().expires_at = expires_at;
        self.touch(Key::KeyLife(node));
        Ok(Response::SetKeyExpiry { node_id: node, expires_at: expires_at.map(rfc3339) })
    }

    pub(super) fn get_key_info(&self, now: Instant, id: NodeId) -> Result<Response, Refusal> {
        let since = self.known(id)?.key_since;
        let life = self.key_lives.get(&id).cloned().unwrap_or_default();
        let age = self.clock.unix(now).saturating_sub(since) / DAY;
        Ok(Response::GetKeyInfo(KeyInfo {
            node_id: id,
            created_at: rfc3339(if life.created_at == 0 { since } else { life.created_at }),
            rotate_count: life.rotations,
            rotated_at: (life.rotations > 0).then(|| rfc3339(since)),
            expires_at: life.expires_at.map(rfc3339),
            key_age_days: Some(u32::try_from(age).unwrap_or(u32::MAX)),
        }))
    }

    /// The node has another key than the one it had since `since`: what was said of the old one's end does not concern
    /// it, members of its networks learn the new one, and cards that the old one signed are no proof any more.
    pub(super) fn key_rotated(&mut self, node: NodeId, since: u64) {
        let life = self.key_lives.entry(node).or_default();
        if life.created_at == 0 {
            life.created_at = since;
        }
        life.rotations = life.rotations.saturating_add(1);
        life.expires_at = None;
        self.touch(Key::KeyLife(node));
        for id in self.networks.of(node).collect::<Vec<_>>() {
            self.member_changed(id, node);
        }
        if self.directory.forget(node, None) {
            self.touch(Key::Cards(node));
        }
    }

    pub(super) fn key_life(&self, node: NodeId) -> Option<KeyLife> {
        self.key_lives.get(&node).filter(|life| **life != KeyLife::default()).cloned()
    }
}
