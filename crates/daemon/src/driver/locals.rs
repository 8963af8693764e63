//! Clients in this process: they come and write without a task of their own in the daemon.

use std::time::Instant;

use pilot_client::local::End;

use super::Driver;
use super::clients::{CLIENTS_MAX, Client, ClientId};
use crate::ipc::local::LocalEvent;

/// Frames and pieces of data taken from one client in one turn, so that the others and the network get theirs.
const EVENTS_PER_TURN: usize = 64;

impl Driver {
    /// A new client in this process.
    pub(super) fn attach_local(&mut self, now: Instant, end: End) {
        if self.clients.len() >= CLIENTS_MAX {
            tracing::warn!("too many local programs are connected; one in this process was turned away");
            return;
        }
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let outlet = self.locals.add(id, end);
        let mut client = Client::new(outlet, None);
        client.dialect = super::clients::Dialect::Extended;
        self.clients.insert(id, client);
        self.on_local(now, id);
    }

    pub(super) fn on_locals(&mut self, now: Instant) {
        for id in self.locals.take_rung() {
            self.on_local(now, id);
        }
    }

    fn on_local(&mut self, now: Instant, id: ClientId) {
        for _ in 0..EVENTS_PER_TURN {
            match self.locals.next(id) {
                Some(LocalEvent::Frame(received)) => self.on_frame(now, id, received),
                Some(LocalEvent::Data(stream, data)) => self.on_send(now, id, stream, data, None),
                Some(LocalEvent::Gone) => return self.on_gone(now, id),
                None => return,
            }
        }
        self.locals.ring(id);
    }
}
