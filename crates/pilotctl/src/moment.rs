//! A moment in the future, as people write it: a duration from now, a time in RFC 3339, or `never`.

use std::time::SystemTime;

use crate::{duration, humane};

/// The moment as RFC 3339, or `never`. A time is not looked into: the registry reads it.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    if text == "never" || text.contains('T') {
        return Ok(text.to_owned());
    }
    let ahead = match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) => std::time::Duration::from_secs(u64::from(days) * 86_400),
        Some(Err(_)) | None => duration::parse(text).map_err(|_| {
            format!("`{text}` is no moment; write `30d`, `12h`, `2027-01-31T12:00:00Z` or `never`")
        })?,
    };
    let at = SystemTime::now().checked_add(ahead).ok_or_else(|| format!("`{text}` is too far ahead"))?;
    Ok(humane::rfc3339(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(parse("never").as_deref(), Ok("never"));
        assert_eq!(parse("2027-01-31T12:00:00Z").as_deref(), Ok("2027-01-31T12:00:00Z"));
        assert!(parse("30d").unwrap() > humane::rfc3339(SystemTime::now()));
        assert!(parse("tomorrow").is_err());
    }
}
