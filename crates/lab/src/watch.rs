//! Whom a host writes to, besides those that a test names.

use std::fmt::Write;

use serde_json::Value;

use crate::host::Host;

/// Rules at a host's cables that count what goes to anybody else.
#[derive(Debug)]
pub struct Watch<'a> {
    host: &'a Host,
}

/// What a host sent that nobody expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unexpected {
    /// Packets to others than those that were named.
    pub packets: u64,
    /// Packets to a nameserver, also one on the host itself.
    pub questions: u64,
    /// To whom: address, protocol and port of the first thousand, IPv4 only.
    pub to: Vec<String>,
}

impl<'a> Watch<'a> {
    /// Starts watching. Each of `expected` is what `nft` calls an expression, such as `ip daddr 203.0.113.1 tcp dport 9000`.
    /// What a kernel says by itself to its neighbours (ICMPv6) is nobody's doing and not looked at.
    pub fn start(host: &'a Host, expected: &[String]) -> Self {
        let mut rules = String::from(
            "table inet watched {\n\
             counter unexpected { }\n\
             counter questions { }\n\
             set strangers { type ipv4_addr . inet_proto . inet_service; size 1000; flags dynamic; }\n\
             chain outgoing { type filter hook output priority filter;\n\
             meta l4proto { tcp, udp } th dport 53 counter name questions\n\
             oifname \"lo\" accept\n\
             meta l4proto icmpv6 accept\n",
        );
        for expression in expected {
            let _ = writeln!(rules, "{expression} accept");
        }
        rules.push_str(
            "counter name unexpected\n\
             add @strangers { ip daddr . meta l4proto . th dport }\n\
             }\n}\n",
        );
        host.namespace().nft(&rules);
        Self { host }
    }

    /// What went to others since the start.
    #[track_caller]
    pub fn read(&self) -> Unexpected {
        let counters = self.objects("counters", "counter");
        let packets = |name: &str| {
            let counter = counters.iter().find(|counter| counter["name"] == name).expect("it was made");
            counter["packets"].as_u64().expect("a counter counts")
        };
        let sets = self.objects("sets", "set");
        let strangers = sets.iter().find(|set| set["name"] == "strangers").expect("it was made");
        let elements = strangers["elem"].as_array().into_iter().flatten();
        Unexpected {
            packets: packets("unexpected"),
            questions: packets("questions"),
            to: elements.map(ToString::to_string).collect(),
        }
    }

    fn objects(&self, what: &str, kind: &str) -> Vec<Value> {
        let text = self.host.namespace().nft_list(what);
        let list: Value = serde_json::from_str(&text).expect("nft speaks JSON");
        let objects = list["nftables"].as_array().into_iter().flatten();
        objects.map(|object| object[kind].clone()).filter(|object| !object.is_null()).collect()
    }
}
