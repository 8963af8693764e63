//! Which messages wait for which hook, when each is tried next, and when it is given up. Decides only; what it decides
//! is written down and carried out by others.
//!
//! The inbox itself is the queue: of each hook a place in it is kept, and only a window behind that place is looked at
//! more closely. However many messages wait, this stays small.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Messages of one hook that are looked at more closely. Beyond, its place in the inbox stays where it is.
pub(super) const WINDOW: usize = 100;

/// First pause after a failure; doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A message is given up when it has been tried for so long.
pub(super) const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// A hook's number, and a message's time of arrival.
pub(super) type Key = (u64, u64);

/// A message that waits for a hook, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// Its name in the inbox.
    pub(super) message: String,
    /// Tries that failed.
    pub(super) failures: u32,
    /// When it failed first (before that, when it was seen first), nanoseconds since 1970; later by the time it was held back
    /// since.
    pub(super) since_ns: u64,
}

/// How a hook fared, as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Its place in the inbox: everything up to this time of arrival was looked at.
    pub(super) place_ns: u64,
    pub(super) done: u64,
    /// Of those that are done, how many the rules let no program answer.
    #[serde(default)]
    pub(super) skipped: u64,
    pub(super) failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<String>,
    /// Which message was skipped last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_skip: Option<String>,
    /// Why the rules hold messages back, if no try has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<String>,
}

/// What has to be written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// `None`: it is gone.
    pub(super) jobs: Vec<(Key, Option<Job>)>,
    /// `None`: the hook is gone.
    pub(super) accounts: Vec<(u64, Option<Account>)>,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// It may be tried again.
    Failed(String),
    /// It cannot be tried again: the message is gone.
    Gone,
    /// The rules let nothing be done about it for so long. That is no failure.
    Held(Duration, String),
    /// The rules let nothing be done about it.
    Skipped(String),
}

/// Now, by the clock that goes on and by the one on the wall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall_ns: u64,
}

#[derive(Debug)]
struct Waiting {
    job: Job,
    /// `None` while it is being tried.
    next: Option<Instant>,
}

/// All hooks' messages.
#[derive(Debug, Default)]
pub(super) struct Queue {
    accounts: BTreeMap<u64, Account>,
    waiting: BTreeMap<Key, Waiting>,
}

impl Queue {
    /// Takes over what was written down; everything is due at once.
    pub(super) fn restore(accounts: Vec<(u64, Account)>, jobs: Vec<(Key, Job)>, now: Now) -> Self {
        let jobs = jobs.into_iter().map(|(key, job)| (key, Waiting { job, next: Some(now.instant) }));
        Self { accounts: accounts.into_iter().collect(), waiting: jobs.collect() }
    }

    /// A new hook, for what arrives from here on.
    pub(super) fn add(&mut self, hook: u64, place_ns: u64) -> Changes {
        let account = Account { place_ns, ..Account::default() };
        self.accounts.insert(hook, account.clone());
        Changes { accounts: vec![(hook, Some(account))], ..Changes::default() }
    }

    /// Forgets a hook and what waits for it.
    pub(super) fn remove(&mut self, hook: u64) -> Changes {
        self.accounts.remove(&hook);
        let keys: Vec<Key> = self.waiting.range((hook, 0)..=(hook, u64::MAX)).map(|(key, _)| *key).collect();
        let mut changes = Changes { accounts: vec![(hook, None)], ..Changes::default() };
        for key in keys {
            self.waiting.remove(&key);
            changes.jobs.push((key, None));
        }
        changes
    }

