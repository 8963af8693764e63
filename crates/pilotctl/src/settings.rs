//! Settings and where each came from: flag over environment over `config.json` over default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilot_rendezvous::store::StoreUrl;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::{Code, Failure};
use crate::{duration, size};

/// What a value of a setting must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Path,
    /// A path, or the URL of a database, whose password is not shown.
    Store,
    /// An IP address, without a port.
    Ip,
    /// `host:port`
    HostPort,
    /// `host:port`, or `off`
    HostPortOrOff,
    /// One or more `host:port`, separated by commas.
    HostPorts,
    Bool,
    Duration,
    /// A number of bytes.
    Size,
    Hostname,
    OneOf(&'static [&'static str]),
}

/// One setting.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) env: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Option<&'static str>,
    pub(crate) about: &'static str,
}

const fn key(
    name: &'static str,
    env: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    about: &'static str,
) -> Key {
    Key { name, env, kind, default, about }
}

/// Every setting there is; `config`, the file, the environment and the daemon's flags all go through this table.
pub(crate) const KEYS: &[Key] = &[
    key(
        "registry",
        "PILOT_REGISTRY",
        Kind::HostPorts,
        None,
        "registry to register with, or several: the next is used when one is lost; unset: the rendezvous of this machine",
    ),
    key(
        "registry_tls",
        "PILOT_REGISTRY_TLS",
        Kind::OneOf(&["auto", "require", "off"]),
        Some("auto"),
        "auto: TLS if the registry speaks it, or ever did; require; off",
    ),
    key(
        "registry_fingerprint",
        "PILOT_REGISTRY_FINGERPRINT",
        Kind::Text,
        None,
        "SHA-256 of the only certificates that registries may show, separated by commas",
    ),
    key(
        "beacon",
        "PILOT_BEACON",
        Kind::HostPorts,
        None,
        "beacon for discovery and relay, or one for each registry; unset: the registry's host, next port",
    ),
    key(
        "beacon_web",
        "PILOT_BEACON_WEB",
        Kind::Text,
        None,
        "URL of the beacon where UDP does not pass; unset: wss://HOST/v1/compat of its host",
    ),
    key(
        "beacon_web_fingerprint",
        "PILOT_BEACON_WEB_FINGERPRINT",
        Kind::Text,
        None,
        "SHA-256 of the only certificate that the beacon may show",
    ),
    key(
        "transport",
        "PILOT_TRANSPORT",
        Kind::OneOf(&["auto", "udp", "web", "compat"]),
        Some("auto"),
        "auto, udp or web: how the beacon is reached",
    ),
    key(
        "proxy",
        "PILOT_PROXY",
        Kind::Text,
        Some("auto"),
        "HTTP proxy to beacon and registry; auto: HTTPS_PROXY and NO_PROXY; off",
    ),
    key(
        "socket",
        "PILOT_SOCKET",
        Kind::Path,
        Some("/tmp/pilot.sock"),
        "socket between programs and the daemon",
    ),
    key("listen", "PILOT_LISTEN", Kind::HostPort, None, "UDP address of the daemon"),
    key(
        "endpoint",
        "PILOT_ENDPOINT",
        Kind::HostPort,
        None,
        "public address to announce instead of the discovered one",
    ),
    key("identity", "PILOT_IDENTITY", Kind::Path, None, "file with the node's Ed25519 key"),
    key("hostname", "PILOT_HOSTNAME", Kind::Hostname, None, "name under which peers find this node"),
    key("email", "PILOT_EMAIL", Kind::Text, None, "owner given to the registry"),
    key("public", "PILOT_PUBLIC", Kind::Bool, None, "let everybody resolve and reach this node"),
    key("encrypt", "PILOT_ENCRYPT", Kind::Bool, Some("true"), "encrypt all tunnels"),
    key(
        "trust_auto_approve",
        "PILOT_TRUST_AUTO_APPROVE",
        Kind::Bool,
        Some("false"),
        "approve every handshake",
    ),
    key("keepalive", "PILOT_KEEPALIVE", Kind::Duration, None, "silence after which a peer is probed"),
    key(
        "idle_timeout",
        "PILOT_IDLE_TIMEOUT",
        Kind::Duration,
        None,
        "silence after which a connection is given up",
    ),
    key(
        "congestion",
        "PILOT_CONGESTION",
        Kind::OneOf(&["cubic", "bbr"]),
        Some("cubic"),
        "how connections find their speed: until packets get lost, or by measuring",
    ),
    key(
        "max_datagram",
        "PILOT_MAX_DATAGRAM",
        Kind::Size,
        None,
        "largest datagram that paths are searched for; unset: 16454; 1222: none is",
    ),
    key(
        "port_mapping",
        "PILOT_PORT_MAPPING",
        Kind::Bool,
        Some("true"),
        "have the gateway map a port (PCP, NAT-PMP, UPnP)",
    ),
    key(
        "lan_discovery",
        "PILOT_LAN_DISCOVERY",
        Kind::Bool,
        Some("true"),
        "find trusted peers in the same network (mDNS)",
    ),
    key(
        "received_max_bytes",
        "PILOT_RECEIVED_MAX_BYTES",
        Kind::Size,
        Some("2GB"),
        "room for all received files, such as 20GB",
    ),
    key(
        "received_max_file",
        "PILOT_RECEIVED_MAX_FILE",
        Kind::Size,
        None,
        "largest received file or folder; unset: the room for all",
    ),
    key(
        "received_min_free",
        "PILOT_RECEIVED_MIN_FREE",
        Kind::Size,
        Some("256MB"),
        "what received files leave free on the disk",
    ),
    key(
        "send_patience",
        "PILOT_SEND_PATIENCE",
        Kind::Duration,
        None,
        "how long send-message waits for a sign of the peer before it says queued; unset: 12 ms and three round trips",
    ),
    key("webhook", "PILOT_WEBHOOK", Kind::Text, None, "URL that is told of events"),
    key("no_echo", "PILOT_NO_ECHO", Kind::Bool, Some("false"), "do not serve echo, port 7"),
    key(
        "no_dataexchange",
        "PILOT_NO_DATAEXCHANGE",
        Kind::Bool,
        Some("false"),
        "do not serve messages and files, port 1001",
    ),
    key(
        "no_eventstream",
        "PILOT_NO_EVENTSTREAM",
        Kind::Bool,
        Some("false"),
        "do not serve events, port 1002",
    ),
    key(
        "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        Kind::Text,
        None,
        "collector of traces (OTLP over HTTP), such as http://127.0.0.1:4318; unset: none, and nothing is traced",
    ),
    key(
        "metrics",
        "PILOT_METRICS",
        Kind::HostPortOrOff,
        None,
        "where metrics are served to Prometheus, such as 127.0.0.1:9465; unset: nowhere",
    ),
    key("no_tasks", "PILOT_NO_TASKS", Kind::Bool, Some("false"), "do not serve tasks, port 1003"),
    key(
        "log_level",
        "PILOT_LOG_LEVEL",
        Kind::Text,
        Some("info"),
        "error, warn, info, debug, trace, or a filter",
    ),
    key("log_format", "PILOT_LOG_FORMAT", Kind::OneOf(&["text", "json"]), Some("text"), "text or json"),
    key(
        "registry_addr",
        "PILOT_REGISTRY_ADDR",
        Kind::HostPort,
        Some("127.0.0.1:9000"),
        "TCP address of this machine's rendezvous",
    ),
    key(
        "beacon_addr",
        "PILOT_BEACON_ADDR",
        Kind::HostPort,
        Some("127.0.0.1:9001"),
        "UDP address of this machine's rendezvous",
    ),
    key(
        "beacon_second_ip",
        "PILOT_BEACON_SECOND_IP",
        Kind::Ip,
        None,
        "another address of this machine, with which nodes learn whether their NAT depends on addresses",
    ),
    key(
        "beacon_advertise",
        "PILOT_BEACON_ADVERTISE",
        Kind::HostPort,
        None,
        "where nodes and other beacons reach the beacon, if that is not where it listens",
    ),
    key(
        "relay_limit",
        "PILOT_RELAY_LIMIT",
        Kind::Size,
        None,
        "bytes a second that the beacon relays for all nodes together, such as 50MB; unset: no limit",
    ),
    key("store", "PILOT_STORE", Kind::Store, None, "file or postgres://... of this machine's rendezvous"),
    key(
        "tls_cert",
        "PILOT_TLS_CERT",
        Kind::Path,
        None,
        "certificate of its registry, a PEM file; unset: one of its own making, kept beside the store",
    ),
    key("tls_key", "PILOT_TLS_KEY", Kind::Path, None, "the key of the certificate, a PEM file"),
    key(
        "plaintext",
        "PILOT_PLAINTEXT",
        Kind::Bool,
        Some("true"),
        "its registry serves nodes without TLS too, as those of 1.18.0 are by default",
    ),
    key(
        "web_listen",
        "PILOT_WEB_LISTEN",
        Kind::HostPortOrOff,
        None,
        "TCP address of its beacon over the web, or off; unset: one port above the beacon",
    ),
    key("web_cert", "PILOT_WEB_CERT", Kind::Path, None, "its certificate there, a PEM file; unset: its own"),
    key("web_key", "PILOT_WEB_KEY", Kind::Path, None, "the key of the certificate, a PEM file"),
    key(
        "http_listen",
        "PILOT_HTTP_LISTEN",
        Kind::HostPortOrOff,
        None,
        "TCP address of its pages (dashboard, metrics), or off; unset: 127.0.0.1, three ports above the registry",
    ),
    key(
        "web_plain",
        "PILOT_WEB_PLAIN",
        Kind::Bool,
        None,
        "no TLS there: behind something that does it; unset: on loopback only",
    ),
];

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    Flag,
    Environment,
    File,
    Default,
    Unset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Flag => "flag",
            Origin::Environment => "environment",
            Origin::File => "file",
            Origin::Default => "default",
            Origin::Unset => "unset",
        })
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

