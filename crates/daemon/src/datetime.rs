//! Points in time as text: RFC 3339 in UTC for JSON, a compact form for file names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: i64 = 86_400;

/// A calendar day and the time of it, UTC.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    nanosecond: u32,
}

/// `2026-11-21T09:56:39.123456789Z`, without the fraction when it is zero.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let Civil { year, month, day, hour, minute, second, nanosecond } = civil(time);
    let fraction = match nanosecond {
        0 => String::new(),
        n => format!(".{n:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// `20261121-095639.123`, which sorts by time.
pub(crate) fn compact(time: SystemTime) -> String {
    let Civil { year, month, day, hour, minute, second, nanosecond } = civil(time);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}.{:03}", nanosecond / 1_000_000)
}

/// Reads what [`rfc3339`] writes, and any other offset than `Z`.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (year, month, day) = triple(date, '-')?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let (hour, minute, second) = triple(time, ':')?;
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !valid {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    let seconds = u64::try_from(seconds).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds(fraction)?))
}

/// Seconds since 1970, 0 for times before.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn civil(time: SystemTime) -> Civil {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() as i64;
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
    Civil {
        year,
        month,
        day,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
        nanosecond: since.subsec_nanos(),
    }
}

// Both directions count in years that begin in March, so that the leap day is the last of its year
// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * march_month + 2) / 5 + 1) as u32;
    let month = (if march_month < 10 { march_month + 3 } else { march_month - 9 }) as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn triple(text: &str, separator: char) -> Option<(i64, i64, i64)> {
    let mut parts = text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from));
    let three = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(three)
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let number: u32 = digits.parse().ok()?;
    Some(number * 10u32.pow(9 - digits.len() as u32))
}

fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        'Z' | 'z' => return Some(0),
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    Some(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{compact, parse_rfc3339, rfc3339};

    pub(crate) fn text(text: &str) {
        if let Some(time) = parse_rfc3339(text) {
            assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time), "{text:?}");
            let _ = compact(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanoseconds: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }

    #[test]
    fn known_moments_have_their_known_texts() {
        assert_eq!(rfc3339(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(951_782_400, 0)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(1_795_247_165, 120_000_000)), "2026-11-21T07:46:05.12Z");
        assert_eq!(compact(at(1_795_247_165, 7_000_000)), "20261121-074605.007");
    }

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        for day in (0..146_097u64).step_by(13) {
            let time = at(day * 86_400 + 12_345, 5);
            assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
        }
    }

    #[test]
    fn offsets_are_taken_into_account_and_nonsense_is_refused() {
        let noon = parse_rfc3339("2026-11-21T12:00:00Z");
        assert_eq!(parse_rfc3339("2026-11-21T14:30:00+02:30"), noon);
        assert_eq!(parse_rfc3339("2026-11-21T04:00:00.000-08:00"), noon);
        for nonsense in [
            "",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-11-21T00:00Z",
            "xT00:00:00Z",
            "2026-11-21T12:00:00é",
            // More seconds than the numbers of old had room for.
            "2026-11-21T12:00:00+1193047:00",
            "2026-11-21T12:00:00-00:4294967295",
        ] {
            assert_eq!(parse_rfc3339(nonsense), None, "{nonsense}");
        }
    }
}
