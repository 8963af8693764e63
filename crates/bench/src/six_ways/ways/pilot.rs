//! Pilot: B holds a stream to A, through the daemons of both. Whether its frames go directly or through the relay is
//! their business.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use pilot_client::{Client, Port, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use crate::six_ways::Error;
use crate::six_ways::job::{Ends, Link};
use crate::six_ways::wire::PAUSE;

/// Where A listens.
pub(crate) const PORT: Port = Port(1010);

/// Bytes of the length before each message.
const PREFIX: usize = 4;

/// The longest message that is read.
const MESSAGE_MAX: usize = 1 << 20;

/// Agent A: whoever dials is its peer; of two streams the newer counts.
pub(crate) fn listen(socket: PathBuf) -> Link {
    let (link, mut ends) = Link::new();
    tokio::spawn(async move {
        while !ends.told.is_closed() {
            let _ = accept(&socket, &mut ends).await;
            sleep(PAUSE).await;
        }
    });
    link
}

async fn accept(socket: &Path, ends: &mut Ends) -> Result<(), Error> {
    let mut listener = Client::connect_to(socket).await?.listen(PORT).await?;
    let mut stream = listener.accept().await?;
    loop {
        tokio::select! {
            newer = listener.accept() => stream = newer?,
            // When it ends, the peer comes again.
            _ = hold(&mut stream, ends) => stream = listener.accept().await?,
        }
    }
}

/// Agent B: dials its peer, and again when it must.
pub(crate) fn dial(socket: PathBuf, peer: String) -> Link {
    let (link, mut ends) = Link::new();
    tokio::spawn(async move {
        while !ends.told.is_closed() {
            if let Ok(mut stream) = connect(&socket, &peer).await {
                let _ = hold(&mut stream, &mut ends).await;
            }
            sleep(PAUSE).await;
        }
    });
    link
}

async fn connect(socket: &Path, peer: &str) -> Result<Stream, Error> {
    Ok(Client::connect_to(socket).await?.dial_target(peer, PORT).await?)
}

async fn hold(stream: &mut Stream, ends: &mut Ends) -> Result<(), Error> {
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        while let Some(message) = take(&mut buffer)? {
            let message = serde_json::from_slice(&message)?;
            ends.told.send(message).await.map_err(|_| Error::Ended("the agent"))?;
        }
        // Reading into a buffer that stays may be given up at any time without loss.
        tokio::select! {
            read = stream.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Err(Error::Ended("the peer"));
                }
            }
            message = ends.said.recv() => {
                let message = message.ok_or(Error::Ended("the agent"))?;
                stream.write_all(&frame(&serde_json::to_vec(&message)?)?).await?;
            }
        }
    }
}

/// A message with its length before it.
pub(crate) fn frame(message: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u32::try_from(message.len()).map_err(Error::lost)?;
    Ok([&length.to_be_bytes(), message].concat())
}

/// The next message, when all of it is there.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let Some(length) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(Error::lost)?;
    if length > MESSAGE_MAX {
        return Err(Error::Lost(format!("a message of {length} bytes")));
    }
    if buffer.len() < PREFIX + length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(PREFIX + length).freeze();
    Ok(Some(frame.split_off(PREFIX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let bytes = [frame(b"one").unwrap(), frame(b"").unwrap(), frame(b"three").unwrap()].concat();
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            buffer.extend_from_slice(&[byte]);
            while let Some(message) = take(&mut buffer).unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_beyond_all_messages_is_an_error() {
        assert!(take(&mut BytesMut::from(&[0xFF; 8][..])).is_err());
    }
}
