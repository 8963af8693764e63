//! Introductions: each of two nodes is told the other's address at the same time, so that both open their NATs.

use super::{Drop, Introductions, Route, State};
use pilot_wire::{
    NodeId,
    beacon::Message,
    mesh::{Body, Introduction},
};
use std::{net::SocketAddr, time::Instant};

/// "May the one be introduced to the other?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks for it.
    pub requester: NodeId,
    /// To whom.
    pub target: NodeId,
}

/// Questions that wait to be put.
const QUESTIONS_MAX: usize = 1024;

/// Bytes of a [`Message::PunchCommand`] to an IPv6 address.
const LONG_COMMAND: usize = 20;

impl State {
    /// The answer to a question.
    pub fn handle_answer(&mut self, now: Instant, question: Question, allowed: bool) {
        if allowed {
            self.introduce(now, question);
        }
    }

    pub(super) fn punch(
        &mut self,
        now: Instant,
        from: Route,
        length: usize,
        question: Question,
    ) -> Result<(), Drop> {
        let Question { requester, target } = question;
        let rate = self.config.punch;
        self.entry_of(from, requester)?.punch.take(rate, now).map_err(|_| Drop::TooMany)?;
        // Who is on the web cannot be reached by datagrams, so there is nothing to open a NAT for.
        let Some(addr) = self.punchable(requester) else { return Err(Drop::Unreachable) };
        let target_addr = self.punchable(target);
        if requester == target || target_addr.is_none() && self.mesh.locate(now, target).is_none() {
            return Err(Drop::Unreachable);
        }
        let is_long = target_addr.is_none_or(|addr| addr.is_ipv6()) && length < LONG_COMMAND;
        if is_long && !self.is_vouched_for(requester) {
            self.long_answer(now, addr)?;
        }
        match self.config.introductions {
            Introductions::Everybody => self.introduce(now, question),
            Introductions::Ask if self.questions.len() < QUESTIONS_MAX => self.questions.push_back(question),
            Introductions::Ask => return Err(Drop::TooMany),
        }
        Ok(())
    }

    /// The requester hears of it first, as from the reference's beacons; unless the other one is at another beacon,
    /// which tells it and says then where it is.
    fn introduce(&mut self, now: Instant, Question { requester, target }: Question) {
        let Some(requester_addr) = self.punchable(requester) else { return };
        if let Some((beacon, _)) = self.elsewhere(now, target) {
            let body = Body::Introduce(Introduction { requester, target, addr: requester_addr });
            self.mesh.tell(beacon, &body, &mut self.out);
            return;
        }
        let Some(target_addr) = self.punchable(target) else { return };
        self.send(Route::Udp(requester_addr), &Message::PunchCommand(target_addr));
        self.send(Route::Udp(target_addr), &Message::PunchCommand(requester_addr));
        self.stats.introduced += 1;
    }

    /// Another beacon introduces a node of its to one of ours. It has asked whether it may.
    pub(super) fn introduced_from(
        &mut self,
        beacon: u32,
        Introduction { requester, target, addr }: Introduction,
    ) -> Result<(), Drop> {
        let target_addr = self.punchable(target).ok_or(Drop::Unreachable)?;
        self.send(Route::Udp(target_addr), &Message::PunchCommand(addr));
        let body = Body::Introduced(Introduction { requester, target, addr: target_addr });
        self.mesh.tell(beacon, &body, &mut self.out);
        Ok(())
    }

    /// Another beacon has told a node of its of ours.
    pub(super) fn introduction_done(
        &mut self,
        Introduction { requester, addr, .. }: Introduction,
    ) -> Result<(), Drop> {
        let requester = self.punchable(requester).ok_or(Drop::Unreachable)?;
        self.send(Route::Udp(requester), &Message::PunchCommand(addr));
        self.stats.introduced += 1;
        Ok(())
    }

    fn punchable(&self, node: NodeId) -> Option<SocketAddr> {
        self.entries.get(&node)?.seats.punchable()
    }
}
