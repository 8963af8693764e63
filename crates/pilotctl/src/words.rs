//! The command line before clap sees it: forms of the reference that clap has no words for.
//!
//! `pilot-daemon` as the name of the executable means `pilotctl daemon run`; the daemon's flags may have one
//! dash as Go programs write them; `extras X` is `X`; commands of the reference or of the articles that this
//! version does not have are answered with the reason instead of "unknown command".

use std::ffi::OsString;
use std::path::Path;

use crate::failure::{Code, Failure};

/// Flags of the reference's daemon that change nothing here, with whether a value follows them: what they
/// switch off does not exist, or what they tune is not tuned by hand.
const IGNORED: &[(&str, bool)] = &[
    ("beacon-rtt-probe", false),
    ("dataexchange-b64", false),
    ("log-max-backups", true),
    ("log-max-size", true),
    ("max-conns-per-port", true),
    ("max-conns-total", true),
    ("motd-feed-url", true),
    ("motd-interval", true),
    ("no-addr-watch", false),
    ("no-path-watch", false),
    ("no-rx-watchdog", false),
    ("no-skillinject", false),
    ("syn-rate-limit", true),
    ("telemetry-url", true),
    ("time-wait", true),
];

/// Flags whose value decides: these values mean what we do anyway, any other would be disobeyed silently.
const ONLY: &[(&str, &[&str])] = &[
    ("registry-tls", &["false"]),
    ("relay-only", &["false"]),
    ("sandbox", &["false"]),
    ("strict-dataplane-trust", &["true", "false"]),
];

/// The reference's spelling where ours differs.
const RENAMED: &[(&str, &str)] = &[("advertise-endpoint", "endpoint"), ("compat-beacon", "beacon-web")];

/// Commands that exist elsewhere but not here, why, and what to do instead.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    (
        "set-polo-gate",
        "a score is compared with this node's own",
        "switch that on with `pilotctl task gate on`",
    ),
    (
        "http",
        "programs that speak HTTP go through the proxy",
        "`pilotctl proxy --http 127.0.0.1:8118`, then `curl --proxy 127.0.0.1:8118 http://agent-b.pilot/`",
    ),
    (
        "trust-policy",
        "rules for trust are not part of this version",
        "`pilotctl daemon start --trust-auto-approve` approves every request",
    ),
    ("create-network", "it is a command of `network`", "create one with `pilotctl network create NAME`"),
    ("register", "the daemon registers by itself", "start it: `pilotctl daemon start`"),
    ("managed", "managed networks are not part of this version", "see `pilotctl network --help`"),
    ("member-tags", "it is a command of `network`", "see `pilotctl network tags --help`"),
    ("audit-export", "the registry exports no audit log", "read it with `pilotctl audit --json`"),
    ("idp", "the registry has no identity provider", "see `pilotctl network --help`"),
    ("directory-sync", "the registry has no identity provider", "see `pilotctl provision --help`"),
    ("directory-status", "the registry has no identity provider", "see `pilotctl provision-status`"),
    ("deprovision", "it is a command of `network`", "see `pilotctl network delete --help`"),
    (
        "prefer-direct",
        "paths are chosen by measurement, there is nothing to set",
        "see the path with `pilotctl peers`",
    ),
    ("verify", "badges are not part of this version", "compare key fingerprints: `pilotctl lookup NODE`"),
    (
        "sign-request",
        "request signing is not part of this version",
        "messages carry the sender's verified address",
    ),
    (
        "verify-request",
        "request signing is not part of this version",
        "messages carry the sender's verified address",
    ),
    ("review", "reviews are not part of this version", "see `pilotctl --help`"),
    (
        "skills",
        "this program does not write into other programs' files",
        "give `pilotctl context` to your agent",
    ),
    ("appstore", "there is no app store", "see `pilotctl --help`"),
    ("update", "this program does not update itself", "use your package manager, or build from source"),
    ("updates", "this program does not look for updates", "use your package manager, or build from source"),
    (
        "quickstart",
        "there is nothing to ask",
        "run `pilotctl demo`, then `pilotctl daemon start --hostname NAME`",
    ),
];

/// Whether `--json` was asked for, even if the line is wrong otherwise.
pub(crate) fn wants_json(words: &[OsString]) -> bool {
    words.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json")
}

