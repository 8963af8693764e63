//! What a service manager is told: the texts of `packaging/`, with this executable in them.

const SYSTEMD_USER: &str = include_str!("../../../../../../packaging/systemd/user/pilot.service");
const SYSTEMD_SYSTEM: &str = include_str!("../../../../../../packaging/systemd/pilot.service");
const LAUNCHD: &str = include_str!("../../../../../../packaging/launchd/net.pilot.daemon.plist");

/// In the first lines of what was written here, so that nothing else is ever replaced or removed.
const MARK: &str = "Written by: pilotctl daemon install. Taken back by: pilotctl daemon uninstall.";

/// What is the service's own.
pub(super) struct Facts<'a> {
    pub(super) executable: &'a str,
    /// `PILOT_HOME`, if it is not the one that everybody has.
    pub(super) home: Option<&'a str>,
    /// Settings file, if it is not that of the state directory.
    pub(super) config: Option<&'a str>,
}

/// Whether a file was written here.
pub(super) fn is_ours(text: &str) -> bool {
    text.lines().take(6).any(|line| line.contains(MARK))
}

pub(super) fn systemd(system: bool, facts: &Facts<'_>) -> String {
    let text = if system { SYSTEMD_SYSTEM } else { SYSTEMD_USER };
    let mut unit = format!("# {MARK}\n");
    for line in text.lines() {
        match line.strip_prefix("ExecStart=/usr/bin/pilotctl ") {
            Some(words) => {
                unit += &format!("ExecStart={} {words}", word(facts.executable));
                if let Some(config) = facts.config {
                    unit += &format!(" --config {}", word(config));
                }
                if let Some(home) = facts.home {
                    unit += &format!("\nEnvironment={}", quoted(&format!("PILOT_HOME={home}")));
                }
            }
            None => unit += line,
        }
        unit.push('\n');
    }
    unit
}

/// A word of a command, in which systemd puts the values of variables (systemd.service(5)).
fn word(text: &str) -> String {
    quoted(&text.replace('$', "$$"))
}

/// A word of a setting, as systemd reads them (systemd.syntax(7), systemd.unit(5)).
fn quoted(text: &str) -> String {
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=%$".contains(c) || !c.is_ascii();
    if text.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn launchd(facts: &Facts<'_>) -> String {
    let mut plist = String::new();
    for line in LAUNCHD.lines() {
        match line {
            "    <string>/usr/local/bin/pilotctl</string>" => {
                plist += &format!("    <string>{}</string>", xml(facts.executable));
            }
            "    <string>run</string>" => {
                plist += line;
                for word in facts.config.iter().flat_map(|config| ["--config", *config]) {
                    plist += &format!("\n    <string>{}</string>", xml(word));
                }
            }
            "  <key>RunAtLoad</key>" => {
                if let Some(home) = facts.home {
                    plist += "  <key>EnvironmentVariables</key>\n  <dict>\n    <key>PILOT_HOME</key>\n";
                    plist += &format!("    <string>{}</string>\n  </dict>\n", xml(home));
                }
                plist += line;
            }
            _ if line.starts_with("<plist") => plist += &format!("<!-- {MARK} -->\n{line}"),
            _ => plist += line,
        }
        plist.push('\n');
    }
    plist
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A file of variables (systemd.exec(5)) with these set, and all else in it as it was.
pub(super) fn environment(old: &str, set: &[(&str, String)]) -> String {
    let is_set = |line: &str| {
        let name = line.trim_start().split('=').next().unwrap_or_default().trim_end();
        set.iter().any(|(key, _)| *key == name)
    };
    let kept = old.lines().filter(|line| !is_set(line)).map(str::to_owned);
    let new = set.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c);
        match value.chars().all(plain) {
            true => format!("{key}={value}"),
            false => {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
                format!("{key}=\"{}\"", escaped.replace('`', "\\`"))
            }
        }
    });
    kept.chain(new).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts { executable: "/opt/my tools/100%/pilotctl", home: None, config: None };

    #[test]
    fn a_unit_is_that_of_the_packages_with_another_executable() {
        for system in [false, true] {
            let unit = systemd(system, &FACTS);
            assert!(is_ours(&unit) && unit.contains("ExecStart=\"/opt/my tools/100%%/pilotctl\" daemon run"));
            let text = if system { SYSTEMD_SYSTEM } else { SYSTEMD_USER };
            let changed = unit.lines().filter(|line| !text.lines().any(|old| old == *line));
            assert_eq!(changed.count(), 2, "the mark and the executable: {unit}");
        }
        let facts = Facts { home: Some("/srv/$a"), config: Some("/etc/x y"), ..FACTS };
        let unit = systemd(false, &facts);
        assert!(
            unit.contains("pilotctl\" daemon run --config \"/etc/x y\"\nEnvironment=PILOT_HOME=/srv/$a\n"),
            "{unit}"
        );
        assert!(!is_ours(SYSTEMD_USER) && !is_ours(LAUNCHD));
    }

    #[test]
    fn a_plist_is_that_of_the_package_with_another_executable() {
        let facts = Facts { executable: "/a & b/pilotctl", home: Some("/h"), config: Some("/c<d") };
        let plist = launchd(&facts);
        assert!(is_ours(&plist) && plist.starts_with("<?xml"));
        for part in [
            "<string>/a &amp; b/pilotctl</string>",
            "<string>--config</string>\n    <string>/c&lt;d</string>",
        ] {
            assert!(plist.contains(part), "{plist}");
        }
        assert!(plist.contains("<key>PILOT_HOME</key>\n    <string>/h</string>"), "{plist}");
    }

    #[test]
    fn variables_that_are_not_ours_stay() {
        let old = "# mine\nPILOT_ADMIN_TOKEN=x\nPILOT_HOSTNAME=old\n";
        let set = [("PILOT_HOSTNAME", "new".to_owned()), ("PILOT_WEBHOOK", "http://h/?a b$".to_owned())];
        let new = environment(old, &set);
        assert_eq!(
            new,
            "# mine\nPILOT_ADMIN_TOKEN=x\nPILOT_HOSTNAME=new\nPILOT_WEBHOOK=\"http://h/?a b\\$\"\n"
        );
        assert_eq!(environment(&new, &set), new);
    }
}
