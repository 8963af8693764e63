//! Where the beacon is over the web: a URL that was given, or what follows from the beacon's address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use pilot_wire::web::PATH;
use tokio_tungstenite::tungstenite::http::Uri;

/// A beacon over the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Why a text is no URL of a beacon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It cannot be read at all.
    #[error("`{0}` is not a URL")]
    Unreadable(String),
    /// Another scheme.
    #[error("`{0}` does not begin with wss:// (or ws://, without TLS)")]
    Scheme(String),
    /// Another path. It is fixed.
    #[error("`{0}` has another path than {PATH}")]
    Path(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unreadable = || TargetError::Unreadable(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| unreadable())?;
        let tls = match uri.scheme_str() {
            Some("wss" | "https") => true,
            Some("ws" | "http") => false,
            Some(_) | None => return Err(TargetError::Scheme(text.to_owned())),
        };
        if ![PATH, "/", ""].contains(&uri.path()) {
            return Err(TargetError::Path(text.to_owned()));
        }
        let host = host_of(&uri).ok_or_else(unreadable)?;
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }
}

impl Target {
    /// As in a `Host` header and in a proxy's request.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// The host that a URL names: an address without brackets, or what can be a name.
pub(super) fn host_of(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => return inside.parse::<Ipv6Addr>().is_ok().then(|| inside.to_owned()),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    (is_host && !host.is_empty()).then(|| host.to_owned())
}

pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls { ("wss", 443) } else { ("ws", 80) };
        match self.port == usual {
            true if self.host.contains(':') => write!(f, "{scheme}://[{}]{PATH}", self.host),
            true => write!(f, "{scheme}://{}{PATH}", self.host),
            false => write!(f, "{scheme}://{}{PATH}", self.authority()),
        }
    }
}

/// The URLs at which a beacon is looked for when none is given: the port of the web, and the one beside the beacon's,
/// where `pilotctl rendezvous run` listens. The rendezvous of this machine has only the latter, without TLS.
#[must_use]
pub fn derived(beacon: &str) -> Vec<String> {
    let Some((host, port)) = beacon.rsplit_once(':') else { return Vec::new() };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let beside = port.parse::<u16>().ok().and_then(|port| port.checked_add(1));
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let beside = beside.map(|port| Target { tls: !is_here, host: host.to_owned(), port });
    let usual = (!is_here).then(|| Target { tls: true, host: host.to_owned(), port: 443 });
    usual.into_iter().chain(beside).map(|target| target.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (text, tls, host, port, written) in [
            ("wss://b.example/v1/compat", true, "b.example", 443, "wss://b.example/v1/compat"),
            ("wss://b.example", true, "b.example", 443, "wss://b.example/v1/compat"),
            ("https://b.example:8443/", true, "b.example", 8443, "wss://b.example:8443/v1/compat"),
            ("ws://127.0.0.1:9002/v1/compat", false, "127.0.0.1", 9002, "ws://127.0.0.1:9002/v1/compat"),
            ("wss://[2001:db8::1]/v1/compat", true, "2001:db8::1", 443, "wss://[2001:db8::1]/v1/compat"),
            ("ws://[::1]:9002", false, "::1", 9002, "ws://[::1]:9002/v1/compat"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target, Target { tls, host: host.to_owned(), port });
            assert_eq!(target.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_url_of_a_beacon_is_refused_with_the_reason() {
        for (text, reason) in [
            ("b.example:443", "wss://"),
            ("ftp://b.example", "wss://"),
            ("wss://b.example/other", "path"),
            ("wss://", "URL"),
            ("wss://b.example,[::1]", "URL"),
            ("wss://[b.example]", "URL"),
            ("", "URL"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn where_to_look_follows_from_the_beacons_address() {
        assert_eq!(
            derived("b.example:9001"),
            ["wss://b.example/v1/compat", "wss://b.example:9002/v1/compat"]
        );
        assert_eq!(derived("127.0.0.1:9001"), ["ws://127.0.0.1:9002/v1/compat"]);
        assert_eq!(derived("localhost:9001"), ["ws://localhost:9002/v1/compat"]);
        assert_eq!(derived("[::1]:9001"), ["ws://[::1]:9002/v1/compat"]);
        assert_eq!(derived("b.example:65535"), ["wss://b.example/v1/compat"]);
        assert_eq!(derived("nonsense"), [""; 0]);
    }
}
