//! Brings messages for a peer that is away to a mailbox of that peer.

use std::io;
use std::sync::Arc;

use pilot_wire::NodeId;

use super::carrier::{Carriers, delivery};
use super::lane::Letter;
use super::ledger::leaving::LeftOff;
use crate::service::mailboxes::NotLeft;

impl Carriers {
    /// Leaves what waits for a peer with the first of its mailboxes that takes it.
    pub(super) async fn leave(self, peer: NodeId) {
        let left_off = self.leave_all(peer).await;
        self.desk.with(|ledger, now| ledger.on_left_off(peer, left_off, now));
    }

    async fn leave_all(&self, peer: NodeId) -> LeftOff {
        let mailboxes = self.mailboxes.mailboxes_of(peer).await;
        let mailboxes = self.desk.with(|ledger, now| ledger.in_order(peer, mailboxes, now));
        for &mailbox in &mailboxes {
            match self.leave_with(mailbox, peer).await {
                Ok(()) => return LeftOff::Done,
                Err(why) => tracing::debug!(%peer, %why, "messages are not left with a mailbox"),
            }
        }
        LeftOff::Stuck(mailboxes)
    }

    /// One after the other, in order.
    async fn leave_with(&self, mailbox: NodeId, peer: NodeId) -> Result<(), NotLeft> {
        while let Some((letter, ttl)) = self.desk.with(|ledger, now| ledger.next_to_leave(peer, mailbox, now))
        {
            let (seq, id) = (letter.seq, letter.id.clone());
            let letter = self.with_body(*letter).await.map_err(|error| {
                tracing::error!(%error, "a message of the outbox cannot be read");
                NotLeft::Unsealable(format!("it cannot be read from this node's disk: {error}"))
            })?;
            self.mailboxes.leave_message(mailbox, peer, &id, delivery(letter), ttl).await?;
            self.desk.with(|ledger, now| ledger.on_left(peer, seq, mailbox, now));
        }
        Ok(())
    }

    async fn with_body(&self, mut letter: Letter) -> io::Result<Letter> {
        if letter.cached.is_none() && letter.bytes > 0 {
            let (desk, seq, place) = (Arc::clone(&self.desk), letter.seq, letter.place);
            let read = tokio::task::spawn_blocking(move || desk.disk.load(seq, place));
            letter.cached = Some(read.await.map_err(io::Error::other)??);
        }
        Ok(letter)
    }
}
