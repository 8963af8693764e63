//! What the process takes of the machine, where the system tells (Linux).

use std::{fmt, fs};

use crate::Out;

/// What the process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory in bytes.
    pub memory: Option<u64>,
    /// Processor time so far, in seconds.
    pub cpu: Option<f64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// How many may be open.
    pub descriptors_max: Option<u64>,
}

/// Of a second; Linux promises it to programs.
const TICKS: f64 = 100.0;

impl Process {
    /// Asks the system. What it does not tell is left out.
    #[must_use]
    pub fn look() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self {
            memory: resident(&read("status")),
            cpu: cpu(&read("stat")),
            // One of them is the folder that is being read.
            descriptors: descriptors.and_then(|count| u64::try_from(count).ok()?.checked_sub(1)),
            descriptors_max: open_files(&read("limits")),
        }
    }

    /// Writes it down, under the names that Prometheus knows.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn encode(&self, out: &mut Out<'_>) -> fmt::Result {
        if let Some(memory) = self.memory {
            out.gauge("process_resident_memory_bytes", "Memory of the process", memory)?;
        }
        if let Some(cpu) = self.cpu {
            out.float_counter("process_cpu_seconds", "Processor time of the process", cpu)?;
        }
        if let Some(descriptors) = self.descriptors {
            out.gauge("process_open_fds", "Open descriptors of the process", descriptors)?;
        }
        if let Some(max) = self.descriptors_max {
            out.gauge("process_max_fds", "Descriptors that the process may have open", max)?;
        }
        Ok(())
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn cpu(stat: &str) -> Option<f64> {
    // The name before the last parenthesis may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + system) / TICKS)
}

fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu(stat), Some(2.0));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!((resident(""), cpu(""), open_files("")), (None, None, None));
    }
}
