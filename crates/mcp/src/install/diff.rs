//! What a change of a file looks like. A change is in one place, so no search for the shortest one is needed.

/// Lines shown around the change.
const AROUND: usize = 2;

/// A unified diff of two texts, without the names of files; empty when they are the same.
#[must_use]
pub fn diff(old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let shortest = old.len().min(new.len());
    let same_begin = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let same_end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let same_end = same_end.min(shortest - same_begin);
    let begin = same_begin.saturating_sub(AROUND);
    let (old_end, new_end) = (old.len() - same_end, new.len() - same_end);
    let shown_end = (old_end + AROUND).min(old.len());
    let lines =
        |first: usize, count: usize| format!("{},{count}", if count == 0 { first } else { first + 1 });
    let old_count = shown_end - begin;
    let new_count = old_count + (new_end - same_begin) - (old_end - same_begin);
    let mut text = format!("@@ -{} +{} @@\n", lines(begin, old_count), lines(begin, new_count));
    let mut put = |sign: char, lines: &[&str]| {
        for line in lines {
            text.push(sign);
            text += line;
            text.push('\n');
        }
    };
    put(' ', &old[begin..same_begin]);
    put('-', &old[same_begin..old_end]);
    put('+', &new[same_begin..new_end]);
    put(' ', &old[old_end..shown_end]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_what_stands_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n";
        assert_eq!(diff(old, "1\n2\n3\nx\n5\n6\n"), "@@ -2,5 +2,5 @@\n 2\n 3\n-4\n+x\n 5\n 6\n");
        assert_eq!(diff("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(diff("a\na\n", "a\na\na\n"), "@@ -1,2 +1,3 @@\n a\n a\n+a\n");
        assert_eq!(diff(old, old), "");
    }
}
