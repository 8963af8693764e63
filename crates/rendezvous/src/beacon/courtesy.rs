//! What is done for anybody, known or not.

use super::{Drop, Ear, Ears, Route, State};
use crate::rate::Bucket;
use pilot_wire::{
    NodeId,
    beacon::{Message, ReplyFrom},
};
use std::{net::SocketAddr, time::Instant};

impl State {
    /// Takes one of the things that are done for anybody.
    pub(super) fn courtesy(&mut self, now: Instant) -> Result<(), Drop> {
        let rate = self.config.courtesies;
        let bucket = self.courtesies.get_or_insert_with(|| Bucket::full(rate, now));
        bucket.take(rate, now).map_err(|_| Drop::TooMany)
    }

    /// Takes an answer that is longer than its question. Whoever forges addresses could otherwise have others flooded.
    pub(super) fn long_answer(&mut self, now: Instant, to: SocketAddr) -> Result<(), Drop> {
        if to.ip().is_loopback() {
            return Ok(());
        }
        self.long_answers.take(to.ip(), now).map_err(|_| Drop::TooMany)
    }

    pub(super) fn survey(
        &mut self,
        now: Instant,
        from: Route,
        token: u64,
        wanted: ReplyFrom,
    ) -> Result<(), Drop> {
        let Route::Udp(addr) = from else { return Err(Drop::Unreadable) };
        let ear = match wanted {
            ReplyFrom::Here => Ear::Main,
            ReplyFrom::OtherPort if self.ears.second_port.is_some() => Ear::QuietPort,
            ReplyFrom::OtherAddress if self.ears.second_addr.is_some() => Ear::QuietAddress,
            ReplyFrom::OtherPort | ReplyFrom::OtherAddress => return Err(Drop::Unreachable),
        };
        self.answer_survey(now, ear, addr, token)
    }

    pub(super) fn answer_survey(
        &mut self,
        now: Instant,
        ear: Ear,
        to: SocketAddr,
        token: u64,
    ) -> Result<(), Drop> {
        self.courtesy(now)?;
        let Ears { second_port, second_addr } = self.ears;
        let reply = Message::SurveyReply { token, observed: to, second_port, second_addr };
        let route = if ear == Ear::Main { Route::Udp(to) } else { Route::Elsewhere(ear, to) };
        self.send(route, &reply);
        Ok(())
    }

    /// Tells somebody that a node is not known here: the receiver of a frame, or its sender.
    pub(super) fn say_unknown(&mut self, now: Instant, to: Route, node: NodeId) {
        if self.courtesy(now).is_ok() {
            self.send(to, &Message::Unknown { node });
        }
    }
}
