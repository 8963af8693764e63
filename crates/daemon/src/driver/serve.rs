//! Serving the connections of local programs: what they wrote is read, what they are sent is written.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use pilot_client::local::End;

use super::clients::{CLIENTS_MAX, Client, ClientId, Dialect};
use super::{Driver, LAST_WORDS};
use crate::ipc::bell::Bell;
use crate::ipc::io::{Heard, Pipe};
use crate::ipc::way::Way;

impl Driver {
    /// A new connection of a local program. It speaks as release 1.18.0 does until it says otherwise.
    pub(super) fn attach(&mut self, io: impl Pipe + 'static) {
        self.welcome(Dialect::Reference, |bell| Way::connection(io, bell));
    }

    /// A new client in this process.
    pub(super) fn attach_local(&mut self, end: End) {
        self.welcome(Dialect::Extended, |bell| Way::local(end, bell));
    }

    fn welcome(&mut self, dialect: Dialect, way: impl FnOnce(Arc<Bell>) -> Way) {
        if self.clients.len() >= CLIENTS_MAX {
            tracing::warn!("too many local programs are connected; one was turned away");
            return;
        }
        let id = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(id, Client::new(way(self.board.bell(id)), dialect));
    }

    /// Looks at every program whose bell rang, at each for a bounded time.
    pub(super) fn serve_rung(&mut self, now: Instant) {
        let mut rung = std::mem::take(&mut self.rung);
        self.board.take(&mut rung);
        for id in rung.drain(..) {
            self.serve(now, id);
        }
        self.rung = rung;
    }

    fn serve(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.way.answer();
        // It may take more now than before.
        self.unflushed.insert(id);
        self.resume(now, id);
        while let Some(client) = self.clients.get_mut(&id) {
            match client.way.hear() {
                Heard::Frame(received) => self.on_frame(now, id, received),
                Heard::Data(stream, data) => self.on_send(now, id, stream, data, None),
                Heard::Nothing => return,
                Heard::End => return self.on_gone(now, id),
            }
        }
    }

    /// A program read what it was sent: it may have more, and its waiting frames begin.
    fn resume(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.may_resume()) else { return };
        for stream in std::mem::take(&mut client.stalled) {
            self.pump_out(now, stream);
        }
        while let Some(client) = self.clients.get_mut(&id)
            && client.way.has_room()
            && let Some(received) = client.deferred.pop_front()
        {
            self.begin(now, id, received);
        }
    }

    /// Writes what is queued for programs, as far as they take it.
    pub(super) fn flush_programs(&mut self, now: Instant) {
        while let Some(id) = self.unflushed.pop_first() {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            if client.flush().is_err() {
                self.on_gone(now, id);
            } else if client.may_resume() {
                client.way.call_again();
            }
        }
    }

    /// The daemon ends. The reply to `shutdown` gets a moment to leave; a program that does not read gets no more than
    /// that.
    pub(super) async fn end_programs(&mut self) {
        let mut clients: Vec<Client> = std::mem::take(&mut self.clients).into_values().collect();
        let written = poll_fn(|cx| {
            clients.retain_mut(|client| client.poll_last(cx).is_pending());
            if clients.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }
}
