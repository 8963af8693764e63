//! `pilotctl netcheck`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl netcheck\n  pilotctl netcheck --json")]
pub(crate) struct Args {}

use std::fmt;
use std::time::Duration;

use pilot_wire::ipc::paths::{Answering, Behaviour, Netcheck};
use pilot_wire::ipc::{LanStatus, MappingProtocol, MappingState, PortMappingStatus, WebLink};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::paths::rtt;
use crate::style;

/// The daemon's survey takes up to 3 s where nothing answers.
const WAIT: Duration = Duration::from_millis(3500);

#[derive(Serialize)]
#[serde(transparent)]
struct Report(Netcheck);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = &self.0;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<13} {value}");
        row("UDP", udp(check.udp))?;
        row("beacon", answering(&check.beacon, "none"))?;
        row("seen as", check.observed.map_or_else(|| "-".to_owned(), |address| address.to_string()))?;
        row("NAT", mapping(check))?;
        if check.nat.mapping != Behaviour::None || check.nat.filtering != Behaviour::None {
            row("filtering", check.nat.filtering.name().to_owned())?;
        }
        row("outside port", word(check.port_preserved, "the inside one", "another than the inside one"))?;
        row("hairpinning", word(check.hairpinning, "yes", "no"))?;
        row("IPv6", if check.ipv6 { "yes" } else { "none" }.to_owned())?;
        row("listens on", check.listen.clone())?;
        for (index, candidate) in check.candidates.iter().enumerate() {
            let name = if index == 0 { "reached at" } else { "" };
            row(name, format!("{:<28} {}", candidate.address.to_string(), candidate.kind.words()))?;
        }
        if let Some(link) = &check.web {
            row("web", web(link))?;
        }
        row("port mapping", port_mapping(&check.port_mapping))?;
        row("LAN", lan(&check.lan_discovery))?;
        row("registry", answering(&check.registry, "none"))?;
        row("transport", check.transport.clone())
    }
}

fn udp(works: Option<bool>) -> String {
    match works {
        Some(true) => style::good("works"),
        Some(false) => style::bad("nothing comes back"),
        None => "not known without a beacon".to_owned(),
    }
}

fn answering(who: &Answering, nobody: &str) -> String {
    if who.address.is_empty() {
        return nobody.to_owned();
    }
    let state = match (who.answers, who.rtt_us) {
        (true, Some(us)) => format!("answers in {}", rtt(Some(us))),
        (true, None) => "answers".to_owned(),
        (false, _) if who.error.is_empty() => style::bad("does not answer"),
        (false, _) => format!("{} ({})", style::bad("does not answer"), who.error),
    };
    format!("{} · {state}", who.address)
}

/// The mapping, with what one beacon address cannot tell.
fn mapping(check: &Netcheck) -> String {
    match check.nat.mapping {
        Behaviour::Unknown => "not measured".to_owned(),
        Behaviour::None => "none: the outside address is the inside one".to_owned(),
        Behaviour::EndpointIndependent if !check.second_address => {
            "endpoint-independent mapping (or address-dependent: the beacon has one address only)".to_owned()
        }
        known @ (Behaviour::EndpointIndependent
        | Behaviour::AddressDependent
        | Behaviour::AddressAndPortDependent) => format!("{} mapping", known.name()),
    }
}

fn port_mapping(mapping: &PortMappingStatus) -> String {
    let reason = if mapping.reason.is_empty() { String::new() } else { format!(" ({})", mapping.reason) };
    match mapping.state {
        MappingState::Off => format!("off{reason}"),
        MappingState::NotNeeded => format!("not needed{reason}"),
        MappingState::Asking => "the gateway is being asked".to_owned(),
        MappingState::Mapped => {
            let external = mapping.external.map_or_else(|| "an address".to_owned(), |to| to.to_string());
            let protocol = mapping.protocol.map_or("unknown", MappingProtocol::name);
            format!("{external} by {protocol}")
        }
        MappingState::Failed => format!("none{reason}"),
        MappingState::Unknown => "unknown".to_owned(),
    }
}

fn web(link: &WebLink) -> String {
    let url = if link.url.is_empty() { "-" } else { &link.url };
    let proxy = link.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"));
    match (&link.error, link.connected) {
        (_, true) => format!("{url}{proxy} · in use instead of UDP"),
        (Some(error), false) => format!("{url}{proxy} · {} ({error})", style::bad("does not work")),
        (None, false) => format!("{url}{proxy} · being tried"),
    }
}

fn lan(lan: &LanStatus) -> String {
    match (lan.on, lan.reason.as_str()) {
        (true, _) => "trusted peers in this network are found".to_owned(),
        (false, "") => "off".to_owned(),
        (false, reason) => format!("off ({reason})"),
    }
}

