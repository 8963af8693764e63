//! Data between the node's streams and their owners, both ways, each as fast as the slower side takes it.

use std::time::Instant;

use bytes::Bytes;
use pilot_proto::stream::CloseReason;
use pilot_proto::{Closed, Read, Side, StreamEvent};
use pilot_wire::ipc::{Code, DaemonFrame, Failure, Reply};
use pilot_wire::{Endpoint, Port, StreamId};

use super::clients::{ClientId, Dialect, STREAMS_MAX};
use super::replies::{Refusal, ReplyTo};
use super::streams::{Attachment, Chunk, Ending, Owner, Phase};
use super::{Driver, PortOwner};
use crate::ipc::budget::Charge;

/// Bytes read from a stream at a time. Large enough that the frame around it costs nothing, small enough that streams of
/// one program take turns, and that it seldom has to be put together from the parts in which the program reads it.
const READ_MAX: usize = 32 << 10;

/// Streams that ended in order and are remembered, so that a program that asks late whether all arrived learns that it did.
const FINISHED_MAX: usize = 1024;

impl Driver {
    pub(super) fn on_stream(&mut self, now: Instant, id: StreamId, event: StreamEvent) {
        match event {
            StreamEvent::Incoming { port, from } => self.on_incoming(now, id, port, from),
            StreamEvent::Established => self.on_established(id),
            StreamEvent::Readable => self.pump_out(now, id),
            StreamEvent::Writable => self.pump_in(now, id),
            StreamEvent::Drained => self.settle_drains(id),
            StreamEvent::Closed(closed) => self.on_closed(now, id, closed),
        }
    }

    fn on_incoming(&mut self, now: Instant, id: StreamId, port: Port, from: Endpoint) {
        if self.policy.may_open(from.addr.node, port).is_err() {
            // Before any program hears of it, and before the peer is told that the stream is open: it sees a port on
            // which nobody listens.
            return self.node.reset(now, id);
        }
        let owner = match self.ports.get(&port) {
            Some(PortOwner::Echo) => Owner::Echo,
            Some(PortOwner::Client(client)) => Owner::Client(*client),
            None => return self.node.reset(now, id),
        };
        let mut dialect = Dialect::Reference;
        if let Owner::Client(client_id) = owner {
            let Some(client) = self.clients.get_mut(&client_id).filter(|c| c.streams.len() < STREAMS_MAX)
            else {
                self.refused_streams += 1;
                return self.node.reset(now, id);
            };
            dialect = client.dialect;
            client.streams.insert(id);
            client.push(&DaemonFrame::Accept { port, stream: id, from });
            self.unflushed.insert(client_id);
        }
        self.streams.insert(id, Attachment::new(owner, dialect, Phase::Open));
        self.tally.streams_accepted += 1;
        self.notify(
            "conn.established",
            Some(serde_json::json!({
                "src_addr": from.addr, "src_port": from.port, "dst_port": port, "conn_id": id
            })),
        );
        self.pump_out(now, id);
    }

    /// Ends streams that peers opened and the rules do not allow any more.
    pub(super) fn end_forbidden_streams(&mut self, now: Instant) {
        let opened = self.node.streams().filter(|stream| stream.opener == Side::Theirs);
        let forbidden: Vec<StreamId> = opened
            .filter(|stream| self.policy.may_open(stream.remote.addr.node, stream.local).is_err())
            .map(|stream| stream.id)
            .collect();
        for id in forbidden {
            match self.streams.get(&id) {
                Some(&Attachment { owner: Owner::Client(client), .. }) => {
                    let message = "the rules of this node do not allow the peer here any more";
                    self.break_stream(now, client, id, Failure::new(Code::PermissionDenied, message));
                }
                Some(_) => self.cut(now, id),
                None => self.node.reset(now, id),
            }
        }
    }

    fn on_established(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Phase::Dialing(to) = std::mem::replace(&mut stream.phase, Phase::Open) {
            self.tally.streams_dialed += 1;
            self.waits.dial_ended(id, || None);
            self.reply(to, &Reply::Dialed { stream: id });
        }
    }