impl Setting {
    /// As it may be seen by others: without the password of a database.
    pub(crate) fn shown(&self, key: &Key) -> Setting {
        let value = match (key.kind, &self.value) {
            (Kind::Store, Some(text)) => {
                Some(text.parse::<StoreUrl>().map_or_else(|_| String::new(), |url| url.to_string()))
            }
            (_, value) => value.clone(),
        };
        Setting { value, origin: self.origin }
    }
}

/// Values said on the command line, by the name of their key.
pub(crate) type Flags = BTreeMap<&'static str, String>;

/// All settings of this invocation.
#[derive(Debug)]
pub(crate) struct Settings {
    home: PathBuf,
    file: PathBuf,
    values: BTreeMap<&'static str, Setting>,
}

impl Settings {
    /// Reads environment and file. `config` replaces `config.json` of the state directory.
    pub(crate) fn load(flags: &Flags, config: Option<&Path>) -> Result<Self, Failure> {
        Self::load_from(flags, config, &|name| std::env::var_os(name))
    }

    fn load_from(
        flags: &Flags,
        config: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let home = home(env)?;
        let file = config.map_or_else(|| home.join("config.json"), Path::to_path_buf);
        let stored = read_file(&file, config.is_some())?;
        let mut values = BTreeMap::new();
        for key in KEYS {
            values.insert(key.name, resolve(key, flags, env, &stored, &file)?);
        }
        Ok(Settings { home, file, values })
    }

