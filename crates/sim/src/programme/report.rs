//! A report as a table, and as JSON.

use std::{fmt, time::Duration};

use super::{Failure, Report, Times};

impl Report {
    /// Troubles of long worlds and mishaps of short ones.
    pub fn faults(&self) -> u64 {
        let troubles = self.recoveries.values().map(|times| times.took.len() as u64).sum::<u64>();
        troubles + self.mishaps.values().sum::<u64>()
    }

    /// One JSON document.
    pub fn json(&self) -> String {
        let recoveries = self.recoveries.iter().map(|(name, times)| {
            let (median, longest) = middle_and_end(&times.took);
            let (count, name, limit) = (times.took.len(), quoted(name), times.limit.as_secs_f64());
            format!(
                concat!(
                    r#"{{"kind":{},"count":{},"median_s":{:.3},"longest_s":{:.3},"#,
                    r#""allowed_on_the_worst_line_s":{:.3}}}"#
                ),
                name, count, median, longest, limit,
            )
        });
        let mishaps = self.mishaps.iter().map(|(name, count)| {
            let name = quoted(name);
            format!(r#"{{"kind":{name},"count":{count}}}"#)
        });
        let told = |failure: &Failure| {
            let (command, what) = (format!("pilot-sim {} --verbose", failure.which), &failure.what);
            format!(r#"{{"see":{},"what":{}}}"#, quoted(&command), quoted(what))
        };
        format!(
            concat!(
                r#"{{"simulated_hours":{:.1},"took_s":{:.1},"long_worlds":{},"short_worlds":{},"datagrams":{},"#,
                r#""streams":{},"bytes":{},"most_datagrams_at_rest_per_way_and_minute":{:.1},"#,
                r#""faults":{},"recoveries":[{}],"mishaps":[{}],"late":[{}],"failures":[{}]}}"#
            ),
            hours(self.simulated),
            self.took.as_secs_f64(),
            self.days,
            self.plans,
            self.datagrams,
            self.streams,
            self.bytes,
            self.noise / 2.0,
            self.faults(),
            joined(recoveries),
            joined(mishaps),
            joined(self.late.iter().map(told)),
            joined(self.failures.iter().map(told)),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["times", "median", "longest", "allowed"];
        write!(f, "{:<36}", "what goes wrong (long worlds)")?;
        columns.iter().try_for_each(|column| write!(f, " {column:>10}"))?;
        writeln!(f)?;
        for (name, Times { took, limit }) in &self.recoveries {
            let (median, longest) = middle_and_end(took);
            let limit = limit.as_secs_f64();
            writeln!(f, "{name:<36} {:>10} {median:>8.3} s {longest:>8.3} s {limit:>8.3} s", took.len())?;
        }
        writeln!(f, "\n{:<36} {:>10}", "what goes wrong (short worlds)", "times")?;
        for (name, count) in &self.mishaps {
            writeln!(f, "{name:<36} {count:>10}")?;
        }
        writeln!(
            f,
            "\n{:.0} simulated hours in {} long and {} short worlds, {:.0} s of real time",
            hours(self.simulated),
            self.days,
            self.plans,
            self.took.as_secs_f64(),
        )?;
        writeln!(
            f,
            "{} faults, {} datagrams; in long worlds {} streams, {} bytes read and right",
            self.faults(),
            self.datagrams,
            self.streams,
            self.bytes,
        )?;
        writeln!(f, "at rest, at most {:.1} datagrams a minute from a node to another", self.noise / 2.0)?;
        for (kind, list) in [("LATE", &self.late), ("FAULT", &self.failures)] {
            for Failure { which, what } in list {
                writeln!(f, "{kind}: {what}\n       see it: pilot-sim {which} --verbose")?;
            }
        }
        write!(f, "{} recovered late, {} failed", self.late.len(), self.failures.len())
    }
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3600.0
}

/// The median and the longest of times that are in order, in seconds.
fn middle_and_end(times: &[Duration]) -> (f64, f64) {
    let at = |index: usize| times.get(index).map_or(0.0, Duration::as_secs_f64);
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if char.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Which;

    #[test]
    fn what_is_quoted_is_json_whatever_it_says() {
        assert_eq!(quoted("a \"b\" \\ c\nd"), r#""a \"b\" \\ c\u000ad""#);
    }

    #[test]
    fn a_failure_is_told_with_the_command_that_shows_it() {
        let failure = Failure { which: Which::Day(7), what: "a packet was sent in clear".into() };
        let mut report = Report { failures: vec![failure], ..Report::default() };
        let ms = |ms| Duration::from_millis(ms);
        let times = Times { took: vec![ms(1), ms(20), ms(300)], limit: ms(1000) };
        report.recoveries.insert("NAT rebinds", times);
        let text = report.to_string();
        assert!(text.contains("FAULT: a packet was sent in clear"), "{text}");
        assert!(text.contains("pilot-sim --day 7 --verbose"), "{text}");
        assert!(text.contains("   0.020 s    0.300 s    1.000 s"), "{text}");
        let json = report.json();
        assert!(json.contains(r#""see":"pilot-sim --day 7 --verbose""#), "{json}");
        assert!(json.contains(r#""count":3,"median_s":0.020,"longest_s":0.300"#), "{json}");
    }
}
