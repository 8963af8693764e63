//! A daemon that says what the test tells it to, over a pipe in memory.

use std::task::{Context, Poll, Waker};

use pilot_client::Client;
use pilot_client::ipc::{ClientFrame, DaemonFrame, Decoder, Features, Reply, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Room in the pipe in each direction.
const PIPE: usize = 4 << 20;

pub(crate) struct Fake {
    io: DuplexStream,
    decoder: Decoder,
}

impl Fake {
    /// A client and the extended daemon it talks to, which grants so many bytes to each stream.
    pub(crate) async fn extended(initial_credit: u32) -> (Client, Self) {
        let features = Features { initial_credit, ..Features::default() };
        Self::answering_hello(&DaemonFrame::HelloOk { version: 1, features }).await
    }

    /// A client and the reference daemon it talks to.
    pub(crate) async fn reference() -> (Client, Self) {
        let text = "unknown command: 0x80".into();
        Self::answering_hello(&DaemonFrame::Reply(Reply::Error { code: 1, text })).await
    }

    async fn answering_hello(answer: &DaemonFrame<'_>) -> (Client, Self) {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let mut fake = Self { io: ours, decoder: Decoder::new() };
        let greet = async {
            assert_eq!(fake.hear().await, frame(&ClientFrame::Hello { version: 1 }));
            fake.say(answer).await;
        };
        let (client, ()) = tokio::join!(Client::over(theirs), greet);
        (client.unwrap(), fake)
    }

    /// The next frame of the client: command and payload.
    pub(crate) async fn hear(&mut self) -> Vec<u8> {
        self.next().await.expect("the client ended the connection")
    }

    /// As [`Fake::hear`], or nothing when the client ended the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame.to_vec());
            }
            if self.io.read_buf(self.decoder.space()).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// The next frame, which must be this one.
    pub(crate) async fn expect(&mut self, expected: &ClientFrame<'_>) {
        let heard = self.hear().await;
        assert_eq!(ClientFrame::parse(&heard).as_ref(), Ok(expected));
    }

    /// The next frame, which must be this request with a number; gives the number.
    pub(crate) async fn expect_tagged(&mut self, expected: &Request<'_>) -> u32 {
        let heard = self.hear().await;
        let Ok(ClientFrame::Tagged { tag, request }) = ClientFrame::parse(&heard) else {
            panic!("expected {expected:?} with a number, heard {heard:02X?}")
        };
        assert_eq!(Request::parse(request).as_ref(), Ok(expected));
        tag
    }

    pub(crate) async fn say(&mut self, said: &DaemonFrame<'_>) {
        self.say_at_once(std::slice::from_ref(said)).await;
    }

    /// Several frames in one write.
    pub(crate) async fn say_at_once(&mut self, said: &[DaemonFrame<'_>]) {
        let mut bytes = Vec::new();
        said.iter().for_each(|frame| frame.emit(&mut bytes));
        self.io.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn answer(&mut self, tag: u32, reply: &Reply<'_>) {
        let mut bytes = Vec::new();
        reply.emit_tagged(tag, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    /// How many bytes the client has written already, without waiting.
    pub(crate) fn heard_already(&mut self) -> Option<usize> {
        let read = std::pin::pin!(self.io.read_buf(self.decoder.space()));
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(count) => Some(count.unwrap()),
            Poll::Pending => None,
        }
    }

    /// How many bytes the client has written in one go.
    pub(crate) async fn one_read(&mut self) -> usize {
        self.io.read_buf(self.decoder.space()).await.unwrap()
    }
}

fn frame(said: &ClientFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    said.emit(&mut bytes);
    bytes.split_off(4)
}