    /// The directory with all state of this user: `$PILOT_HOME` or `$HOME/.pilot`.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Each key with its value and origin, in the order of [`KEYS`].
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static Key, &Setting)> {
        KEYS.iter().filter_map(|key| Some((key, self.values.get(key.name)?)))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(KEYS.iter().any(|key| key.name == name), "no setting is called {name}");
        self.values.get(name)?.value.as_deref().filter(|value| !value.is_empty())
    }

    /// Values were checked when they were read, so a boolean that is not `true` is false.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.get(name).and_then(|text| duration::parse(text).ok())
    }

    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|text| size::parse(text).ok())
    }

    /// Checked when it was read, as with a boolean.
    pub(crate) fn ip(&self, name: &str) -> Option<IpAddr> {
        self.get(name).and_then(|text| text.parse().ok())
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("socket").unwrap_or_else(|| PathBuf::from("/tmp/pilot.sock"))
    }

    /// The configured registries, empty if this machine's own is meant.
    pub(crate) fn registries(&self) -> Vec<String> {
        self.list("registry")
    }

    /// The parts of a setting that are separated by commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map_or_else(Vec::new, |list| list.split(',').map(|s| s.trim().to_owned()).collect())
    }
}

fn home(env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PILOT_HOME").or_else(|| Some(set("HOME")?.join(".pilot"))).ok_or_else(|| {
        Failure::usage("neither PILOT_HOME nor HOME is set, so there is no place for state")
            .hint("set PILOT_HOME to a directory of yours")
    })
}

