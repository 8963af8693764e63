//! Three agents in a chain that work on one document: each changes a paragraph and hands on, the last to the first.
//!
//! What is handed on is the whole document each time, or only what the next one does not know yet.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use pilot_client::{Client, Stream};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Error;
use super::document::{Document, Edit};
use super::job::now;
use super::ways::pilot::{PORT, frame, take};
use super::wire::{Http, PAUSE, serve};

/// Agents of the chain.
pub(crate) const AGENTS: u32 = 3;

/// How often the document is handed on.
pub(crate) const STEPS: u32 = 10;

/// An agent of the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its place; the first has 0.
    pub place: u32,
    /// What it hands on.
    pub handing: Handing,
    /// How it reaches the next.
    pub by: Passage,
}

/// What is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handing {
    /// The whole document each time.
    Whole,
    /// The whole document once, then what the next one does not know.
    Deltas,
}

/// How an agent reaches the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Passage {
    /// A request over HTTP, on a connection that stays open.
    Http {
        /// Where it listens.
        listen: SocketAddr,
        /// Where the next one listens.
        next: SocketAddr,
    },
    /// A stream that is held.
    Pilot {
        /// Its daemon's socket.
        socket: PathBuf,
        /// The next one's address.
        next: String,
    },
}

/// What an agent tells the one who measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// It can hand on.
    Ready,
    /// It is the last, and this was it.
    Done {
        /// Bytes of all that was handed on, as the agents wrote it.
        bytes: u64,
        /// Nanoseconds from the first step to the end.
        took: u64,
        /// The document is what the edits make of it.
        right: bool,
    },
}

/// What is handed on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pass {
    step: u32,
    /// When the first step began.
    begun: u64,
    /// Bytes handed on before.
    before: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edits: Vec<Edit>,
}

/// The agent's hold on its neighbours.
struct Neighbours {
    next: mpsc::Sender<Vec<u8>>,
    previous: mpsc::Receiver<Bytes>,
}

/// Plays an agent until the document is done. The first begins at a line on its standard input.
pub(crate) async fn run(member: Member) -> Result<(), Error> {
    let (told, previous) = mpsc::channel(1);
    let (next, said) = mpsc::channel(1);
    let neighbours = Neighbours { next, previous };
    match member.by.clone() {
        Passage::Http { listen, next } => {
            tokio::spawn(post_on(said, next));
            let routes = axum::Router::new().route("/pass", post(passed)).with_state(told);
            tokio::select! {
                served = serve(listen, routes) => served,
                done = work(&member, neighbours) => done,
            }
        }
        Passage::Pilot { socket, next } => {
            let client = Client::connect_to(&socket).await?;
            tokio::spawn(receive(client.listen(PORT).await?, told));
            let stream = loop {
                match client.dial_target(&next, PORT).await {
                    Ok(stream) => break stream,
                    // The next one may not listen yet; who measures does not wait for ever.
                    Err(_) => sleep(PAUSE).await,
                }
            };
            tokio::spawn(write_on(said, stream));
            work(&member, neighbours).await
        }
    }
}

async fn work(member: &Member, mut neighbours: Neighbours) -> Result<(), Error> {
    say(&Word::Ready).await?;
    let mut known = Known { document: (member.place == 0).then(Document::new), edits: Vec::new() };
    if member.place == 0 {
        BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await?;
        let body = known.step(member.handing, 0, now(), 0)?;
        neighbours.next.send(body).await.map_err(|_| Error::Ended("the next agent"))?;
    }
    while let Some(body) = neighbours.previous.recv().await {
        let pass: Pass = serde_json::from_slice(&body)?;
        let bytes = pass.before + body.len() as u64;
        let (step, begun) = (pass.step + 1, pass.begun);
        known.learn(pass);
        if step == STEPS {
            let right = known.document.as_ref() == Some(&finished());
            say(&Word::Done { bytes, took: now() - begun, right }).await?;
            continue;
        }
        let body = known.step(member.handing, step, begun, bytes)?;
        neighbours.next.send(body).await.map_err(|_| Error::Ended("the next agent"))?;
    }
    Ok(())
}

