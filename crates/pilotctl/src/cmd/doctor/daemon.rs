//! What the daemon tells of itself, and of what is between it and others.

use std::time::Duration;

use pilot_client::Client;
use pilot_wire::ipc::paths::{Behaviour, Netcheck};
use pilot_wire::ipc::{Call, Status};

use super::Finding;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::paths::rtt;
use crate::{duration, humane};

/// The daemon's survey takes up to 3 s where nothing answers.
const WAIT: Duration = Duration::from_millis(3500);

pub(super) async fn look(ctx: &Context) -> Vec<Finding> {
    let socket = ctx.settings.socket();
    let client = match ctx.client().await {
        Ok(client) => client,
        Err(failure) if failure.code == Code::NotRunning => {
            let found = if socket.exists() {
                format!("does not run; {} is left of an earlier one", socket.display())
            } else {
                format!("does not run (tried {})", socket.display())
            };
            return vec![Finding::fault("daemon", Code::NotRunning, found, "pilotctl daemon start")];
        }
        Err(failure) => {
            let advice =
                failure.hint.clone().unwrap_or_else(|| "look at its log: pilotctl daemon logs".to_owned());
            return vec![Finding::fault("daemon", failure.code, failure.message, advice)];
        }
    };
    let status = match client.call::<Status>(Call::Status).await.map_err(Failure::from) {
        Ok(status) => status,
        Err(failure) => {
            let advice = "it is of another make: `pilotctl info` says what it is";
            return vec![Finding::fault("daemon", failure.code, failure.message, advice)];
        }
    };
    let mut findings = vec![running(&status), registry(&status)];
    findings.extend(network(&client).await);
    findings.extend(remarks(&status));
    findings
}

fn running(status: &Status) -> Finding {
    let up = duration::show(Duration::from_secs(status.uptime_secs));
    let found = format!("{} runs, pid {}, up {up}", status.version, status.pid);
    if status.version == env!("CARGO_PKG_VERSION") {
        return Finding::ok("daemon", found);
    }
    let advice = format!("this is pilotctl {}: pilotctl daemon restart", env!("CARGO_PKG_VERSION"));
    Finding::remark("daemon", found, advice)
}

fn registry(status: &Status) -> Finding {
    let registry = &status.registry;
    if registry.address.is_empty() {
        return Finding::fault(
            "registry",
            Code::NotRegistered,
            "none is set",
            "pilotctl daemon restart --registry HOST:PORT",
        );
    }
    if !registry.connected {
        let reason = registry.error.clone().unwrap_or_else(|| "no answer yet".to_owned());
        return Finding::fault(
            "registry",
            Code::NotRegistered,
            format!("{}: {reason}", registry.address),
            "is the address right, and does a rendezvous run there (pilotctl rendezvous status)?",
        );
    }
    let name = if status.hostname.is_empty() { "no name" } else { status.hostname.as_str() };
    let found = format!("{} knows this node as {} ({name})", registry.address, status.address);
    if registry.tls.as_ref().is_some_and(|tls| !tls.used) {
        let advice = "names and addresses can be read and changed on the way: use a registry with TLS";
        return Finding::remark("registry", format!("{found}, without TLS"), advice);
    }
    Finding::ok("registry", found)
}

async fn network(client: &Client) -> Vec<Finding> {
    match client.netcheck(WAIT).await.map_err(Failure::from) {
        Ok(check) => vec![udp(&check), nat(&check)],
        Err(failure) => vec![Finding::remark("network", failure.message, "pilotctl netcheck")],
    }
}

fn udp(check: &Netcheck) -> Finding {
    let over_web = check.transport == "web";
    match (check.udp, over_web) {
        (Some(false), false) => Finding::fault(
            "UDP",
            Code::ConnectionFailed,
            format!("nothing comes back from {}", check.beacon.address),
            "let UDP out of this network, or use a beacon that is reached over the web (--transport web)",
        ),
        (Some(false), true) | (None, true) => Finding::remark(
            "UDP",
            "blocked; everything goes over the web",
            "it works, and is slower: let UDP out of this network",
        ),
        (None, false) => Finding::remark(
            "UDP",
            "not known: no beacon is set",
            "peers behind NAT need one: pilotctl daemon restart --beacon HOST:PORT",
        ),
        (Some(true), _) => {
            Finding::ok("UDP", format!("{} answers in {}", check.beacon.address, rtt(check.beacon.rtt_us)))
        }
    }
}

