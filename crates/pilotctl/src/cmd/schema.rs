//! `pilotctl schema`: what commands take and print, as JSON Schema 2020-12, made from the parser itself.

use std::any::TypeId;
use std::fmt;

use clap::{Arg, ArgAction, Command};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::reference::{self, Entry, argument_name};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl schema send-message\n  pilotctl schema task submit\n  \
    pilotctl schema --json | jq '.data | keys'")]
pub(crate) struct Args {
    /// The command; all of them if it is left out
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Document(Value);

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// One command, or all under their names.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let wanted = args.command.join(" ");
    let mut commands = reference::commands().into_iter();
    let document = if wanted.is_empty() {
        commands.map(|entry| (entry.name.clone(), tool(&entry))).collect::<Map<_, _>>().into()
    } else {
        let entry = commands.find(|entry| entry.name == wanted).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no command `{wanted}`"))
                .hint("`pilotctl schema` has all of them, `pilotctl --help` lists them")
        })?;
        tool(&entry)
    };
    Ok(Output::of(Document(document)))
}

/// In the form in which the Model Context Protocol and the interfaces of models describe a tool.
fn tool(entry: &Entry) -> Value {
    let about = entry.command.get_about().map(ToString::to_string).unwrap_or_default();
    json!({
        "name": format!("pilotctl_{}", entry.name.replace([' ', '-'], "_")),
        "description": about,
        "command": format!("pilotctl {}", entry.name),
        "inputSchema": input(&entry.command),
        "outputSchema": output(),
    })
}

fn input(command: &Command) -> Value {
    let mut places = 0;
    let mut properties = Map::new();
    let mut required = Vec::new();
    for arg in reference::arguments(command) {
        let name = arg.get_id().to_string();
        let mut schema = value(arg);
        schema.insert("description".into(), json!(arg.get_help().map(ToString::to_string)));
        // How the value is written on the command line.
        if arg.is_positional() {
            places += 1;
            schema.insert("x-place".into(), json!(places));
        } else {
            schema.insert("x-flag".into(), json!(argument_name(arg)));
        }
        let against: Vec<String> =
            command.get_arg_conflicts_with(arg).iter().map(|other| other.get_id().to_string()).collect();
        if !against.is_empty() {
            schema.insert("x-not-with".into(), json!(against));
        }
        if arg.is_required_set() {
            required.push(name.clone());
        }
        properties.insert(name, schema.into());
    }
    json!({
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The type of a value; of a list, if there may be several.
fn value(arg: &Arg) -> Map<String, Value> {
    let mut schema = single(arg);
    let defaults: Vec<&str> = arg.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if let [default] = defaults[..] {
        schema.insert("default".into(), typed(&schema, default));
    }
    let many = matches!(arg.get_action(), ArgAction::Append)
        || arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    if !many {
        return schema;
    }
    let mut list = Map::new();
    list.insert("type".into(), json!("array"));
    list.insert("items".into(), schema.into());
    list
}

fn single(arg: &Arg) -> Map<String, Value> {
    let mut schema = Map::new();
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        schema.insert("type".into(), json!("boolean"));
        return schema;
    }
    let parser = arg.get_value_parser().type_id();
    let is = |types: &[TypeId]| types.iter().any(|one| parser == *one);
    if is(&[TypeId::of::<bool>()]) {
        schema.insert("type".into(), json!("boolean"));
    } else if is(&[
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
    ]) {
        schema.insert("type".into(), json!("integer"));
        schema.insert("minimum".into(), json!(0));
        if is(&[TypeId::of::<u16>()]) {
            schema.insert("maximum".into(), json!(u16::MAX));
        }
    } else {
        schema.insert("type".into(), json!("string"));
        let allowed: Vec<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !allowed.is_empty() {
            schema.insert("enum".into(), json!(allowed));
        } else if let Some([name]) = arg.get_value_names() {
            schema.insert("x-value".into(), json!(name.as_str()));
            if name == "DURATION" {
                schema.insert("pattern".into(), json!(r"^([0-9.]+|([0-9.]+(h|m|s|ms|us|µs|ns))+)$"));
            }
        }
    }
    schema
}

/// A default as a value of its type, not as it would be written.
fn typed(schema: &Map<String, Value>, default: &str) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => json!(default),
        _ => serde_json::from_str(default).unwrap_or_else(|_| json!(default)),
    }
}

/// The document that `--json` prints, of every command.
fn output() -> Value {
    let codes: Vec<&str> = Code::TABLE.iter().map(|row| row.1).collect();
    json!({
        "$schema": DIALECT,
        "oneOf": [
            {
                "type": "object",
                "properties": { "status": { "const": "ok" }, "data": {} },
                "required": ["status", "data"],
            },
            {
                "type": "object",
                "properties": {
                    "status": { "const": "error" },
                    "code": { "enum": codes },
                    "message": { "type": "string" },
                    "hint": { "type": "string" },
                    "data": {},
                },
                "required": ["status", "code", "message"],
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str) -> Value {
        tool(&reference::commands().into_iter().find(|entry| entry.name == name).unwrap())
    }

    #[test]
    fn a_command_becomes_a_tool_with_typed_arguments() {
        let ping = schema("ping");
        assert_eq!(ping["name"], "pilotctl_ping");
        let input = &ping["inputSchema"];
        assert_eq!(input["required"], json!(["target"]));
        assert_eq!(input["properties"]["target"]["x-place"], 1);
        assert_eq!(input["properties"]["count"]["type"], "integer");
        assert_eq!(input["properties"]["count"]["x-flag"], "--count");
        assert!(input["properties"]["timeout"]["pattern"].is_string(), "{input}");
    }

    #[test]
    fn lists_choices_and_switches_are_told_apart() {
        let install = schema("mcp install");
        assert_eq!(install["inputSchema"]["properties"]["apply"]["type"], "boolean");
        let policy = schema("policy set");
        assert_eq!(policy["inputSchema"]["properties"]["values"]["type"], "array");
        let completions = schema("completions");
        let shells = &completions["inputSchema"]["properties"]["shell"]["enum"];
        assert!(shells.as_array().unwrap().contains(&json!("fish")), "{shells}");
    }
}
