//! Names that peers give their files.

use std::time::SystemTime;

use super::super::disk::SequenceNames;

/// Longest file name of common file systems.
const NAME_MAX: usize = 255;

/// A file name from a peer that can be used here, in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) struct SafeName {
    base: String,
    extension: String,
}

/// Why a peer's file name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::service) enum BadName {
    /// It has no characters.
    #[error("the file has no name")]
    Empty,
    /// It leads elsewhere (`..`, a separator) or is too long for any disk.
    #[error("unsafe file name")]
    Unsafe,
}

impl SafeName {
    /// Checks a name: it must be one component. Characters that terminals or shells act upon are replaced.
    pub(in crate::service) fn parse(name: &[u8]) -> Result<Self, BadName> {
        let leads_elsewhere = name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
        if name.is_empty() {
            return Err(BadName::Empty);
        }
        if leads_elsewhere || name == b"." || name == b".." || name.len() > NAME_MAX {
            return Err(BadName::Unsafe);
        }
        let text: String = String::from_utf8_lossy(name)
            .chars()
            .map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '_' } else { c })
            .collect();
        // A leading dot hides the file, a leading dash makes it an option.
        let hidden = text.starts_with(['.', '-', '~']);
        let text = if hidden { format!("_{}", &text[1..]) } else { text };
        let (base, extension) = match text.rfind('.') {
            Some(at) if at > 0 && text.len() - at <= 32 => text.split_at(at),
            Some(_) | None => (text.as_str(), ""),
        };
        Ok(Self { base: base.to_owned(), extension: extension.to_owned() })
    }

    /// The whole name, and its extension without the dot.
    pub(in crate::service) fn parts(&self) -> (String, &str) {
        (format!("{}{}", self.base, self.extension), self.extension.trim_start_matches('.'))
    }

    /// The name under which the file is kept: no other has it.
    pub(super) fn with_time(&self, names: &mut SequenceNames, now: SystemTime) -> String {
        // Time and number take 26 bytes of the name, and the record about the file has a longer one.
        let room = NAME_MAX - 64 - self.extension.len();
        let end =
            (0..=room.min(self.base.len())).rev().find(|at| self.base.is_char_boundary(*at)).unwrap_or(0);
        names.next(&self.base[..end], now, &self.extension)
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(name: &[u8], now: SystemTime) {
    let Ok(safe) = SafeName::parse(name) else { return };
    for kept in [safe.parts().0, safe.with_time(&mut SequenceNames::default(), now)] {
        let mut parts = std::path::Path::new(&kept).components();
        assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))), "{kept:?}");
        assert!(parts.next().is_none() && !kept.contains(['/', '\\', '\0']), "{kept:?}");
        assert!(!kept.starts_with(['.', '-', '~']) && !kept.contains(char::is_control), "{kept:?}");
    }
    assert!(safe.with_time(&mut SequenceNames::default(), now).len() + 5 <= NAME_MAX, "{safe:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused_and_odd_ones_made_harmless() {
        for bad in [&b"../x"[..], b"a/b", b"..", b".", b"a\\b", b"a\0b", &[b'n'; 256]] {
            assert_eq!(SafeName::parse(bad), Err(BadName::Unsafe), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(SafeName::parse(b""), Err(BadName::Empty));
        let stored = |name: &[u8]| {
            let name = SafeName::parse(name).unwrap();
            name.with_time(&mut SequenceNames::default(), SystemTime::UNIX_EPOCH)
        };
        assert_eq!(stored(b"a.txt"), "a-19700101-000000.000-000001.txt");
        assert_eq!(stored(b"a.tar.gz"), "a.tar-19700101-000000.000-000001.gz");
        assert_eq!(stored(b".bashrc"), "_bashrc-19700101-000000.000-000001");
        assert_eq!(stored(b"-rf"), "_rf-19700101-000000.000-000001");
        assert_eq!(stored(b"a\x1b[2Jb"), "a_[2Jb-19700101-000000.000-000001");
        assert!(stored("ö".repeat(127).as_bytes()).len() <= NAME_MAX - 32);
        assert!(stored(&[b'n'; 255]).len() <= NAME_MAX - 32);
    }
}
