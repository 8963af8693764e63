//! `pilotctl why`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl why agent-b\n  pilotctl why agent-b --no-try      (ask nobody, only say what is known)\n  pilotctl why 0:0000.0000.0002 --json"
)]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// How long the peer and the registry may take to answer
    #[arg(long, default_value = "2s", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Try nothing and ask nobody: only say what is known
    #[arg(long)]
    pub(crate) no_try: bool,
}

use std::fmt;

use pilot_wire::ipc::TrustState;
use pilot_wire::ipc::paths::{Candidate, Listing, Nat, PathKind, RelayState, Why};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::paths::{ago_ms, nat, rtt};
use crate::{duration, style, target};

#[derive(Serialize)]
#[serde(transparent)]
struct Report(Why);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.0;
        writeln!(f, "{}", style::strong(&why.summary))?;
        for (name, value) in brief(why) {
            let value = if name == ALARM { style::bad(value) } else { value };
            writeln!(f, "  {name:<10} {value}")?;
        }
        if why.candidates.is_empty() {
            return writeln!(f, "  no address of it is known");
        }
        let heading = format!(
            "  {:<28} {:<28} {:>10} {:>5} {:>10} {:>10}",
            "CANDIDATE", "FROM", "TRIED", "TRIES", "ANSWERED", "RTT"
        );
        writeln!(f, "{}", style::faint(heading))?;
        why.candidates.iter().try_for_each(|candidate| writeln!(f, "{}", line(candidate)))
    }
}

/// The name of a row that is no good news.
const ALARM: &str = "alarm";

/// All but the summary and the addresses that were tried.
pub(crate) fn brief(why: &Why) -> Vec<(&'static str, String)> {
    let mut rows = vec![("address", format!("{} · node {}", why.address, why.node_id)), ("path", path(why))];
    if let Some(cause) = why.relayed_because {
        rows.push(("relayed", format!("because {}", cause.words())));
    }
    if let Some(ms) = why.next_try_ms {
        rows.push(("next try", format!("in {}", duration::show(Duration::from_millis(ms)))));
    }
    let networks: Vec<String> = why.networks.iter().map(|id| format!("network {id}")).collect();
    let reason =
        if networks.is_empty() { String::new() } else { format!(" as a member of {}", networks.join(", ")) };
    rows.push(("trust", format!("{}{reason}", trust(why.trust))));
    let tunnel = if why.encrypted { "encrypted" } else { "none" };
    let heard = why.heard_ms.map_or_else(|| "never heard".to_owned(), |ms| format!("heard {}", ago_ms(ms)));
    rows.push(("tunnel", format!("{tunnel} · {heard}")));
    rows.push(("registry", registry(why)));
    rows.extend(why.alarms.iter().map(|alarm| (ALARM, alarm.clone())));
    rows.push(("relay", relay(why)));
    rows.push(("our NAT", nat_or_nothing(why.our_nat)));
    rows.push(("their NAT", nat_or_nothing(why.their_nat)));
    rows
}

fn path(why: &Why) -> String {
    let endpoint = why.endpoint.map_or_else(|| "an unknown address".to_owned(), |at| at.to_string());
    let way = match why.path {
        PathKind::Direct => format!("direct to {endpoint}"),
        PathKind::Relayed => format!("relayed by {endpoint}"),
        PathKind::Unknown | PathKind::Other => "none is known".to_owned(),
    };
    let since = why.since_ms.map(|ms| format!(" · for {}", duration::show(Duration::from_millis(ms))));
    let rtt = why.rtt_us.map(|us| format!(" · {}", rtt(Some(us))));
    let text = format!("{way}{}{}", rtt.unwrap_or_default(), since.unwrap_or_default());
    let gone = why.probe.is_some_and(|probe| !probe.answered) && why.path != PathKind::Unknown;
    if gone { format!("{text} · no answer now") } else { text }
}

fn trust(state: TrustState) -> &'static str {
    match state {
        TrustState::None => "none: ask for it with `pilotctl handshake`",
        TrustState::Pending => "it asks for ours: see `pilotctl pending`",
        TrustState::Requested => "asked for, and not answered yet",
        TrustState::Trusted => "trusted",
        TrustState::Rejected => "declined by its owner",
        TrustState::Revoked => "taken back",
    }
}

fn registry(why: &Why) -> String {
    let seen = why.seen_secs.map(|secs| format!("heard of it {}", ago_ms(secs.saturating_mul(1000))));
    let said = match why.registry {
        Listing::NotAsked => "not asked",
        Listing::Listed => "knows it",
        Listing::Private => "knows it; it is private and does not trust this node",
        Listing::NotFound => "does not know it",
        Listing::Refused | Listing::Other => "does not say",
        Listing::Unreachable => "cannot be reached",
    };
    let shows_error = matches!(why.registry, Listing::Refused | Listing::Unreachable);
    let error = match why.registry_error.as_str() {
        "" => String::new(),
        error if shows_error => format!(" ({error})"),
        _ => String::new(),
    };
    match seen {
        Some(seen) => format!("{said}{error} · {seen}"),
        None => format!("{said}{error}"),
    }
}

fn relay(why: &Why) -> String {
    let relay = &why.relay;
    let mut text = relay.state.words().to_owned();
    if relay.state == RelayState::Works {
        let heard = relay.heard_ms.map(|ms| format!(" · heard {}", ago_ms(ms))).unwrap_or_default();
        let rtt = relay.rtt_us.map(|us| format!(" · {}", rtt(Some(us)))).unwrap_or_default();
        text = format!("{text}{rtt}{heard}");
    }
    text
}

fn nat_or_nothing(known: Nat) -> String {
    if known == Nat::default() { "not known".to_owned() } else { nat(known) }
}