fn resolve(
    key: &Key,
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<OsString>,
    stored: &Map<String, Value>,
    file: &Path,
) -> Result<Setting, Failure> {
    let found = |value: String, origin: Origin, place: String| match check(key, &value) {
        Ok(value) => Ok(Setting { value: Some(value), origin }),
        Err(why) => Err(Failure::usage(format!("{place}: {why}"))),
    };
    if let Some(value) = flags.get(key.name) {
        return found(value.clone(), Origin::Flag, format!("--{}", key.name.replace('_', "-")));
    }
    if let Some(value) = env(key.env).filter(|value| !value.is_empty()) {
        let value =
            value.into_string().map_err(|_| Failure::usage(format!("{} is not valid UTF-8", key.env)))?;
        return found(value, Origin::Environment, key.env.to_owned());
    }
    if let Some(value) = stored.get(key.name).and_then(scalar) {
        return found(value, Origin::File, format!("`{}` in {}", key.name, file.display()));
    }
    Ok(match key.default {
        Some(value) => Setting { value: Some(value.to_owned()), origin: Origin::Default },
        None => Setting { value: None, origin: Origin::Unset },
    })
}

/// Checks a value of `key` and writes it in its usual form. An empty text means "not set".
fn check(key: &Key, value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    let fail = |expected: &str| Err(format!("`{value}` is not {expected}"));
    match key.kind {
        Kind::Text | Kind::Path => Ok(value.to_owned()),
        // What is wrong is said without the value, which may hold a password.
        Kind::Store => match value.parse::<StoreUrl>() {
            Ok(_) => Ok(value.to_owned()),
            Err(error) => Err(error.to_string()),
        },
        Kind::Ip => match value.parse::<IpAddr>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) => fail("an IP address"),
        },
        Kind::HostPort if is_host_port(value) => Ok(value.to_owned()),
        Kind::HostPort => fail("host:port"),
        Kind::HostPortOrOff if value == "off" || is_host_port(value) => Ok(value.to_owned()),
        Kind::HostPortOrOff => fail("host:port or off"),
        Kind::HostPorts if value.split(',').all(|part| is_host_port(part.trim())) => Ok(value.to_owned()),
        Kind::HostPorts => fail("host:port, or several separated by commas"),
        Kind::Bool => match value {
            "true" | "1" | "yes" | "on" => Ok("true".to_owned()),
            "false" | "0" | "no" | "off" => Ok("false".to_owned()),
            _ => fail("true or false"),
        },
        Kind::Duration => duration::parse(value).map(|_| value.to_owned()),
        Kind::Size => size::parse(value).map(|_| value.to_owned()),
        Kind::Hostname if is_hostname(value) => Ok(value.to_owned()),
        Kind::Hostname => fail("a hostname: 1 to 63 of a-z, 0-9 and `-`, no `-` at either end"),
        Kind::OneOf(words) if words.contains(&value) => Ok(value.to_owned()),
        Kind::OneOf(words) => fail(&format!("one of {}", words.join(", "))),
    }
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // Go programs write ":9000" for every interface.
    let host_ok = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    host_ok && port.parse::<u16>().is_ok()
}

/// Whether the registry would take `text` as a hostname.
pub(crate) fn is_hostname(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `host:port`; `:port` is every interface, as Go programs write it.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, Failure> {
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    }
    let mut found = text.to_socket_addrs().map_err(|e| {
        Failure::new(Code::InvalidArgument, format!("`{text}` is not an address to listen on: {e}"))
    })?;
    found.next().ok_or_else(|| Failure::usage(format!("`{text}` is not an address to listen on")))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn read_file(path: &Path, must_exist: bool) -> Result<Map<String, Value>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(Map::new()),
        Err(e) => return Err(Failure::io(format!("reading {}", path.display()), &e)),
    };
    let broken = |why: String| {
        Failure::new(Code::InvalidArgument, format!("{} is not usable: {why}", path.display()))
            .hint("correct it or move it away; it is a JSON object such as {\"registry\": \"host:9000\"}")
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(broken("it does not hold a JSON object".to_owned())),
        Err(e) => Err(broken(e.to_string())),
    }
}

