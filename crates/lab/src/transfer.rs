//! A long transfer between two nodes whose every byte is looked at, and how long it stood still.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use pilot_interop::{Node, PATIENCE};

/// Port that the receiver listens on.
const PORT: &str = "1000";

/// Bytes per read and write.
const CHUNK: usize = 64 << 10;

/// Bytes per second that are offered. A transfer must last longer than it takes to change the network around it, also
/// on a machine with much else to do.
const RATE: u64 = 32 << 20;

/// After so many bytes the content repeats. No power of two, so that what comes twice or not at all does not fit.
const PERIOD: usize = 1_000_003;

/// Pause between two looks at the progress.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A transfer under way: `pilotctl connect` at one node, `pilotctl recv` at the other.
#[derive(Debug)]
pub struct Transfer {
    sender: Child,
    receiver: Child,
    progress: Arc<Mutex<Progress>>,
    feeding: JoinHandle<bool>,
    reading: JoinHandle<Result<u64, u64>>,
    bytes: u64,
}

#[derive(Debug)]
struct Progress {
    bytes: u64,
    last: Instant,
    interruption: Option<Interruption>,
}

/// The longest time that nothing came.
#[derive(Clone, Copy, Debug)]
pub struct Interruption {
    from: Instant,
    to: Instant,
    /// When the network worked again.
    back: Option<Instant>,
}

impl Interruption {
    /// How long nothing came.
    pub fn length(self) -> Duration {
        self.to - self.from
    }

    /// How long it lasted after the network worked again.
    pub fn after_the_network(self) -> Duration {
        self.back.map_or(Duration::ZERO, |back| self.to.saturating_duration_since(back.max(self.from)))
    }
}

impl Transfer {
    /// Starts sending so many megabytes (of 2^20 bytes).
    #[track_caller]
    pub fn start(from: &Node, to: &Node, megabytes: u64) -> Self {
        Self::start_at(RATE, from, to, megabytes)
    }

    /// As [`start`](Self::start), but no more than so many bytes per second are offered.
    #[track_caller]
    pub fn start_at(rate: u64, from: &Node, to: &Node, megabytes: u64) -> Self {
        let bytes = megabytes << 20;
        let content = Arc::new(content());
        let mut receiver = spawn(to, &["recv", PORT], Stdio::null());
        // It says when it listens.
        let mut notes = receiver.stderr.take().expect("standard error is a pipe");
        let listening = notes.read(&mut [0; 256]).expect("the receiver speaks");
        assert!(listening > 0, "the receiver has ended");
        let mut sender = spawn(from, &["connect", &to.address(), PORT], Stdio::piped());
        let progress = Arc::new(Mutex::new(Progress { bytes: 0, last: Instant::now(), interruption: None }));

        let mut input = sender.stdin.take().expect("the input is a pipe");
        let fed = Arc::clone(&content);
        let feeding = thread::spawn(move || feed(&mut input, &fed, bytes, rate));
        let mut output = receiver.stdout.take().expect("the output is a pipe");
        let seen = Arc::clone(&progress);
        let reading = thread::spawn(move || compare(&mut output, &content, &seen));
        Self { sender, receiver, progress, feeding, reading, bytes }
    }

    /// Waits until so many megabytes have come.
    #[track_caller]
    pub fn reaches(&mut self, megabytes: u64) {
        let begin = Instant::now();
        while self.with_progress(|progress| progress.bytes) < megabytes << 20 {
            let came = self.with_progress(|progress| progress.bytes);
            assert!(begin.elapsed() < PATIENCE, "{came} bytes came, then no more");
            assert!(self.is_running(), "the transfer has ended after {came} bytes");
            sleep(LOOK_AGAIN);
        }
    }

    /// Begins to look for interruptions.
    pub fn watch(&self) {
        self.with_progress(|progress| {
            let now = Instant::now();
            progress.last = now;
            progress.interruption = Some(Interruption { from: now, to: now, back: None });
        });
    }

