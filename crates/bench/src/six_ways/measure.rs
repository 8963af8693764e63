//! What is measured, in which order.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use pilot_lab::Access;

use super::Error;
use super::relay::{self, Chained};
use super::scene::{Scene, Used};
use super::tables;
use super::way::Way;
use crate::report::Table;

/// How long it takes from every machine to every other one, one way.
pub(crate) const DISTANCE: Duration = Duration::from_millis(10);

/// Rounds that are not counted: connections are made and caches are filled.
const WARM_UP: u32 = 5;

/// The longest rest after each message of a round, in milliseconds; who polls rests up to its period.
const REST: u32 = 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a way is given to work where it may not work.
const PATIENCE_WITH_REACH: Duration = Duration::from_secs(5);

/// How long Pilot is given to find its path, and the pause between two looks.
const SETTLES: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds of a way that does not poll.
    rounds: u32,
    /// Rounds of a way that polls.
    polled: u32,
    /// How long nothing is said.
    rest: Duration,
    /// Restarts.
    restarts: u32,
}

impl Plan {
    /// For figures that are shown to others.
    pub(crate) const FULL: Self = Self { rounds: 60, polled: 12, rest: Duration::from_secs(60), restarts: 5 };

    /// To see that it works.
    pub(crate) const QUICK: Self = Self { rounds: 5, polled: 1, rest: Duration::from_secs(5), restarts: 1 };
}

/// What was found about a way, as far as it could be measured.
pub(crate) struct Found {
    /// Which way.
    pub way: Way,
    /// What was measured, or why not.
    pub measured: Result<Measured, String>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The path of Pilot's frames.
    pub path: Option<pilot_lab::Way>,
    /// From question to answer, in microseconds.
    pub answers: Vec<f64>,
    /// From event to news, in microseconds.
    pub news: Vec<f64>,
    /// What the rounds used.
    pub used: Used,
    /// What rest used.
    pub rest: Used,
    /// Milliseconds until B was back after a restart of the agent.
    pub returns: Vec<f64>,
    /// The same after a restart of the agent and its daemon.
    pub returns_with_daemon: Vec<f64>,
}

impl Measured {
    /// Messages that were of use in the rounds: task, answer and news of each.
    pub(crate) fn messages(&self) -> u64 {
        3 * self.answers.len() as u64
    }
}

/// Where a protocol works with nothing opened in any router.
pub(crate) struct Reach {
    /// One way of the protocol.
    pub way: Way,
    /// In each of [`NETWORKS`]: the path of Pilot, if it is Pilot.
    pub works: Vec<Result<Option<pilot_lab::Way>, String>>,
}

/// What A and B are behind.
pub(crate) const NETWORKS: [[Access; 2]; 3] = [
    [Access::Public, Access::PortRestricted],
    [Access::PortRestricted, Access::PortRestricted],
    [Access::Symmetric, Access::Symmetric],
];

/// A scene that runs, and what was measured in it.
struct Stand {
    scene: Scene,
    measured: Measured,
}

/// Measures everything.
pub(crate) fn all(plan: &Plan) -> Result<Vec<Table>, Error> {
    let begun = Instant::now();
    let say = |what: &str| eprintln!("{:>4.0} s  {what}", begun.elapsed().as_secs_f64());
    say("the ways are built up");
    let (delay, far) = match open(&Way::ALL, Some(DISTANCE)) {
        Ok(far) => (Some(DISTANCE), far),
        Err(error @ Error::NoDistance(_)) => {
            say(&format!("{error}; all machines are side by side"));
            (None, open(&Way::ALL, None)?)
        }
        Err(error) => return Err(error),
    };
    let (mut polling, mut held): (Vec<_>, Vec<_>) =
        far.into_iter().partition(|(way, _)| way.period().is_some());
    say("rounds of polling; reach and the chain meanwhile");
    let (reach, chain) = scope(|threads| {
        for stand in &mut polling {
            threads.spawn(|| rounds(stand, plan.polled));
        }
        // Polls are seconds apart: what else the machine does makes no difference to them.
        (reach(), relay::all())
    });
    say("rounds of the others");
    held.iter_mut().for_each(|stand| rounds(stand, plan.rounds));
    say("rest");
    let mut stands: Vec<_> = polling.into_iter().chain(held).collect();
    rest(&mut stands, plan.rest);
    say("restarts");
    scope(|threads| {
        let (polling, held): (Vec<_>, Vec<_>) =
            stands.iter_mut().partition(|(way, _)| way.period().is_some());
        for stand in polling {
            threads.spawn(|| restarts(stand, plan.restarts));
        }
        held.into_iter().for_each(|stand| restarts(stand, plan.restarts));
    });
    let far: Vec<Found> = stands.into_iter().map(found).collect();
    say("rounds side by side");
    let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| way.period().is_none()).collect();
    let mut near = open(&ways, None)?;
    near.iter_mut().for_each(|stand| rounds(stand, plan.rounds));
    let near: Vec<Found> = near.into_iter().map(found).collect();
    say("done");
    let chain: Result<Vec<Chained>, Error> = chain;
    Ok(tables::all(delay, plan.rest, &far, &near, &reach, &chain?))
}

