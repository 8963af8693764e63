//! The packets that the node of this daemon sends and receives, in clear.

use bytes::Bytes;
use pilot_wire::capture::{self, Counts, Filter, Record};
use pilot_wire::ipc::{Call, Done, Request};

use crate::session::Answer;
use crate::{Client, Error};

/// A capture under way. It ends when this is dropped.
#[derive(Debug)]
pub struct Capture {
    client: Client,
}

/// Packets that were seen, in order.
#[derive(Debug, Clone)]
pub struct Packets {
    bytes: Bytes,
}

impl Client {
    /// Shows the packets of the node from now on. The capture has a connection of its own.
    ///
    /// # Errors
    /// When too many programs capture already, or the daemon cannot do it ([`Error::Unsupported`] when it is a reference
    /// daemon).
    pub async fn capture(&self, filter: Filter) -> Result<Capture, Error> {
        let client = self.reconnect().await?;
        client.call::<Done>(Call::Capture(filter)).await?;
        Ok(Capture { client })
    }
}

impl Capture {
    /// The next packets, as soon as there is one. What a call brings that is dropped before its end is lost.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn next(&self) -> Result<Packets, Error> {
        self.fetch(true).await
    }

    /// The packets that are there, which may be none. A call of [`next`](Self::next) that waits ends as well.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn ready(&self) -> Result<Packets, Error> {
        self.fetch(false).await
    }

    async fn fetch(&self, wait: bool) -> Result<Packets, Error> {
        let Answer::Packets(bytes) = self.client.order(&Request::Packets { wait }).await? else {
            return Err(Error::Protocol("a request for packets was answered by something else".into()));
        };
        capture::parse(&bytes).map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(Packets { bytes })
    }
}

impl Packets {
    /// How many there were since the capture began, and how many of them were lost.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.parsed().0
    }

    /// Each of them.
    #[must_use]
    pub fn records(&self) -> Vec<Record<'_>> {
        self.parsed().1
    }

    fn parsed(&self) -> (Counts, Vec<Record<'_>>) {
        // It was looked at when it came.
        capture::parse(&self.bytes).unwrap_or_default()
    }
}