fn word(known: Option<bool>, yes: &str, no: &str) -> String {
    known.map_or("not measured", |is| if is { yes } else { no }).to_owned()
}

/// `pilotctl netcheck`: prints what it found in any case; the exit status tells whether the node can work.
pub(crate) async fn run(ctx: &Context, _: &Args) -> Result<Output, Failure> {
    let check = ctx.client().await?.netcheck(WAIT).await?;
    let cut_off = is_cut_off(&check);
    let output = Output::of(Report(check));
    Ok(if cut_off { output.exiting_as(Code::ConnectionFailed) } else { output })
}

/// Datagrams do not pass and nothing stands in for them, or the registry does not answer.
fn is_cut_off(check: &Netcheck) -> bool {
    let udp_missing = check.udp == Some(false) && check.transport == "udp";
    udp_missing || (!check.registry.address.is_empty() && !check.registry.answers)
}

#[cfg(test)]
mod tests {
    use pilot_wire::ipc::paths::{Nat, OwnCandidate, OwnKind};

    use super::*;

    fn behind_a_box() -> Netcheck {
        let own = |address: &str, kind| OwnCandidate { address: address.parse().unwrap(), kind };
        Netcheck {
            udp: Some(true),
            beacon: Answering {
                address: "beacon.example.com:9001".into(),
                answers: true,
                rtt_us: Some(18_400),
                error: String::new(),
            },
            registry: Answering {
                address: "registry.example.com:9000".into(),
                answers: true,
                rtt_us: Some(21_050),
                error: String::new(),
            },
            listen: "0.0.0.0:4000".into(),
            candidates: vec![
                own("192.168.1.5:4000", OwnKind::Host),
                own("[2001:db8::5]:4000", OwnKind::Host),
                own("203.0.113.9:40000", OwnKind::Observed),
            ],
            ipv6: true,
            observed: Some("203.0.113.9:40000".parse().unwrap()),
            nat: Nat {
                mapping: Behaviour::EndpointIndependent,
                filtering: Behaviour::AddressAndPortDependent,
            },
            second_address: true,
            port_preserved: Some(false),
            hairpinning: Some(true),
            transport: "udp".into(),
            web: None,
            port_mapping: PortMappingStatus {
                state: MappingState::Mapped,
                protocol: Some(MappingProtocol::NatPmp),
                external: Some("203.0.113.9:4000".parse().unwrap()),
                ..PortMappingStatus::default()
            },
            lan_discovery: LanStatus { on: true, reason: String::new() },
        }
    }

    fn shown(check: Netcheck) -> String {
        anstream::adapter::strip_str(&Report(check).to_string()).to_string()
    }

    #[test]
    fn a_box_is_described_in_the_words_of_the_rfc() {
        assert!(!is_cut_off(&behind_a_box()));
        insta::assert_snapshot!("box", shown(behind_a_box()));
    }

    #[test]
    fn what_one_address_of_the_beacon_cannot_tell_is_said() {
        let check = Netcheck { second_address: false, ..behind_a_box() };
        assert!(shown(check).contains(
            "endpoint-independent mapping (or address-dependent: the beacon has one address only)"
        ));
        let open = Nat { mapping: Behaviour::None, filtering: Behaviour::None };
        let open = shown(Netcheck { nat: open, second_address: false, ..behind_a_box() });
        assert!(open.contains("none: the outside address is the inside one") && !open.contains("filtering"));
    }

    #[test]
    fn a_network_without_udp_or_registry_is_a_failure_to_scripts() {
        let no_udp = Netcheck { udp: Some(false), ..behind_a_box() };
        assert!(is_cut_off(&no_udp));
        let link = WebLink {
            url: "https://beacon.example.com/v1/compat".into(),
            connected: true,
            proxy: Some("proxy.example.com:3128".into()),
            ..WebLink::default()
        };
        let over_web = Netcheck { transport: "web".into(), web: Some(link), ..no_udp };
        assert!(!is_cut_off(&over_web));
        assert!(shown(over_web).contains(
            "https://beacon.example.com/v1/compat through proxy.example.com:3128 · in use instead of UDP"
        ));
        let registry = Answering {
            address: "registry.example.com:9000".into(),
            error: "connection refused".into(),
            ..Answering::default()
        };
        let alone = Netcheck { registry, udp: None, beacon: Answering::default(), ..Netcheck::default() };
        assert!(is_cut_off(&alone));
        insta::assert_snapshot!("alone", shown(alone));
        assert!(!is_cut_off(&Netcheck::default()), "no registry is no fault of the network");
    }
}
