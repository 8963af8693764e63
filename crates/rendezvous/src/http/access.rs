//! Who may see what.
//!
//! Strangers see sums. Names of closed networks, and how the process is doing, are for this machine and for whoever has
//! the token. A copy of the records takes the other token, and this machine: the connection is not encrypted.

use super::{Desk, doors::Caller};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use pilot_crypto::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc};

/// What a visitor may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visitor {
    /// Everything but the records.
    pub(super) is_insider: bool,
    /// The records.
    pub(super) may_copy: bool,
}

impl FromRequestParts<Arc<Desk>> for Visitor {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, StatusCode> {
        let caller = ConnectInfo::<Caller>::from_request_parts(parts, desk).await;
        let ConnectInfo(Caller(peer)) = caller.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(judge(peer.ip(), &parts.headers, desk.token.as_ref(), desk.control.as_ref()))
    }
}

fn judge(peer: IpAddr, headers: &HeaderMap, token: Option<&Digest>, control: Option<&Digest>) -> Visitor {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        // Digests are compared, so that the time taken tells nothing about the token.
        .map(|given| Sha256::digest(given.trim().as_bytes()));
    let has = |wanted: Option<&Digest>| wanted.is_some_and(|wanted| given.as_ref() == Some(wanted));
    let is_here = peer.is_loopback() && !is_passed_on(headers) && names_this_machine(headers);
    Visitor { is_insider: is_here || has(token) || has(control), may_copy: is_here && has(control) }
}

/// A web server on this machine passes strangers on, and says so. Such words are believed only against a visitor.
fn is_passed_on(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// A foreign page in a browser of this machine comes with the foreign page's name, whatever that resolves to.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AFAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    fn asks(peer: IpAddr, headers: &[(&'static str, &'static str)]) -> (bool, bool) {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let [token, control] = ["token", "control"].map(|text| Sha256::digest(text.as_bytes()));
        let visitor = judge(peer, &headers.collect(), Some(&token), Some(&control));
        (visitor.is_insider, visitor.may_copy)
    }

    #[test]
    fn only_this_machine_and_who_has_the_token_are_insiders() {
        assert_eq!(asks(HERE, &[("host", "127.0.0.1:9003")]), (true, false));
        assert_eq!(asks(HERE, &[("host", "[::1]:9003")]), (true, false));
        assert_eq!(asks(AFAR, &[("host", "127.0.0.1:9003")]), (false, false));
        assert_eq!(asks(AFAR, &[("authorization", "Bearer token")]), (true, false));
        assert_eq!(asks(AFAR, &[("authorization", "Bearer tokem")]), (false, false));
        assert_eq!(asks(AFAR, &[("x-real-ip", "127.0.0.1"), ("x-forwarded-for", "::1")]), (false, false));
    }

    #[test]
    fn who_is_passed_on_or_misled_by_a_name_is_a_stranger() {
        assert_eq!(asks(HERE, &[("x-forwarded-for", "203.0.113.7")]), (false, false));
        assert_eq!(asks(HERE, &[("host", "evil.example:9003")]), (false, false));
        assert_eq!(
            asks(HERE, &[("host", "evil.example"), ("authorization", "Bearer control")]),
            (true, false)
        );
    }

    #[test]
    fn the_records_take_the_other_token_and_this_machine() {
        assert_eq!(asks(HERE, &[("authorization", "Bearer control")]), (true, true));
        assert_eq!(asks(HERE, &[("authorization", "Bearer token")]), (true, false));
        assert_eq!(asks(AFAR, &[("authorization", "Bearer control")]), (true, false));
    }

    #[test]
    fn without_tokens_none_is_right() {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer "))]);
        assert_eq!(judge(AFAR, &headers, None, None), Visitor { is_insider: false, may_copy: false });
    }
}