fn line(candidate: &Candidate) -> String {
    let age = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), ago_ms);
    let (address, tried) = (candidate.address.to_string(), age(candidate.tried_ms));
    let (answered, rtt) = (age(candidate.answered_ms), rtt(candidate.rtt_us));
    let mark = if candidate.in_use { style::good("*") } else { " ".to_owned() };
    format!(
        "{mark} {address:<28} {:<28} {tried:>10} {:>5} {answered:>10} {rtt:>10}",
        candidate.source.words(),
        candidate.tries
    )
}

/// `pilotctl why`: what was found is printed in any case; the exit status tells scripts what it means.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    let time = if args.no_try { Duration::ZERO } else { args.timeout };
    let why = client.why(peer.node, time).await?;
    let code = verdict(&why);
    let output = Output::of(Report(why));
    Ok(match code {
        Some(code) => output.exiting_as(code),
        None => output,
    })
}

/// What a peer that was tried and did not answer means to scripts.
fn verdict(why: &Why) -> Option<Code> {
    if why.probe.is_none_or(|probe| probe.answered) {
        return None;
    }
    Some(match (why.registry, why.trust) {
        (Listing::NotFound, _) => Code::NotFound,
        (Listing::Private, trust) if trust != TrustState::Trusted => Code::TrustRequired,
        _ => Code::Unreachable,
    })
}

#[cfg(test)]
mod tests {
    use pilot_wire::ipc::paths::{Behaviour, Probe, Relay, RelayCause, Source};
    use pilot_wire::{Addr, NodeId};

    use super::*;

    fn candidate(address: &str, source: Source) -> Candidate {
        Candidate {
            address: address.parse().unwrap(),
            source,
            tried_ms: Some(3_200),
            tries: 2,
            answered_ms: None,
            rtt_us: None,
            in_use: false,
        }
    }

    fn relayed() -> Why {
        Why {
            node_id: NodeId(2),
            address: Addr::backbone(NodeId(2)),
            hostname: "agent-b".into(),
            summary: "agent-b answers through the relay in 41.2 ms: none of the direct addresses answers"
                .into(),
            trust: TrustState::Trusted,
            encrypted: true,
            path: PathKind::Relayed,
            endpoint: Some("203.0.113.1:9001".parse().unwrap()),
            since_ms: Some(192_000),
            rtt_us: Some(41_200),
            heard_ms: Some(800),
            seen_secs: Some(14),
            registry: Listing::Listed,
            probe: Some(Probe { answered: true, rtt_us: Some(41_200), waited_ms: 42 }),
            candidates: vec![
                candidate("192.168.1.5:4000", Source::PeerHost),
                candidate("[2001:db8::5]:4000", Source::PeerHost),
                candidate("198.51.100.7:40000", Source::Registry),
            ],
            relay: Relay {
                state: RelayState::Works,
                beacon: Some("203.0.113.1:9001".parse().unwrap()),
                beacon_ms: Some(9_000),
                heard_ms: Some(800),
                rtt_us: Some(41_200),
            },
            relayed_because: Some(RelayCause::NoAnswer),
            next_try_ms: Some(12_000),
            our_nat: Nat {
                mapping: Behaviour::EndpointIndependent,
                filtering: Behaviour::AddressAndPortDependent,
            },
            ..Why::default()
        }
    }

    fn shown(why: Why) -> String {
        anstream::adapter::strip_str(&Report(why).to_string()).to_string()
    }

    #[test]
    fn a_peer_behind_the_relay_is_explained() {
        insta::assert_snapshot!(shown(relayed()));
    }

    #[test]
    fn a_direct_path_marks_its_address() {
        let mut why = relayed();
        why.summary = "agent-b answers directly at 192.168.1.5:4000 in 0.4 ms".into();
        (why.path, why.endpoint) = (PathKind::Direct, Some(why.candidates[0].address));
        (why.relayed_because, why.next_try_ms) = (None, None);
        why.candidates[0] = Candidate {
            answered_ms: Some(500),
            tries: 0,
            rtt_us: Some(412),
            in_use: true,
            ..why.candidates[0].clone()
        };
        insta::assert_snapshot!(shown(why));
    }

    #[test]
    fn a_peer_that_is_gone_and_one_that_was_never_met_are_told_apart() {
        let mut gone = relayed();
        gone.summary = "agent-b last seen 3 min ago; no answer on 3 candidates; relay: not registered".into();
        (gone.path, gone.endpoint, gone.since_ms, gone.rtt_us) = (PathKind::Unknown, None, None, None);
        (gone.encrypted, gone.heard_ms, gone.relayed_because) = (false, Some(190_000), None);
        gone.seen_secs = Some(204);
        gone.probe = Some(Probe { answered: false, rtt_us: None, waited_ms: 2000 });
        gone.relay = Relay { state: RelayState::NotRegistered, ..Relay::default() };
        assert_eq!(verdict(&gone), Some(Code::Unreachable));
        insta::assert_snapshot!("gone", shown(gone));

        let stranger = Why {
            node_id: NodeId(9),
            address: Addr::backbone(NodeId(9)),
            summary: "node 9 is private and does not trust this node yet".into(),
            registry: Listing::Private,
            probe: Some(Probe::default()),
            ..Why::default()
        };
        assert_eq!(verdict(&stranger), Some(Code::TrustRequired));
        insta::assert_snapshot!("stranger", shown(stranger));
    }

    #[test]
    fn nothing_is_a_failure_that_was_not_tried() {
        assert_eq!(verdict(&Why::default()), None);
        let unknown = Why { registry: Listing::NotFound, probe: Some(Probe::default()), ..Why::default() };
        assert_eq!(verdict(&unknown), Some(Code::NotFound));
    }
}