/// The line as clap is to read it; its first element is the name of the program.
pub(crate) fn normalise(mut words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let name = words.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    if name == Some("pilot-daemon") {
        if words.iter().skip(1).any(|word| word == "-version" || word == "--version") {
            return Ok(vec!["pilotctl".into(), "version".into()]);
        }
        words.splice(0..1, ["pilotctl", "daemon", "run"].map(OsString::from));
    }
    if let Some(at) = command_position(&words)
        && words[at] == "extras"
        && words.len() > at + 1
    {
        words.remove(at);
    }
    let Some(at) = command_position(&words) else { return Ok(words) };
    refuse_unsupported(&words, at)?;
    if words[at] == "daemon" { daemon_flags(words) } else { Ok(words) }
}

fn refuse_unsupported(words: &[OsString], at: usize) -> Result<(), Failure> {
    let Some(command) = words[at].to_str() else { return Ok(()) };
    if let Some((name, why, instead)) = UNSUPPORTED.iter().find(|row| row.0 == command) {
        return Err(
            Failure::new(Code::Unsupported, format!("`{name}` is not available: {why}")).hint(*instead)
        );
    }
    Ok(())
}

/// Where the first word stands that is neither a global flag nor its value.
fn command_position(words: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while at < words.len() {
        let word = words[at].to_str()?;
        match word {
            "--socket" => at += 2,
            _ if word.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// `-registry x`, `-encrypt=false`, `-no-echo` become double-dashed; flags that mean nothing here are left out.
fn daemon_flags(words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some((name, value)) = word.to_str().and_then(split_flag) else {
            kept.push(word);
            continue;
        };
        if let Some((_, takes_value)) = IGNORED.iter().find(|row| row.0 == name) {
            if *takes_value && value.is_none() {
                drop(words.next());
            }
            continue;
        }
        if let Some((_, accepted)) = ONLY.iter().find(|row| row.0 == name) {
            let boolean = accepted.contains(&"false");
            let value = match value {
                Some(value) => value.to_owned(),
                None if boolean => "true".to_owned(),
                None => words.next().and_then(|next| next.into_string().ok()).unwrap_or_default(),
            };
            if !accepted.contains(&value.as_str()) {
                return Err(Failure::new(Code::Unsupported, format!("`-{name}={value}` is not available"))
                    .hint(format!("leave `-{name}` out")));
            }
            continue;
        }
        let name = RENAMED.iter().find(|row| row.0 == name).map_or(name, |row| row.1);
        kept.push(match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        });
    }
    Ok(kept)
}

/// `-name`, `--name`, `-name=value`: the name (two letters or more, `-h` stays clap's) and the value.
fn split_flag(word: &str) -> Option<(&str, Option<&str>)> {
    let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    (name.len() > 1 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<String, Failure> {
        let words = normalise(line.split(' ').map(OsString::from).collect())?;
        Ok(words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_name_pilot_daemon_runs_the_daemon_with_go_flags() {
        assert_eq!(
            run("/usr/bin/pilot-daemon -registry 127.0.0.1:9000 -encrypt=false -no-echo --public").unwrap(),
            "pilotctl daemon run --registry 127.0.0.1:9000 --encrypt=false --no-echo --public"
        );
    }

    #[test]
    fn flags_that_mean_nothing_here_are_left_out_with_their_values() {
        assert_eq!(
            run("pilot-daemon -telemetry-url  -no-skillinject -transport udp -proxy off -hostname a")
                .unwrap(),
            "pilotctl daemon run --transport udp --proxy off --hostname a"
        );
    }

    #[test]
    fn a_flag_that_would_weaken_security_if_ignored_is_refused() {
        let failure = run("pilot-daemon -registry-tls").unwrap_err();
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (Code::Unsupported, "`-registry-tls=true` is not available")
        );
    }

    #[test]
    fn single_dashes_elsewhere_are_left_alone() {
        assert_eq!(run("pilotctl send-message b --data -x").unwrap(), "pilotctl send-message b --data -x");
        assert_eq!(run("pilotctl daemon start -h").unwrap(), "pilotctl daemon start -h");
    }

    #[test]
    fn extras_is_passed_through_and_unsupported_commands_say_why() {
        assert_eq!(run("pilotctl --json extras set-tags a").unwrap(), "pilotctl --json set-tags a");
        for line in
            ["pilotctl register", "pilotctl --socket x --json trust-policy list", "pilotctl extras idp get"]
        {
            let failure = run(line).unwrap_err();
            assert_eq!(failure.code, Code::Unsupported, "{line}");
            assert!(failure.hint.is_some());
        }
    }
}
