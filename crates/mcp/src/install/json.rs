//! An entry in a JSON file, put there and taken out as text: nothing else in the file changes.

use std::ops::Range;

use serde_json::Value;

use super::EditError;

/// An object in the text.
struct Object {
    /// Between its braces.
    inside: Range<usize>,
    members: Vec<Member>,
}

struct Member {
    name: String,
    /// From the first quote of the name to the end of the value.
    whole: Range<usize>,
    value: Range<usize>,
}

/// Puts a member of that name into the object under `key`, in place of one that is there.
pub(super) fn put(
    text: &str,
    key: &str,
    name: &str,
    members: &[(&'static str, String)],
) -> Result<String, EditError> {
    if text.trim().is_empty() {
        let entry = written(name, members, "    ", "  ");
        return Ok(format!("{{\n  {}: {{\n{entry}\n  }}\n}}\n", quoted(key)));
    }
    let root = root(text)?;
    let unit = unit(text, &root);
    let Some(list) = root.members.iter().find(|member| member.name == key) else {
        let indent = unit.clone();
        let entry = written(name, members, &format!("{indent}{unit}"), &unit);
        let member = format!("{indent}{}: {{\n{entry}\n{indent}}}", quoted(key));
        return Ok(inserted(text, &root, &member, ""));
    };
    let servers = object(text, list.value.clone()).ok_or_else(|| EditError::NotAnObject(key.to_owned()))?;
    let indent = format!("{unit}{unit}");
    let entry = written(name, members, &indent, &unit);
    match servers.members.iter().find(|member| member.name == name) {
        Some(old) => {
            let mut changed = text.to_owned();
            changed.replace_range(old.whole.clone(), entry.trim_start());
            Ok(changed)
        }
        None => Ok(inserted(text, &servers, &entry, &unit)),
    }
}

/// Takes the member of that name out of the object under `key`.
pub(super) fn remove(text: &str, key: &str, name: &str) -> Result<String, EditError> {
    if text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    let root = root(text)?;
    let Some(list) = root.members.iter().find(|member| member.name == key) else {
        return Ok(text.to_owned());
    };
    let servers = object(text, list.value.clone()).ok_or_else(|| EditError::NotAnObject(key.to_owned()))?;
    let Some(at) = servers.members.iter().position(|member| member.name == name) else {
        return Ok(text.to_owned());
    };
    let member = &servers.members[at];
    let range = match (at.checked_sub(1), servers.members.get(at + 1)) {
        // Up to the next member, so that the comma goes too.
        (_, Some(next)) => member.whole.start..next.whole.start,
        (Some(before), None) => servers.members[before].whole.end..member.whole.end,
        (None, None) => servers.inside.clone(),
    };
    let mut changed = text.to_owned();
    changed.replace_range(range, "");
    Ok(changed)
}

fn root(text: &str) -> Result<Object, EditError> {
    serde_json::from_str::<Value>(text).map_err(|error| EditError::NotJson(error.to_string()))?;
    let begin = text.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(0);
    object(text, begin..text.trim_end().len())
        .ok_or_else(|| EditError::NotJson("its outermost value is no object".to_owned()))
}

/// The indentation of one level, as the file has it.
fn unit(text: &str, root: &Object) -> String {
    let Some(first) = root.members.first() else { return "  ".to_owned() };
    let before = &text[..first.whole.start];
    let line = before.rfind('\n').map_or(before, |at| &before[at + 1..]);
    let is_indent = !line.is_empty() && line.chars().all(|c| c == ' ' || c == '\t');
    if is_indent { line.to_owned() } else { "  ".to_owned() }
}

/// `member` as the last one of an object, whose closing brace stands behind `closing` when it gets a line of its own.
fn inserted(text: &str, object: &Object, member: &str, closing: &str) -> String {
    let mut changed = text.to_owned();
    match object.members.last() {
        Some(last) => changed.insert_str(last.whole.end, &format!(",\n{member}")),
        None => changed.replace_range(object.inside.clone(), &format!("\n{member}\n{closing}")),
    }
    changed
}

/// The lines of an entry, the first indented too.
fn written(name: &str, members: &[(&'static str, String)], indent: &str, unit: &str) -> String {
    let lines: Vec<String> =
        members.iter().map(|(name, value)| format!("{indent}{unit}{}: {value}", quoted(name))).collect();
    format!("{indent}{}: {{\n{}\n{indent}}}", quoted(name), lines.join(",\n"))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The members of an object that takes up `range` of a text that is JSON; none if another value stands there.
fn object(text: &str, range: Range<usize>) -> Option<Object> {
    let bytes = text.as_bytes();
    if bytes.get(range.start) != Some(&b'{') {
        return None;
    }
    let (mut members, mut at) = (Vec::new(), space(bytes, range.start + 1));
    while bytes.get(at) == Some(&b'"') {
        let begin = at;
        let end_of_name = value(bytes, at)?;
        let name = serde_json::from_str(&text[begin..end_of_name]).ok()?;
        at = space(bytes, space(bytes, end_of_name) + 1);
        let end = value(bytes, at)?;
        members.push(Member { name, whole: begin..end, value: at..end });
        at = space(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = space(bytes, at + 1);
        }
    }
    Some(Object { inside: range.start + 1..at, members })
}

fn space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the value that begins at `at` ends.
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut end, mut is_text) = (0_usize, at, false);
    loop {
        match (*bytes.get(end)?, is_text) {
            (b'\\', true) => end += 1,
            (b'"', true) => is_text = false,
            (_, true) => {}
            (b'"', false) => is_text = true,
            (b'{' | b'[', false) => depth += 1,
            (b'}' | b']', false) => depth = depth.checked_sub(1)?,
            (_, false) => {}
        }
        end += 1;
        if depth == 0 && !is_text {
            let is_whole = matches!(bytes[at], b'"' | b'{' | b'[');
            let is_over = bytes.get(end).is_none_or(|next| b",]} \t\r\n".contains(next));
            if is_whole || is_over {
                return Some(end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Vec<(&'static str, String)> {
        vec![("command", "\"pilotctl\"".to_owned()), ("args", "[\"mcp\"]".to_owned())]
    }

    fn put_into(text: &str) -> String {
        let changed = put(text, "mcpServers", "pilot", &entry()).unwrap();
        let value: Value = serde_json::from_str(&changed).unwrap();
        assert_eq!(value["mcpServers"]["pilot"]["args"][0], "mcp", "{changed}");
        changed
    }

    const OTHER: &str = "{\n    \"z\": 1.50,\n    \"mcpServers\": {\n        \"other\": {\"command\": \"x}\\\"{\"}\n    },\n    \"a\": [ ]\n}\n";

    #[test]
    fn everything_else_stays_as_it_is_and_comes_back_when_it_is_taken_out() {
        let changed = put_into(OTHER);
        assert!(changed.contains("\"z\": 1.50") && changed.contains("\"a\": [ ]"), "{changed}");
        assert!(changed.contains(",\n        \"pilot\": {\n            \"command\""), "{changed}");
        assert_eq!(remove(&changed, "mcpServers", "pilot").unwrap(), OTHER);
        assert_eq!(put_into(&changed), changed, "a second time changes nothing");
    }

    #[test]
    fn a_file_without_the_list_an_empty_one_and_none_get_it() {
        for text in ["", "\n", "{}", "{ \"a\": 1 }", "{\"mcpServers\":{}}", "\u{20}\t{\"a\":\"\\\\\"}"] {
            let changed = put_into(text);
            let removed = remove(&changed, "mcpServers", "pilot").unwrap();
            let value: Value = serde_json::from_str(&removed).unwrap();
            assert_eq!(value["mcpServers"], serde_json::json!({}), "{removed}");
        }
    }

    #[test]
    fn an_entry_in_the_middle_goes_with_its_comma() {
        let text = "{\"mcpServers\": {\"pilot\": {}, \"b\": {}}}";
        assert_eq!(remove(text, "mcpServers", "pilot").unwrap(), "{\"mcpServers\": {\"b\": {}}}");
        assert_eq!(remove(text, "mcpServers", "b").unwrap(), "{\"mcpServers\": {\"pilot\": {}}}");
        assert_eq!(remove(text, "mcpServers", "c").unwrap(), text);
    }

    #[test]
    fn what_is_no_plain_json_is_not_touched() {
        for text in ["{ // a comment\n }", "{", "[]", "{\"mcpServers\": []}", "{\"mcpServers\": 7}"] {
            assert!(put(text, "mcpServers", "pilot", &entry()).is_err(), "{text}");
        }
    }
}