    fn on_closed(&mut self, now: Instant, id: StreamId, closed: Closed) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.tally.on_closed(&closed, !matches!(stream.phase, Phase::Dialing(_)));
        self.waits.dial_ended(id, || Some(closed.to_string()));
        if closed == Closed::Stream(CloseReason::Finished) {
            if self.finished.len() >= FINISHED_MAX {
                self.finished.pop_front();
            }
            self.finished.push_back(id);
        }
        stream.untaken.clear();
        let drains = std::mem::take(&mut stream.drains);
        if let Phase::Dialing(to) = std::mem::replace(&mut stream.phase, Phase::Over(closed.clone())) {
            self.detach(now, id);
            let refusal = self.closed_refusal(closed);
            self.refuse(to, refusal);
            return;
        }
        for to in drains {
            self.settle_drain(to, id, &closed);
        }
        self.pump_out(now, id);
    }

    /// Moves what has arrived to the stream's owner.
    pub(super) fn pump_out(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        match (stream.owner, &stream.phase) {
            (Owner::Client(client), Phase::Open | Phase::Over(_)) => self.pump_to_client(now, id, client),
            (Owner::Echo, Phase::Open) => self.pump_echo(now, id),
            (Owner::Echo | Owner::Nobody, Phase::Over(_)) => self.detach(now, id),
            (Owner::Nobody, Phase::Open) | (_, Phase::Dialing(_)) => {}
        }
    }

    fn pump_to_client(&mut self, now: Instant, id: StreamId, client_id: ClientId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(client) = self.clients.get_mut(&client_id) else { return };
        self.unflushed.insert(client_id);
        while !stream.read_ended {
            if !client.way.has_room() {
                client.stalled.insert(id);
                return;
            }
            let most = stream.readable(READ_MAX);
            if most == 0 {
                return;
            }
            match self.node.read(now, id, most) {
                Ok(Read::Data(data)) => {
                    stream.pushed(data.len());
                    client.push_data(id, data);
                }
                Ok(Read::Blocked) if matches!(stream.phase, Phase::Over(_)) => stream.read_ended = true,
                Ok(Read::Blocked) => return,
                Ok(Read::Finished) => {
                    stream.read_ended = true;
                    match client.dialect {
                        Dialect::Extended => client.push(&DaemonFrame::Finish { stream: id }),
                        // Released drivers know one kind of end. The program may still write until it closes.
                        Dialect::Reference => client.push_end(id, None),
                    }
                    stream.finish_pushed = true;
                }
                Err(_) => stream.read_ended = true,
            }
        }
        let Phase::Over(closed) = &stream.phase else { return };
        let failure = match closed {
            Closed::Stream(reason) if reason.is_orderly() => None,
            Closed::Stream(_) | Closed::Dial(_) => Some(Refusal::from(closed.clone()).failure),
        };
        if client.dialect == Dialect::Extended || !stream.finish_pushed {
            client.push_end(id, failure);
        }
        self.detach(now, id);
    }

    fn pump_echo(&mut self, now: Instant, id: StreamId) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            if !stream.untaken.is_empty() || stream.read_ended {
                return;
            }
            match self.node.read(now, id, READ_MAX) {
                Ok(Read::Data(data)) => stream.untaken.push_back(Chunk { data, _charge: None }),
                Ok(Read::Finished) => {
                    stream.read_ended = true;
                    stream.ending = Some(Ending::Close);
                }
                Ok(Read::Blocked) | Err(_) => return,
            }
            self.move_untaken(now, id);
        }
    }

    /// Takes data of a program for one of its streams.
    pub(super) fn on_send(
        &mut self,
        now: Instant,
        client: ClientId,
        id: StreamId,
        data: Bytes,
        charge: Option<Charge>,
    ) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.owner == Owner::Client(client))
        else {
            return;
        };
        if stream.ending.is_some() || matches!(stream.phase, Phase::Over(_)) || data.is_empty() {
            return;
        }
        if stream.received(data.len()).is_err() {
            let message = "more was sent than the daemon had granted";
            self.break_stream(now, client, id, Failure::new(Code::InvalidArgument, message));
            return;
        }
        let _charge = charge.filter(|_| !stream.is_metered());
        stream.untaken.push_back(Chunk { data, _charge });
        self.pump_in(now, id);
    }

    /// Moves what the program wrote into the node.
    pub(super) fn pump_in(&mut self, now: Instant, id: StreamId) {
        self.move_untaken(now, id);
        if self.streams.get(&id).is_some_and(|stream| stream.owner == Owner::Echo) {
            self.pump_echo(now, id);
        }
    }

    fn move_untaken(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut taken = 0;
        while let Some(chunk) = stream.untaken.front_mut() {
            match self.node.write(now, id, chunk.data.clone()) {
                Ok(0) => break,
                Ok(count) => {
                    taken += count;
                    let _ = chunk.data.split_to(count);
                    if chunk.data.is_empty() {
                        stream.untaken.pop_front();
                    }
                }
                // Finished or over: the event that says so is on its way.
                Err(_) => stream.untaken.clear(),
            }
        }
        if let (Some(bytes), Owner::Client(client_id)) = (stream.taken(taken), stream.owner)
            && let Some(client) = self.clients.get_mut(&client_id)
        {
            client.push(&DaemonFrame::Credit { stream: id, bytes });
            self.unflushed.insert(client_id);
        }
        if stream.untaken.is_empty() {
            match stream.ending {
                Some(Ending::Finish) => self.node.finish(now, id),
                Some(Ending::Close) => self.node.close(now, id),
                None => {}
            }
        }
    }

    /// The program says that it will write no more, or has no more use for the stream at all.
    pub(super) fn end(&mut self, now: Instant, id: StreamId, ending: Ending) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if stream.ending != Some(Ending::Close) {
                stream.ending = Some(ending);
            }
            self.move_untaken(now, id);
        }
    }

    /// The program closes the stream or has left: it is nobody's from now on, but what was written still goes out.
    pub(super) fn abandon(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Owner::Client(client) = stream.owner
            && let Some(client) = self.clients.get_mut(&client)
        {
            client.streams.remove(&id);
            client.stalled.remove(&id);
        }
        stream.owner = Owner::Nobody;
        match std::mem::replace(&mut stream.phase, Phase::Open) {
            Phase::Dialing(to) => {
                self.waits.dial_ended(id, || Some("given up".to_owned()));
                self.streams.remove(&id);
                self.node.reset(now, id);
                self.forgo(to);
            }
            Phase::Over(closed) => {
                stream.phase = Phase::Over(closed);
                self.detach(now, id);
            }
            Phase::Open => self.end(now, id, Ending::Close),
        }
    }

    /// Ends a stream at once, and tells its program why if it did not ask for that.
    fn break_stream(&mut self, now: Instant, client_id: ClientId, id: StreamId, failure: Failure) {
        if let Some(client) = self.clients.get_mut(&client_id) {
            client.push_end(id, Some(failure));
            self.unflushed.insert(client_id);
        }
        self.cut(now, id);
    }

    /// Ends a stream of whomever, in order.
    pub(super) fn disconnect(&mut self, now: Instant, id: StreamId) {
        if let Some(Attachment { owner: Owner::Client(client_id), .. }) = self.streams.get(&id)
            && let Some(client) = self.clients.get_mut(client_id)
        {
            client.push_end(id, None);
            self.unflushed.insert(*client_id);
        }
        self.abandon(now, id);
    }

    /// Ends a stream at once.
    pub(super) fn cut(&mut self, now: Instant, id: StreamId) {
        self.detach(now, id);
        self.node.reset(now, id);
    }

    /// Forgets a stream. The node may still be busy closing it.
    fn detach(&mut self, now: Instant, id: StreamId) {
        self.waits.dial_ended(id, || Some("given up".to_owned()));
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Owner::Client(client) = stream.owner
            && let Some(client) = self.clients.get_mut(&client)
        {
            client.streams.remove(&id);
            client.stalled.remove(&id);
        }
        self.node.close(now, id);
        for to in stream.drains {
            self.refuse(
                to,
                Refusal::new(Code::Closed, "the stream was closed before the peer had everything"),
            );
        }
    }

    /// Answers, now or later, whether the peer has everything that was written.
    pub(super) fn on_drain(&mut self, to: ReplyTo, id: StreamId) {
        let owner = Owner::Client(to.client);
        match self.streams.get_mut(&id).filter(|stream| stream.owner == owner) {
            Some(stream) => match stream.phase.clone_closed() {
                None => {
                    stream.drains.push(to);
                    self.settle_drains(id);
                }
                Some(closed) => self.settle_drain(to, id, &closed),
            },
            None if self.finished.contains(&id) => self.reply(to, &Reply::Drained { stream: id }),
            None => self.refuse(to, Refusal::no_stream(id)),
        }
    }

    fn settle_drains(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.untaken.is_empty() && self.node.is_drained(id) == Some(true) {
            for to in std::mem::take(&mut stream.drains) {
                self.reply(to, &Reply::Drained { stream: id });
            }
        }
    }

    fn settle_drain(&mut self, to: ReplyTo, id: StreamId, closed: &Closed) {
        match closed {
            Closed::Stream(reason) if reason.is_orderly() => self.reply(to, &Reply::Drained { stream: id }),
            Closed::Stream(_) | Closed::Dial(_) => self.refuse(to, closed.clone()),
        }
    }
}