    /// The longest interruption since [`watch`](Self::watch), which starts anew.
    pub fn watch_again(&self) -> Interruption {
        let seen = self.with_progress(|progress| progress.interruption);
        self.watch();
        seen.expect("the transfer was watched")
    }

    /// The megabytes that have come.
    pub fn megabytes(&self) -> u64 {
        self.with_progress(|progress| progress.bytes) >> 20
    }

    /// Notes that the network works again.
    #[track_caller]
    pub fn network_is_back(&self) {
        let came = self.with_progress(|progress| progress.bytes);
        assert!(came < self.bytes, "the transfer was over before it could be disturbed");
        self.with_progress(|progress| {
            if let Some(interruption) = &mut progress.interruption {
                interruption.back = Some(Instant::now());
            }
        });
    }

    /// Waits for the end. Everything must have come as it was sent. Says what the longest interruption was.
    #[track_caller]
    pub fn finish(mut self) -> Interruption {
        let begin = Instant::now();
        while !self.reading.is_finished() {
            let came = self.with_progress(|progress| progress.bytes);
            assert!(begin.elapsed() < 2 * PATIENCE, "{came} of {} bytes came, then no more", self.bytes);
            sleep(LOOK_AGAIN);
        }
        let interruption = self.with_progress(|progress| progress.interruption);
        let reading = std::mem::replace(&mut self.reading, thread::spawn(|| Ok(0)));
        let came = reading.join().expect("reading does not panic");
        assert_eq!(came, Ok(self.bytes), "`Err` is the place of the first byte that is another one");
        interruption.expect("the transfer was watched")
    }

    fn is_running(&mut self) -> bool {
        !self.feeding.is_finished() || self.receiver.try_wait().is_ok_and(|status| status.is_none())
    }

    fn with_progress<T>(&self, look: impl FnOnce(&mut Progress) -> T) -> T {
        look(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        for child in [&mut self.sender, &mut self.receiver] {
            // It has ended by itself, or it ends here; the threads that hold its pipes end with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, after) = (self.length(), self.after_the_network());
        write!(f, "longest gap {length:.0?}, {after:.0?} of it after the event")
    }
}

#[track_caller]
fn spawn(node: &Node, words: &[&str], input: Stdio) -> Child {
    let mut command = node.command(words);
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|error| panic!("{words:?} does not start: {error}"))
}

/// Writes the content into the pipe; whether all of it was taken.
fn feed(input: &mut impl Write, content: &[u8], bytes: u64, rate: u64) -> bool {
    let mut place = 0;
    let begin = Instant::now();
    while place < bytes {
        let due = Duration::from_micros(place * 1_000_000 / rate);
        sleep(due.saturating_sub(begin.elapsed()));
        let piece = at(content, place);
        let piece = &piece[..piece.len().min(usize::try_from(bytes - place).unwrap_or(usize::MAX))];
        if input.write_all(piece).is_err() {
            return false;
        }
        place += piece.len() as u64;
    }
    true
}

/// Reads the pipe to its end and returns how many bytes came, or where the first wrong one is.
fn compare(output: &mut impl Read, content: &[u8], progress: &Mutex<Progress>) -> Result<u64, u64> {
    let mut place = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let expected = at(content, place);
        let Ok(count @ 1..) = output.read(&mut buffer[..expected.len()]) else { return Ok(place) };
        if buffer[..count] != expected[..count] {
            return Err(place);
        }
        place += count as u64;
        let now = Instant::now();
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let from = progress.last;
        progress.bytes = place;
        progress.last = now;
        if let Some(longest) = progress.interruption.as_mut().filter(|longest| now - from > longest.length())
        {
            (longest.from, longest.to) = (from, now);
        }
    }
}

/// The content from a place on, at most a chunk of it.
fn at(content: &[u8], place: u64) -> &[u8] {
    let start = usize::try_from(place % PERIOD as u64).unwrap_or_default();
    &content[start..PERIOD.min(start + CHUNK)]
}

fn content() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(PERIOD).collect()
}