/// Opens the ways with what they need opened. One that cannot be measured here says why.
#[expect(clippy::type_complexity, reason = "the list is looked through here alone")]
fn open(ways: &[Way], delay: Option<Duration>) -> Result<Vec<(Way, Result<Stand, String>)>, Error> {
    let mut stands = Vec::new();
    for &way in ways {
        let stand = match Scene::open(way, [way.access(); 2], true, delay) {
            Ok(scene) => Ok(Stand { scene, measured: Measured::default() }),
            Err(error @ Error::NoDistance(_)) => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        stands.push((way, stand));
    }
    Ok(stands)
}

fn found((way, stand): (Way, Result<Stand, String>)) -> Found {
    Found { way, measured: stand.map(|stand| stand.measured) }
}

/// Does something with a stand; one that fails is not measured any further.
fn with(stand: &mut (Way, Result<Stand, String>), work: impl FnOnce(&mut Stand) -> Result<(), Error>) {
    let (way, result) = stand;
    if let Ok(running) = result
        && let Err(error) = work(running)
    {
        eprintln!("        {way}: {error}");
        *result = Err(error.to_string());
    }
}

fn rounds(stand: &mut (Way, Result<Stand, String>), count: u32) {
    with(stand, |Stand { scene, measured }| {
        let period = scene.way().period().map(|period| u32::try_from(period.as_millis()).unwrap_or(REST));
        let (warm_up, pause) = period.map_or((WARM_UP, REST), |period| (1, period));
        scene.rounds(warm_up, 0, PATIENCE)?;
        measured.path = settled(scene);
        let before = scene.used();
        (measured.answers, measured.news) = scene.rounds(count, pause, PATIENCE)?;
        measured.used = scene.used().since(before);
        Ok(())
    });
}

/// The path of Pilot when it is the one that this way is about, or the time for it is over.
fn settled(scene: &Scene) -> Option<pilot_lab::Way> {
    let expected = match scene.way() {
        Way::PilotDirect => pilot_lab::Way::Direct,
        Way::PilotRelayed => pilot_lab::Way::Relay,
        Way::Polling(_) | Way::Webhook | Way::WebSocket | Way::Mqtt | Way::Grpc => return None,
    };
    let begun = Instant::now();
    loop {
        let path = scene.path();
        if path == Some(expected) || begun.elapsed() > SETTLES {
            return path;
        }
        sleep(LOOK_AGAIN);
    }
}

/// Lets all ways be for a while, at the same time.
fn rest(stands: &mut [(Way, Result<Stand, String>)], span: Duration) {
    let scenes = || stands.iter().map(|(_, stand)| stand.as_ref().ok().map(|stand| stand.scene.used()));
    let before: Vec<_> = scenes().collect();
    sleep(span);
    let after: Vec<_> = scenes().collect();
    for ((_, stand), (before, after)) in stands.iter_mut().zip(before.into_iter().zip(after)) {
        if let (Ok(stand), Some(before), Some(after)) = (stand, before, after) {
            stand.measured.rest = after.since(before);
        }
    }
}

fn restarts(stand: &mut (Way, Result<Stand, String>), count: u32) {
    with(stand, |Stand { scene, measured }| {
        for number in 0..count {
            if let Some(period) = scene.way().period() {
                // Not in step with the polls: steps of the golden ratio are spread over the period.
                sleep(period.mul_f64((f64::from(number) * 0.618).fract()));
            }
            measured.returns.push(scene.restart(false)?);
            if scene.way().is_pilot() {
                measured.returns_with_daemon.push(scene.restart(true)?);
            }
        }
        Ok(())
    });
}

/// Tries each protocol in each network.
fn reach() -> Vec<Reach> {
    let tried = |way: Way| {
        let works = NETWORKS.map(|access| {
            let mut scene = Scene::open(way, access, false, None).map_err(|error| error.to_string())?;
            scene.rounds(1, 0, PATIENCE_WITH_REACH).map_err(|error| error.to_string())?;
            Ok(scene.path())
        });
        Reach { way, works: works.into() }
    };
    scope(|threads| {
        let tries = Way::PROTOCOLS.map(|way| threads.spawn(move || tried(way)));
        tries.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).into()
    })
}