/// Changes values of the settings file and leaves all others as they are; `None` removes one. Private (0600),
/// and replaced in one step, so that a reader never sees half of it.
pub(crate) fn store(path: &Path, changes: &[(&str, Option<&str>)]) -> Result<(), Failure> {
    let mut map = read_file(path, false)?;
    for (name, value) in changes {
        let Some(key) = KEYS.iter().find(|key| key.name == *name) else {
            return Err(unknown_key(name));
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            map.remove(*name);
            continue;
        };
        let value = check(key, value).map_err(|why| Failure::usage(format!("{name}: {why}")))?;
        map.insert(
            (*name).to_owned(),
            if key.kind == Kind::Bool { Value::Bool(value == "true") } else { value.into() },
        );
    }
    let text = serde_json::to_string_pretty(&map).map_err(|e| Failure::internal(e.to_string()))?;
    write_private(path, (text + "\n").as_bytes())
        .map_err(|e| Failure::io(format!("writing {}", path.display()), &e))
}

fn unknown_key(name: &str) -> Failure {
    let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    Failure::usage(format!("no setting is called `{name}`")).hint(format!("known: {}", known.join(", ")))
}

/// Makes a directory that only its owner can enter, if there is none.
pub(crate) fn private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file only its owner can read, by way of a temporary neighbour.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> Result<Settings, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.json");
        std::fs::write(&config, file).unwrap();
        let flags = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let env: Vec<(String, String)> = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let lookup = move |name: &str| {
            let found = env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
            found.or((name == "HOME").then_some("/home/x")).map(OsString::from)
        };
        Settings::load_from(&flags, Some(&config), &lookup)
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let file = r#"{"socket": "/file"}"#;
        let origin = |flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str| {
            let settings = load(flags, env, file).unwrap();
            (settings.socket(), settings.values["socket"].origin)
        };
        let env = [("PILOT_SOCKET", "/env")];
        assert_eq!(origin(&[("socket", "/flag")], &env, file), (PathBuf::from("/flag"), Origin::Flag));
        assert_eq!(origin(&[], &env, file), (PathBuf::from("/env"), Origin::Environment));
        assert_eq!(origin(&[], &[], file), (PathBuf::from("/file"), Origin::File));
        assert_eq!(origin(&[], &[], "{}"), (PathBuf::from("/tmp/pilot.sock"), Origin::Default));
    }

    #[test]
    fn a_wrong_value_is_reported_with_the_place_it_came_from() {
        let failure = load(&[], &[("PILOT_REGISTRY", "nonsense")], "{}").unwrap_err();
        assert_eq!(
            failure.message,
            "PILOT_REGISTRY: `nonsense` is not host:port, or several separated by commas"
        );
        let failure = load(&[("beacon_second_ip", "203.0.113.2:9001")], &[], "{}").unwrap_err();
        assert_eq!(failure.message, "--beacon-second-ip: `203.0.113.2:9001` is not an IP address");
        assert!(load(&[], &[], "[]").unwrap_err().message.contains("does not hold a JSON object"));
    }

    #[test]
    fn files_of_the_reference_with_text_booleans_and_foreign_keys_are_read() {
        let settings = load(&[], &[], r#"{"public":"true","no_echo":true,"telemetry_url":""}"#).unwrap();
        assert!(settings.is_on("public") && settings.is_on("no_echo"));
    }

    #[test]
    fn storing_keeps_what_it_does_not_know_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.json");
        store(&path, &[("hostname", Some("agent-b")), ("public", Some("yes"))]).unwrap();
        let mut map = read_file(&path, true).unwrap();
        map.insert("motd_interval".into(), "1h".into());
        std::fs::write(&path, Value::Object(map).to_string()).unwrap();
        store(&path, &[("hostname", None)]).unwrap();
        let map = read_file(&path, true).unwrap();
        assert_eq!(Value::Object(map), serde_json::json!({"public": true, "motd_interval": "1h"}));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_known_ones_are_named() {
        let failure = store(Path::new("/nonexistent/c.json"), &[("foo", Some("1"))]).unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert!(failure.hint.unwrap().contains("registry"));
    }
}