    /// All hooks that are known here.
    pub(super) fn hooks(&self) -> impl Iterator<Item = u64> + '_ {
        self.accounts.keys().copied()
    }

    /// Everything, to be written anew.
    pub(super) fn everything(&self) -> Changes {
        Changes {
            jobs: self.waiting.iter().map(|(key, waiting)| (*key, Some(waiting.job.clone()))).collect(),
            accounts: self.accounts.iter().map(|(hook, account)| (*hook, Some(account.clone()))).collect(),
        }
    }

    pub(super) fn account(&self, hook: u64) -> Option<&Account> {
        self.accounts.get(&hook)
    }

    /// Messages that wait for a hook or are being tried.
    pub(super) fn pending(&self, hook: u64) -> usize {
        self.waiting.range((hook, 0)..=(hook, u64::MAX)).count()
    }

    /// From where the inbox is to be looked at for a hook; `None` while its window is full.
    pub(super) fn wants_from(&self, hook: u64) -> Option<u64> {
        let place = self.accounts.get(&hook)?.place_ns;
        (self.pending(hook) < WINDOW).then_some(place)
    }

    /// The inbox was looked at up to `place_ns`; these messages are for the hook, by time of arrival.
    pub(super) fn found(
        &mut self,
        hook: u64,
        messages: Vec<(u64, String)>,
        place_ns: u64,
        now: Now,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some(account) = self.accounts.get_mut(&hook) else { return changes };
        account.place_ns = place_ns;
        changes.accounts.push((hook, Some(account.clone())));
        for (arrived_ns, message) in messages {
            let job = Job { message, failures: 0, since_ns: now.wall_ns };
            changes.jobs.push(((hook, arrived_ns), Some(job.clone())));
            self.waiting.insert((hook, arrived_ns), Waiting { job, next: Some(now.instant) });
        }
        changes
    }

    /// Takes the next message that is due, the one that arrived first before others. `may` says which hooks can have
    /// one tried at present.
    pub(super) fn take_due(&mut self, now: Now, may: impl Fn(u64) -> bool) -> Option<(Key, Job)> {
        let due = |(key, waiting): &(&Key, &mut Waiting)| {
            waiting.next.is_some_and(|next| next <= now.instant) && may(key.0)
        };
        let (key, waiting) = self.waiting.iter_mut().filter(due).min_by_key(|(key, _)| key.1)?;
        waiting.next = None;
        Some((*key, waiting.job.clone()))
    }

    /// When the next message is due.
    pub(super) fn next_due(&self, may: impl Fn(u64) -> bool) -> Option<Instant> {
        self.waiting.iter().filter(|(key, _)| may(key.0)).filter_map(|(_, waiting)| waiting.next).min()
    }

    /// A try has ended.
    pub(super) fn ended(&mut self, key: Key, ending: Ending, now: Now) -> Changes {
        let mut changes = Changes::default();
        let Some(account) = self.accounts.get_mut(&key.0) else { return changes };
        let Some(waiting) = self.waiting.get_mut(&key) else { return changes };
        let before = account.clone();
        let is_over = match ending {
            Ending::Done => {
                account.done += 1;
                account.last_error = None;
                account.held = None;
                true
            }
            Ending::Skipped(reason) => {
                account.done += 1;
                account.skipped += 1;
                account.last_skip = Some(format!("{}: {reason}", waiting.job.message));
                true
            }
            Ending::Held(pause, reason) => {
                account.held = Some(reason);
                waiting.next = Some(now.instant + pause);
                let held_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                waiting.job.since_ns = waiting.job.since_ns.saturating_add(held_ns);
                // What is held back again and again for one reason is written down once.
                if *account != before {
                    changes.accounts.push((key.0, Some(account.clone())));
                }
                return changes;
            }
            Ending::Gone => {
                account.failed += 1;
                account.last_error =
                    Some("the message was removed from the inbox before its turn".to_owned());
                true
            }
            Ending::Failed(reason) => {
                account.last_error = Some(reason);
                if waiting.job.failures == 0 {
                    waiting.job.since_ns = now.wall_ns;
                }
                waiting.job.failures = waiting.job.failures.saturating_add(1);
                let tried_ns = now.wall_ns.saturating_sub(waiting.job.since_ns);
                let is_over = Duration::from_nanos(tried_ns) >= GIVE_UP;
                account.failed += u64::from(is_over);
                is_over
            }
        };
        changes.accounts.push((key.0, Some(account.clone())));
        if is_over {
            self.waiting.remove(&key);
            changes.jobs.push((key, None));
        } else {
            waiting.next = Some(now.instant + pause(waiting.job.failures));
            changes.jobs.push((key, Some(waiting.job.clone())));
        }
        changes
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        queue: Queue,
        now: Now,
    }

    impl World {
        fn with_hook() -> Self {
            let mut queue = Queue::default();
            queue.add(1, 10);
            Self { queue, now: Now { instant: Instant::now(), wall_ns: 1_000 } }
        }

        fn pass(&mut self, time: Duration) {
            self.now.instant += time;
            self.now.wall_ns += u64::try_from(time.as_nanos()).unwrap();
        }

        fn arrive(&mut self, hook: u64, at: u64) {
            self.queue.found(hook, vec![(at, format!("TEXT-{at}"))], at, self.now);
        }

        fn due(&mut self) -> Option<u64> {
            self.queue.take_due(self.now, |_| true).map(|(key, _)| key.1)
        }

        fn fail(&mut self, at: u64) -> Changes {
            self.queue.ended((1, at), Ending::Failed("no".into()), self.now)
        }
    }

    #[test]
    fn messages_are_taken_in_the_order_in_which_they_arrived_and_each_by_one() {
        let mut world = World::with_hook();
        world.queue.add(2, 10);
        world.arrive(1, 13);
        world.arrive(2, 11);
        world.arrive(1, 12);
        let order: Vec<_> = std::iter::from_fn(|| world.due()).collect();
        assert_eq!(order, [11, 12, 13]);
    }

    #[test]
    fn a_failure_is_tried_again_with_pauses_that_grow_to_five_minutes() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            assert_eq!(world.due(), Some(11));
            world.fail(11);
            assert_eq!(world.due(), None);
            let next = world.queue.next_due(|_| true).unwrap();
            let pause = next - world.now.instant;
            pauses.push(pause.as_secs());
            world.pass(pause);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn after_a_day_a_message_is_given_up_and_said_to_be() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        world.due();
        world.fail(11);
        world.pass(GIVE_UP);
        world.due();
        let changes = world.fail(11);
        assert_eq!(changes.jobs, [((1, 11), None)]);
        let account = world.queue.account(1).unwrap();
        assert_eq!((account.failed, account.last_error.as_deref()), (1, Some("no")));
        assert_eq!(world.queue.pending(1), 0);
    }

    #[test]
    fn a_success_wipes_the_last_error() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        world.due();
        world.fail(11);
        world.pass(Duration::from_secs(1));
        world.due();
        world.queue.ended((1, 11), Ending::Done, world.now);
        let account = world.queue.account(1).unwrap();
        assert_eq!((account.done, account.failed, account.last_error.as_ref()), (1, 0, None));
    }

    #[test]
    fn what_is_held_back_waits_as_long_as_it_is_told_and_counts_as_no_failure() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        for round in 0..3 {
            assert_eq!(world.due(), Some(11), "{round}");
            let held = Ending::Held(Duration::from_secs(7), "busy".into());
            let changes = world.queue.ended((1, 11), held, world.now);
            assert_eq!((changes.jobs.len(), changes.accounts.len()), (0, usize::from(round == 0)));
            assert_eq!(world.queue.next_due(|_| true), Some(world.now.instant + Duration::from_secs(7)));
            assert_eq!(world.due(), None);
            world.pass(GIVE_UP);
        }
        assert_eq!(world.queue.pending(1), 1, "and it is not given up");
        world.due();
        let changes = world.fail(11);
        assert!(matches!(&changes.jobs[..], [((1, 11), Some(job))] if job.failures == 1), "{changes:?}");
    }

    #[test]
    fn what_is_skipped_is_done_and_said_to_be_skipped() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        world.due();
        let changes = world.queue.ended((1, 11), Ending::Skipped("too far".into()), world.now);
        assert_eq!(changes.jobs, [((1, 11), None)]);
        let account = world.queue.account(1).unwrap();
        assert_eq!((account.done, account.skipped, account.failed), (1, 1, 0));
        assert_eq!(account.last_skip.as_deref(), Some("TEXT-11: too far"));
    }

    #[test]
    fn a_full_window_leaves_the_rest_in_the_inbox() {
        let mut world = World::with_hook();
        for at in 0..WINDOW as u64 {
            assert_eq!(world.queue.wants_from(1), Some(if at == 0 { 10 } else { 10 + at }));
            world.arrive(1, 11 + at);
        }
        assert_eq!(world.queue.wants_from(1), None);
        let first = world.due().unwrap();
        world.queue.ended((1, first), Ending::Done, world.now);
        assert_eq!(world.queue.wants_from(1), Some(10 + WINDOW as u64));
    }

    #[test]
    fn what_was_being_tried_when_the_process_ended_is_due_again() {
        let mut world = World::with_hook();
        let changes = world.queue.found(1, vec![(11, "TEXT-11".into())], 11, world.now);
        world.due();
        let jobs = changes.jobs.into_iter().filter_map(|(key, job)| Some((key, job?))).collect();
        let accounts =
            changes.accounts.into_iter().filter_map(|(hook, account)| Some((hook, account?))).collect();
        world.queue = Queue::restore(accounts, jobs, world.now);
        assert_eq!(world.due(), Some(11));
        assert_eq!(world.queue.wants_from(1), Some(11), "and nothing is looked at twice");
    }

    #[test]
    fn a_hook_that_is_removed_takes_its_messages_along() {
        let mut world = World::with_hook();
        world.arrive(1, 11);
        world.due();
        assert_eq!(world.queue.remove(1).jobs, [((1, 11), None)]);
        assert_eq!(world.queue.ended((1, 11), Ending::Done, world.now), Changes::default());
    }
}
