//! Topic patterns, matched by the subscriber's own side.

use super::EVERYTHING;

/// What an application wants to receive.
///
/// Levels are separated by `.` or `/`, whichever the topic uses (a pattern's separator matches only itself).
///
/// | pattern | matches |
/// |---|---|
/// | `*`, `#` or `>` alone | every topic |
/// | `news` | `news` |
/// | `tasks.*` | `tasks.a`, not `tasks` nor `tasks.a.b` |
/// | `agent-*.results` | `agent-b.results` |
/// | `a.b.>` | `a.b.c`, `a.b.c.d`, not `a.b` |
/// | `a/b/#` | the same and `a/b` |
///
/// A pattern also matches the topic that is written exactly as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Takes the text of a pattern; every text is one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can match more than the topic of the same text.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.0.contains('*') || self.rest().is_some()
    }

    /// What to subscribe to at a broker, which knows only literal topics and `*`.
    #[must_use]
    pub fn wire_topic(&self) -> &str {
        if self.is_wild() { EVERYTHING } else { &self.0 }
    }

    /// Whether an event of this topic is wanted.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if self.0 == topic {
            return true;
        }
        match self.rest() {
            Some(Rest::All) => true,
            Some(Rest::Below { parent, separator }) => prefix_matches(parent, topic) == Some(Some(separator)),
            Some(Rest::ParentAndBelow { parent, separator }) => prefix_matches(parent, topic)
                .is_some_and(|after| after.is_none_or(|found| found == separator)),
            None if self.0 == EVERYTHING => true,
            None => prefix_matches(&self.0, topic) == Some(None),
        }
    }

    fn rest(&self) -> Option<Rest<'_>> {
        if matches!(self.0.as_str(), ">" | "#") {
            return Some(Rest::All);
        }
        let below = |wildcard: char| {
            let path = self.0.strip_suffix(wildcard)?;
            let separator = path.chars().next_back().filter(|last| SEPARATORS.contains(last))?;
            Some((&path[..path.len() - 1], separator))
        };
        below('>')
            .map(|(parent, separator)| Rest::Below { parent, separator })
            .or_else(|| below('#').map(|(parent, separator)| Rest::ParentAndBelow { parent, separator }))
    }
}

const SEPARATORS: [char; 2] = ['.', '/'];

enum Rest<'a> {
    All,
    Below { parent: &'a str, separator: char },
    ParentAndBelow { parent: &'a str, separator: char },
}

/// Matches the levels of `pattern` against the first levels of `topic`: `None` when they differ, else the
/// separator after which the topic goes on, if it does.
fn prefix_matches(pattern: &str, topic: &str) -> Option<Option<char>> {
    let (mut pattern, mut topic) = (pattern, topic);
    loop {
        let (level, separator, pattern_rest) = split(pattern);
        let (part, topic_separator, topic_rest) = split(topic);
        if !level_matches(level.as_bytes(), part.as_bytes()) {
            return None;
        }
        match (separator, topic_separator) {
            (None, after) => return Some(after),
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some(_), _) => return None,
        }
        (pattern, topic) = (pattern_rest, topic_rest);
    }
}

fn split(text: &str) -> (&str, Option<char>, &str) {
    match text.find(SEPARATORS) {
        Some(at) => (&text[..at], text[at..].chars().next(), &text[at + 1..]),
        None => (text, None, ""),
    }
}

/// Glob within one level: `*` stands for any bytes. Backtracks to the last star only, so it is at worst
/// quadratic in a level's length, never exponential.
fn level_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star, taken)) = last_star {
            last_star = Some((star, taken + 1));
            p = star + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_the_table_says() {
        for (pattern, yes, no) in [
            ("*", &["a", "a.b", "a/b", ""][..], &[][..]),
            ("#", &["a", "a.b", ""], &[]),
            (">", &["a", "a.b", ""], &[]),
            ("news", &["news"], &["new", "news.a", "newss", ""]),
            ("tasks.*", &["tasks.a", "tasks.*", "tasks."], &["tasks", "tasks.a.b", "tasks/a", "xtasks.a"]),
            ("sensors/*", &["sensors/1"], &["sensors.1", "sensors/1/2"]),
            ("*.done", &["a.done", ".done"], &["a.b.done", "done", "a.doner"]),
            (
                "agent-*.results",
                &["agent-b.results", "agent-.results"],
                &["agent.results", "agent-b.c.results"],
            ),
            ("a.*.c", &["a.b.c"], &["a.c", "a.b.b.c"]),
            ("a.b.>", &["a.b.c", "a.b.c.d", "a.b.c/d"], &["a.b", "a.bc", "a.b/c"]),
            ("a/b/#", &["a/b", "a/b/c", "a/b/c/d"], &["a/bc", "a", "a/b.c"]),
            ("*/x/>", &["q/x/y"], &["q/x", "x/y"]),
            ("", &[""], &["a"]),
            ("a*b*c", &["abc", "aXbYbZc"], &["ab", "ac", "abcd"]),
            ("swarm.telemetry.*", &["swarm.telemetry.cpu"], &["swarm.telemetry"]),
            ("päth.*", &["päth.ö"], &["path.o"]),
        ] {
            let pattern = Pattern::new(pattern);
            for topic in yes {
                assert!(pattern.matches(topic), "{pattern:?} {topic}");
            }
            for topic in no {
                assert!(!pattern.matches(topic), "{pattern:?} {topic}");
            }
        }
    }

    #[test]
    fn only_literal_topics_are_asked_of_a_broker_by_name() {
        assert_eq!(Pattern::new("news").wire_topic(), "news");
        assert_eq!(Pattern::new("a>b").wire_topic(), "a>b");
        for wild in ["*", "a.*", "a.>", "a/#", "#", ">"] {
            assert_eq!(Pattern::new(wild).wire_topic(), "*", "{wild}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::new(format!("{}b", "*a".repeat(500)));
        assert!(!pattern.matches(&"a".repeat(1000)));
    }
}
