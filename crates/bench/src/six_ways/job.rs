//! The job that every way does: A asks, B works and answers; then B has news for A.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Error;

/// Messages that a way may hold for its agent in each direction.
pub(crate) const HELD: usize = 64;

/// The longest time that an agent which returns may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so long an agent that has never been heard is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Text of a task, about what an agent asks another in one sentence or two.
const QUESTION: &str = "Read the report of the northern plant and say which of its machines stand still, since \
when, and what the plant wrote about the reason; then say what you would look at first and why, in two sentences.";

/// Text that an answer ends with, so that it has the length of a short paragraph.
const FINDINGS: &str = "Press 4 stands still since Tuesday, 14:20; the plant writes that its bearing ran hot and that \
the part is on its way. The conveyor behind it is slow for the same reason. I would look at the lubrication of press 4 \
first, because the log shows two warnings in the week before, and because press 6 has the same pump and the same age.";

/// Text of news.
const HAPPENED: &str = "Press 4 runs again since a minute ago; the bearing was changed.";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A asks.
    Task,
    /// B answers.
    Answer,
    /// B has news, unasked.
    News,
    /// The first news of a B that has just started.
    Back,
}

/// What the agents say to each other. Every way carries the same, most of them as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which round it belongs to.
    pub round: u32,
    /// When it came to be, in nanoseconds of the machine's clock: both agents are on one machine.
    pub at: u64,
    /// In a task: milliseconds between answer and news.
    pub pause: u32,
    /// What it says.
    pub text: String,
}

impl Message {
    fn new(kind: Kind, round: u32, pause: u32, text: String) -> Self {
        Self { kind, round, at: now(), pause, text }
    }
}

/// Both ends of a way's hold on its agent. The way's own tasks connect, and connect again.
#[derive(Debug)]
pub(crate) struct Link {
    /// What the agent says.
    pub out: mpsc::Sender<Message>,
    /// What it is told.
    pub incoming: mpsc::Receiver<Message>,
}

/// The way's ends of a [`Link`].
#[derive(Debug)]
pub(crate) struct Ends {
    /// What the agent says.
    pub said: mpsc::Receiver<Message>,
    /// What it is to be told.
    pub told: mpsc::Sender<Message>,
}

impl Link {
    /// A link, and the ends for the way's tasks.
    pub(crate) fn new() -> (Self, Ends) {
        let (out, said) = mpsc::channel(HELD);
        let (told, incoming) = mpsc::channel(HELD);
        (Self { out, incoming }, Ends { said, told })
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.out.send(message).await.map_err(|_| Error::Ended("the way"))
    }

    async fn expect(&mut self, kind: Kind, round: u32, patience: Duration) -> Result<Message, Error> {
        let wanted = async {
            loop {
                let message = self.incoming.recv().await.ok_or(Error::Ended("the way"))?;
                if message.kind == kind && message.round == round {
                    return Ok(message);
                }
            }
        };
        timeout(patience, wanted).await.map_err(|_| Error::Silent { kind, round, patience })?
    }
}

/// What the one who measures tells agent A, a line of JSON each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// So many rounds, with a random rest of up to so many milliseconds after each message.
    Rounds {
        /// How many.
        count: u32,
        /// The longest rest, in milliseconds.
        rest: u32,
        /// How long each message may take.
        patience: Duration,
    },
    /// Waits for the first news of a B that has just started.
    AwaitReturn,
}

/// What agent A reports, a line of JSON for each order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Of every round, in microseconds.
    Rounds {
        /// From the question to the answer.
        answers: Vec<f64>,
        /// From the event at B to its news at A.
        news: Vec<f64>,
    },
    /// B is back, at this nanosecond of the machine's clock.
    Returned(u64),
    /// It did not work.
    Failed(String),
}

/// Agent A: does what it is ordered to on its standard input, until that ends.
pub(crate) async fn ask(mut link: Link) -> Result<(), Error> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut reports = tokio::io::stdout();
    let mut chance = Chance::new(1);
    let (mut first, mut met) = (1, false);
    while let Some(line) = orders.next_line().await? {
        let done = match serde_json::from_str(&line)? {
            Order::Rounds { count, rest, patience } => match meet(&mut link, &mut met, patience).await {
                Ok(()) => rounds(&mut link, first..first + count, rest, patience, &mut chance).await,
                Err(error) => Err(error),
            },
            Order::AwaitReturn => link.expect(Kind::Back, 0, PATIENCE).await.map(|_| Report::Returned(now())),
        };
        // Numbers are not used twice: what comes late is not taken for something else.
        first += 1_000;
        let report = done.unwrap_or_else(|error| Report::Failed(error.to_string()));
        let mut line = serde_json::to_vec(&report)?;
        line.push(b'\n');
        reports.write_all(&line).await?;
        reports.flush().await?;
    }
    Ok(())
}

/// Asks until there is an answer, the first time: what is said before the other is there may be lost.
pub(super) async fn meet(link: &mut Link, met: &mut bool, patience: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    while !*met {
        link.send(Message::new(Kind::Task, 0, 0, QUESTION.to_owned())).await?;
        match link.expect(Kind::Answer, 0, ASK_AGAIN).await {
            Ok(_) => *met = true,
            Err(Error::Silent { .. }) if begun.elapsed() < patience => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has the job done once for each number, which is not 0.
pub(super) async fn rounds(
    link: &mut Link,
    rounds: std::ops::Range<u32>,
    rest: u32,
    patience: Duration,
    chance: &mut Chance,
) -> Result<Report, Error> {
    let (mut answers, mut news) = (Vec::new(), Vec::new());
    for round in rounds {
        let task = Message::new(Kind::Task, round, chance.below(rest), QUESTION.to_owned());
        let asked = task.at;
        link.send(task).await?;
        link.expect(Kind::Answer, round, patience).await?;
        answers.push(microseconds(now() - asked));
        let message = link.expect(Kind::News, round, patience).await?;
        news.push(microseconds(now() - message.at));
        sleep(Duration::from_millis(chance.below(rest).into())).await;
    }
    Ok(Report::Rounds { answers, news })
}

/// Agent B: works for ever. One that `returns` from a restart has news at once.
pub(crate) async fn work(mut link: Link, returns: bool) -> Result<(), Error> {
    if returns {
        link.send(Message::new(Kind::Back, 0, 0, HAPPENED.to_owned())).await?;
    }
    while let Some(task) = link.incoming.recv().await {
        if task.kind != Kind::Task {
            continue;
        }
        let words = task.text.split_whitespace().count();
        let answer = format!("To your question of {words} words: {FINDINGS}");
        link.send(Message::new(Kind::Answer, task.round, 0, answer)).await?;
        sleep(Duration::from_millis(task.pause.into())).await;
        link.send(Message::new(Kind::News, task.round, 0, HAPPENED.to_owned())).await?;
    }
    Ok(())
}

/// Nanoseconds of the machine's clock, the same in all its processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "times of seconds are exact to the microsecond in a float")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1_000.0
}

/// Numbers that look like chance and are the same in every run (xorshift).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The numbers that belong to `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(((self.0 >> 32) * u64::from(end)) >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_below_its_end_and_comes_near_to_both_ends() {
        let mut chance = Chance::new(1);
        let drawn: Vec<u32> = (0..1_000).map(|_| chance.below(20)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&19)));
        assert_eq!(chance.below(0), 0);
    }

    #[tokio::test]
    async fn what_does_not_come_in_time_is_an_error_that_names_it() {
        let (mut link, _ends) = Link::new();
        let failed = link.expect(Kind::Answer, 3, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(failed.to_string(), "no Answer of round 3 within 1ms");
    }
}
