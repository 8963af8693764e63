//! What the process takes of the machine, where the system tells.

use std::{fs, time::Duration};

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Resident memory in bytes.
    pub(super) memory: Option<u64>,
    /// Processor time so far.
    pub(super) cpu: Option<Duration>,
    /// Open descriptors.
    pub(super) descriptors: Option<u64>,
}

/// Of a second; Linux promises it to programs.
const TICKS: u64 = 100;

impl Process {
    pub(super) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self {
            memory: resident(&status),
            cpu: cpu(&stat),
            // One of them is the folder that is being read.
            descriptors: descriptors.and_then(|count| u64::try_from(count).ok()?.checked_sub(1)),
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name before the last parenthesis may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1000 / TICKS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!((resident(""), cpu("")), (None, None));
    }
}
