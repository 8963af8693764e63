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

    /// When it will be so many seconds since 1970; the start for a moment before it.
    #[must_use]
    pub fn instant(&self, unix: u64) -> Instant {
        // A century ahead is far enough for every timer, and within what the type holds.
        const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
        let ahead = Duration::from_secs(unix).saturating_sub(self.unix).min(FAR);
        self.start.checked_add(ahead).unwrap_or(self.start)
    }
}

/// Reads what [`rfc3339`] writes, also with a fraction, which is cut off, or with another offset than `Z`. `None` if it is
/// no such time, or one before 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = three(date, '-')?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let [hour, minute, second] = three(time, ':')?;
    let is_valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_valid {
        return None;
    }
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let seconds =
                i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60;
            if sign == "-" { -seconds } else { seconds }
        }
        _ => return None,
    };
    // The inverse of `rfc3339`, by the same source.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

fn three(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text.split(between).map(|part| part.parse::<u32>().ok().map(i64::from));
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
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
    fn other_ways_to_write_a_moment_are_read_and_nonsense_is_not() {
        assert_eq!(parse_rfc3339("2026-11-21T08:31:47.123456789+01:00"), Some(1_795_246_307));
        assert_eq!(parse_rfc3339("2026-11-21T02:01:47-05:30"), Some(1_795_246_307));
        for text in [
            "",
            "tomorrow",
            "2026-13-01T00:00:00Z",
            "2026-11-21",
            "2026-11-21T07:31:47",
            "2026-11-21T07:31:47Q",
            "2026-11-21T07:31:47+9999999999999999:00",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

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
            assert_eq!(parse_rfc3339(text), Some(unix));
        }
    }
}