fn nat(check: &Netcheck) -> Finding {
    match check.nat.mapping {
        Behaviour::AddressDependent | Behaviour::AddressAndPortDependent => Finding::remark(
            "NAT",
            format!("{} mapping", check.nat.mapping.name()),
            "peers behind a NAT of this kind are reached through the relay; a port mapping on the router helps",
        ),
        Behaviour::None => Finding::ok("NAT", "none"),
        Behaviour::Unknown => Finding::ok("NAT", "not measured"),
        Behaviour::EndpointIndependent => Finding::ok("NAT", "peers can be reached directly"),
    }
}

/// What waits for the owner.
fn remarks(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(reason) = &status.policy_broken {
        let advice = "nothing is allowed to other nodes until then: pilotctl policy";
        findings.push(Finding::fault("policy", Code::PermissionDenied, reason.as_str(), advice));
    }
    if let Some(warning) = &status.key_expiry {
        findings.push(Finding::remark("key", warning.as_str(), "pilotctl rotate-key"));
    }
    for alarm in &status.alarms {
        findings.push(Finding::remark("alarm", alarm.text.as_str(), "pilotctl status --clear-alarms"));
    }
    if status.pending > 0 {
        let found = format!("{} for this node's trust", humane::count(status.pending, "request"));
        findings.push(Finding::remark("trust", found, "pilotctl pending"));
    }
    if !status.encrypt {
        let advice = "everybody on the way can read and change everything: restart it without --no-encrypt";
        findings.push(Finding::remark("tunnels", "not encrypted", advice));
    }
    findings
}

#[cfg(test)]
mod tests {
    use pilot_wire::NodeId;
    use pilot_wire::ipc::RegistryStatus;

    use super::*;
    use crate::cmd::doctor::Verdict;

    fn healthy() -> Status {
        let registry = RegistryStatus {
            address: "registry.example.com:9000".to_owned(),
            connected: true,
            ..RegistryStatus::default()
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: NodeId(7),
            encrypt: true,
            registry,
            ..Status::default()
        }
    }

    #[test]
    fn a_healthy_daemon_has_no_remarks() {
        let status = healthy();
        assert_eq!(running(&status).verdict, Verdict::Ok);
        assert_eq!(registry(&status).verdict, Verdict::Ok);
        assert!(remarks(&status).is_empty());
    }

    #[test]
    fn another_version_and_a_registry_that_is_away_are_told_apart() {
        let mut status = healthy();
        status.version = "0.0.1".to_owned();
        status.registry.connected = false;
        status.registry.error = Some("connection refused".to_owned());
        assert_eq!(running(&status).verdict, Verdict::Remark);
        let away = registry(&status);
        assert_eq!((away.verdict, away.code), (Verdict::Fault, Some(Code::NotRegistered)));
        assert!(away.found.contains("connection refused"));
    }

    #[test]
    fn what_waits_for_the_owner_is_said_once_each() {
        let mut status = healthy();
        (status.pending, status.encrypt) = (2, false);
        status.policy_broken = Some("line 3: no such port".to_owned());
        let found: Vec<_> = remarks(&status).iter().map(|finding| (finding.check, finding.verdict)).collect();
        let expected = [("policy", Verdict::Fault), ("trust", Verdict::Remark), ("tunnels", Verdict::Remark)];
        assert_eq!(found, expected);
    }

    #[test]
    fn udp_that_is_blocked_is_a_fault_only_without_the_web() {
        let blocked = Netcheck { udp: Some(false), transport: "udp".to_owned(), ..Netcheck::default() };
        assert_eq!(udp(&blocked).verdict, Verdict::Fault);
        let over_web = Netcheck { transport: "web".to_owned(), ..blocked };
        assert_eq!(udp(&over_web).verdict, Verdict::Remark);
    }
}
