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

/// Seconds since 1970 of a time as RFC 3339 writes it. `None` if it is none, or earlier.
pub(crate) fn from_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, zone) = time.split_at(time.find(['Z', '+', '-'])?);
    let (clock, _fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_range = (0..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let offset = match zone.strip_prefix(['+', '-']).map(|zone| zone.split_once(':')) {
        Some(Some((hours, minutes))) => {
            let minutes = i64::from(hours.parse::<u8>().ok()?) * 60 + i64::from(minutes.parse::<u8>().ok()?);
            if zone.starts_with('-') { -minutes } else { minutes }
        }
        Some(None) => return None,
        None => 0,
    };
    // As above, the other way.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    u64::try_from(seconds).ok().filter(|_| in_range)
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
            assert_eq!(from_rfc3339(text), Some(unix));
        }
    }

    #[test]
    fn times_are_read_with_fractions_and_zones() {
        assert_eq!(from_rfc3339("2026-11-21T08:31:47.123456789+01:00"), Some(1_795_246_307));
        assert_eq!(from_rfc3339("2026-11-21T02:01:47-05:30"), Some(1_795_246_307));
        for wrong in
            ["", "2026", "2026-11-21", "2026-13-21T07:31:47Z", "2026-11-21T07:31:47", "0001-01-01T00:00:00Z"]
        {
            assert_eq!(from_rfc3339(wrong), None, "{wrong}");
        }
    }
}
