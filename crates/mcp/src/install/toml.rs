//! An entry in a TOML file: a table of its own at the end, which never changes what stands before it.

use super::{EditError, Entry};

/// The table of an entry.
pub(super) fn table(entry: &Entry) -> String {
    let args: Vec<String> = entry.args.iter().map(|arg| quoted(arg)).collect();
    format!("{}\ncommand = {}\nargs = [{}]\n", heading(&entry.name), quoted(&entry.command), args.join(", "))
}

/// Names are bare keys, so they need no quotes.
fn heading(name: &str) -> String {
    format!("[mcp_servers.{name}]")
}

/// A basic string; what JSON escapes, TOML reads the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Puts the table at the end, in place of one that we wrote.
pub(super) fn put(text: &str, entry: &Entry) -> Result<String, EditError> {
    let table = table(entry);
    if find(text, &entry.name)?.is_some_and(|range| text[range].trim_end() == table.trim_end()) {
        return Ok(text.to_owned());
    }
    let rest = remove(text, &entry.name)?;
    let gap = match rest.as_str() {
        "" => "",
        rest if rest.ends_with("\n\n") => "",
        rest if rest.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Ok(format!("{rest}{gap}{table}"))
}

/// Takes out the table.
pub(super) fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let Some(range) = find(text, name)? else { return Ok(text.to_owned()) };
    let (before, after) = (&text[..range.start], &text[range.end..]);
    // The empty line that was put before it.
    let before = match before.strip_suffix('\n') {
        Some(shorter) if after.is_empty() && shorter.ends_with('\n') => shorter,
        _ => before,
    };
    Ok(format!("{before}{after}"))
}

/// Where the table stands, from its heading to the next one.
fn find(text: &str, name: &str) -> Result<Option<std::ops::Range<usize>>, EditError> {
    // In a text of several lines a line may look like a heading, and not be one.
    if text.contains("\"\"\"") || text.contains("'''") {
        return Err(EditError::Unclear);
    }
    let (mut at, mut begin, mut range) = (0, None, None);
    for line in text.split_inclusive('\n') {
        let bare: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        let is_heading = bare.starts_with('[');
        if let (true, Some(first)) = (is_heading, begin) {
            // Tables below it belong to it, and were not written by us.
            if bare.starts_with(&format!("[mcp_servers.{name}.")) {
                return Err(EditError::Unclear);
            }
            if range.is_none() {
                range = Some(first..at);
            }
        }
        if bare.starts_with(&format!("[mcp_servers.{name}]")) {
            if begin.is_some() {
                return Err(EditError::Unclear);
            }
            begin = Some(at);
        } else if is_other_form(&bare, name) {
            return Err(EditError::Unclear);
        }
        at += line.len();
    }
    Ok(range.or_else(|| begin.map(|first| first..at)))
}

/// The same entry, or the whole list, written another way.
fn is_other_form(bare: &str, name: &str) -> bool {
    bare.starts_with("mcp_servers=")
        || bare.starts_with("mcp_servers.")
        || bare.starts_with("\"mcp_servers\"")
        || bare.starts_with("'mcp_servers'")
        || bare.starts_with("[\"mcp_servers\"")
        || bare.starts_with("['mcp_servers'")
        || bare.starts_with("[mcp_servers]")
        || bare.starts_with(&format!("[mcp_servers.\"{name}\""))
        || bare.starts_with(&format!("[mcp_servers.'{name}'"))
        || bare.starts_with(&format!("[mcp_servers.{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { name: "pilot".into(), command: "/bin/pilotctl".into(), args: vec!["mcp".into()] }
    }

    const OTHER: &str = "model = \"x\"\n\n[mcp_servers.other]\ncommand = \"y\"\n";

    #[test]
    fn a_table_is_put_at_the_end_and_taken_out_again() {
        let changed = put(OTHER, &entry()).unwrap();
        let table = "\n[mcp_servers.pilot]\ncommand = \"/bin/pilotctl\"\nargs = [\"mcp\"]\n";
        assert_eq!(changed, format!("{OTHER}{table}"));
        assert_eq!(put(&changed, &entry()).unwrap(), changed);
        assert_eq!(remove(&changed, "pilot").unwrap(), OTHER);
        assert_eq!(put("", &entry()).unwrap(), table.trim_start());
        let moved = Entry { command: "/usr/bin/pilotctl".into(), ..entry() };
        assert_eq!(put(&changed, &moved).unwrap(), changed.replace("/bin/pilotctl", "/usr/bin/pilotctl"));
    }

    #[test]
    fn what_stands_behind_it_stays() {
        let text = "[mcp_servers.pilot]\ncommand = \"old\"\n\n[profile]\na = 1\n";
        assert_eq!(remove(text, "pilot").unwrap(), "[profile]\na = 1\n");
    }

    #[test]
    fn what_is_written_in_another_way_is_not_touched() {
        for text in [
            "mcp_servers = { pilot = { command = \"x\" } }\n",
            "[mcp_servers]\npilot = { command = \"x\" }\n",
            "[mcp_servers.\"pilot\"]\n",
            "[mcp_servers.pilot]\n[mcp_servers.pilot.env]\nA = \"1\"\n",
            "a = \"\"\"\n[mcp_servers.pilot]\n\"\"\"\n",
        ] {
            assert_eq!(put(text, &entry()), Err(EditError::Unclear), "{text}");
        }
    }
}
