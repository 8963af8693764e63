//! What waits to be written to one local program: a queue of the driver's, handed to the writer batch by batch.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::io::Batch;

/// Bytes waiting for one client above which no stream is read for it and no request of it is begun. A good pipe's
/// worth: the client drains it in about a millisecond if it reads at all.
const FULL: usize = 1 << 20;

/// Small frames of one turn are put together up to this size, so that a reply and its pushes are one system call.
const JOINED_MAX: usize = 16 << 10;

/// The queue towards one client.
pub(crate) struct Outbox {
    writer: mpsc::Sender<Batch>,
    queue: Batch,
    queued: usize,
    in_flight: usize,
    joining: Vec<u8>,
}

impl Outbox {
    /// A queue whose batches go to `writer`, a channel with room for one.
    pub(crate) fn new(writer: mpsc::Sender<Batch>) -> Self {
        Self { writer, queue: Vec::new(), queued: 0, in_flight: 0, joining: Vec::new() }
    }

    /// Whether the client keeps up: if not, produce nothing more for it until it does.
    pub(crate) fn has_room(&self) -> bool {
        self.queued + self.joining.len() + self.in_flight < FULL
    }

    /// Queues the frame that `emit` appends, length included.
    pub(crate) fn push(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        emit(&mut self.joining);
        if self.joining.len() >= JOINED_MAX {
            self.seal();
        }
    }

    /// Queues a frame whose payload is passed on without a copy.
    pub(crate) fn push_data(&mut self, header: &[u8], data: Bytes) {
        self.joining.extend_from_slice(header);
        if data.len() < JOINED_MAX / 4 {
            self.joining.extend_from_slice(&data);
            return;
        }
        self.seal();
        self.queued += data.len();
        self.queue.push(data);
    }

    /// Hands what is queued to the writer, unless it is still busy.
    pub(crate) fn flush(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        self.seal();
        if self.queue.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.queued);
        // It fails only when the writer has ended; the client's departure is then on its way to the driver.
        if self.writer.try_send(std::mem::take(&mut self.queue)).is_ok() {
            self.in_flight = bytes;
        }
    }

    /// Hands what is queued to the writer even if it is busy, for nothing will follow.
    pub(crate) fn flush_last(&mut self) {
        self.in_flight = 0;
        self.flush();
    }

    /// The writer has written the last batch.
    pub(crate) fn written(&mut self) {
        self.in_flight = 0;
        self.flush();
    }

    fn seal(&mut self) {
        if !self.joining.is_empty() {
            self.queued += self.joining.len();
            self.queue.push(Bytes::from(std::mem::take(&mut self.joining)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_one_batch_at_a_time() {
        let (writer, mut batches) = mpsc::channel(1);
        let mut outbox = Outbox::new(writer);
        outbox.push(|out| out.extend_from_slice(b"ab"));
        outbox.flush();
        outbox.push(|out| out.extend_from_slice(b"cd"));
        outbox.push_data(b"ef", Bytes::from(vec![b'g'; JOINED_MAX]));
        outbox.push(|out| out.extend_from_slice(b"h"));
        outbox.flush();
        assert_eq!(batches.recv().await.unwrap().concat(), b"ab");
        assert!(batches.try_recv().is_err(), "the writer has not reported yet");
        outbox.written();
        let second = batches.recv().await.unwrap().concat();
        assert!(second.starts_with(b"cdefg") && second.ends_with(b"gh"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_full_until_it_does() {
        let (writer, mut batches) = mpsc::channel(1);
        let mut outbox = Outbox::new(writer);
        while outbox.has_room() {
            outbox.push_data(b"head", Bytes::from(vec![0; 100_000]));
            outbox.flush();
        }
        batches.recv().await.unwrap();
        outbox.written();
        batches.recv().await.unwrap();
        outbox.written();
        assert!(outbox.has_room());
    }
}
