//! Wall time for records, carried forward from one reading.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A pair of readings taken together. Later instants are converted through it, so a step of the system's clock changes
/// nothing while the process runs.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    unix: Duration,
}

impl Clock {
    /// `start` and `wall` must be readings of the same moment.
    #[must_use]
    pub fn new(start: Instant, wall: SystemTime) -> Self {
        Self { start, unix: wall.duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// The moment of the two readings.
    #[must_use]
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix(&self, now: Instant) -> u64 {
        (self.unix + now.saturating_duration_since(self.start)).as_secs()
    }
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Civil date from days, by eras of 400 years that begin in March (H. Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_246_307, "2026-11-21T07:31:47Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
        }
    }
}