/// The document as it is after the last step.
fn finished() -> Document {
    let mut document = Document::new();
    for step in 0..STEPS {
        let edit = document.write(step);
        document.apply(&edit);
    }
    document
}

/// What an agent knows.
struct Known {
    document: Option<Document>,
    /// What was changed since the beginning, as far as it was told; never more than [`STEPS`].
    edits: Vec<Edit>,
}

impl Known {
    fn learn(&mut self, pass: Pass) {
        if pass.document.is_some() {
            self.document = pass.document;
        }
        for edit in pass.edits {
            if let Some(document) = &mut self.document {
                document.apply(&edit);
            }
            self.edits.push(edit);
        }
    }

    /// Changes the document, and writes what is handed on.
    fn step(&mut self, handing: Handing, step: u32, begun: u64, before: u64) -> Result<Vec<u8>, Error> {
        let document = self.document.as_mut().ok_or(Error::Ended("the document"))?;
        let edit = document.write(step);
        document.apply(&edit);
        self.edits.push(edit);
        // The next one has been there when the chain has gone round once; it knows what it wrote then.
        let goes_round = step + 1 >= AGENTS;
        let pass = match handing {
            Handing::Deltas if goes_round => {
                let news = self.edits.iter().filter(|edit| edit.step + AGENTS > step + 1);
                Pass { step, begun, before, document: None, edits: news.cloned().collect() }
            }
            Handing::Deltas => {
                // It will need what was changed before it came, to tell others of it.
                let document = self.document.clone();
                Pass { step, begun, before, document, edits: self.edits.clone() }
            }
            Handing::Whole => {
                Pass { step, begun, before, document: self.document.clone(), edits: Vec::new() }
            }
        };
        Ok(serde_json::to_vec(&pass)?)
    }
}

async fn say(word: &Word) -> Result<(), Error> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut out = tokio::io::stdout();
    out.write_all(&line).await?;
    Ok(out.flush().await?)
}

async fn post_on(mut said: mpsc::Receiver<Vec<u8>>, next: SocketAddr) {
    let (http, url) = (Http::new(), format!("http://{next}/pass"));
    while let Some(body) = said.recv().await {
        let body = Bytes::from(body);
        while http.post_bytes(&url, body.clone()).await.is_err() {
            sleep(PAUSE).await;
        }
    }
}

async fn passed(State(told): State<mpsc::Sender<Bytes>>, body: Bytes) -> StatusCode {
    match told.send(body).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::GONE,
    }
}

async fn write_on(mut said: mpsc::Receiver<Vec<u8>>, mut stream: Stream) {
    while let Some(body) = said.recv().await {
        let Ok(frame) = frame(&body) else { return };
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn receive(mut listener: pilot_client::Listener, told: mpsc::Sender<Bytes>) -> Result<(), Error> {
    let mut stream = listener.accept().await?;
    let mut buffer = BytesMut::with_capacity(16 << 10);
    while stream.read_buf(&mut buffer).await? > 0 {
        while let Some(body) = take(&mut buffer)? {
            told.send(body).await.map_err(|_| Error::Ended("the agent"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the chain in memory, and says how many bytes were handed on.
    fn play(handing: Handing) -> u64 {
        let mut agents: Vec<Known> = (0..AGENTS)
            .map(|place| Known { document: (place == 0).then(Document::new), edits: vec![] })
            .collect();
        let mut bytes = 0;
        for step in 0..STEPS {
            let body = agents[(step % AGENTS) as usize].step(handing, step, 0, bytes).unwrap();
            bytes += body.len() as u64;
            agents[((step + 1) % AGENTS) as usize].learn(serde_json::from_slice(&body).unwrap());
        }
        assert_eq!(agents[(STEPS % AGENTS) as usize].document, Some(finished()), "{handing:?}");
        bytes
    }

    #[test]
    fn both_ways_of_handing_on_make_the_same_document_and_deltas_are_a_fraction() {
        let (whole, deltas) = (play(Handing::Whole), play(Handing::Deltas));
        assert!(whole > 10 * 12_000, "{whole}");
        assert!(deltas < whole / 3, "{deltas} of {whole}");
    }
}
