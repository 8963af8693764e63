//! The rule engine against its promises, and against a slow and obvious copy of itself.

use proptest::prelude::*;

use super::*;

fn peer(node: u32) -> Peer {
    Peer { node: NodeId(node), trusted: true, key: None }
}

fn engine(text: &str) -> Engine {
    Engine::new(serde_json::from_str(text).unwrap())
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

#[test]
fn without_rules_everything_is_as_it_always_was() {
    let engine = Engine::default();
    let who = peer(2);
    for port in [0, 7, 1000, 1001, 1002, u16::MAX] {
        assert_eq!(engine.port(&who, Port(port)), Sourced { value: true, from: Vec::new() });
    }
    assert!(engine.publish(&who, "any").value && engine.hear(&who, "any").value);
    assert!(engine.hears_something(&who));
    let effective = engine.effective(&who);
    assert_eq!(effective.ports.len(), 1);
    assert_eq!(effective.max_message.value, Limit::Unlimited);
    assert!(effective.requests.value && effective.tasks.value && effective.mailbox.value);
    assert_eq!(effective.max_hops.value, 8);
}

#[test]
fn the_most_specific_rule_wins_and_each_field_by_itself() {
    let engine = engine(
        r#"{"version":1,
            "all":{"max_message":100,"tasks":false,"max_hops":3},
            "groups":{"workers":{"members":["0:0000.0000.0002"],"rules":{"max_message":200,"tasks":true}}},
            "nodes":{"0:0000.0000.0002":{"max_message":300}}}"#,
    );
    let worker = peer(2);
    assert_eq!(
        engine.max_message(&worker),
        Sourced { value: Limit::Of(300), from: vec![target("0:0000.0000.0002")] }
    );
    assert_eq!(engine.tasks(&worker), Sourced { value: true, from: vec![target("group:workers")] });
    assert_eq!(engine.max_hops(&worker), Sourced { value: 3, from: vec![Target::All] });
    assert_eq!(engine.max_message(&peer(9)).value, Limit::Of(100));
    assert!(!engine.tasks(&peer(9)).value);
}

#[test]
fn a_more_specific_rule_may_be_wider_or_narrower() {
    let engine = engine(
        r#"{"version":1,"all":{"ports":{"deny":"1000-2000"}},
            "nodes":{"2":{"ports":{"allow":"1003"}},"3":{"ports":{"allow":"80","others":"deny"}}}}"#,
    );
    let allowed = |node, port| engine.port(&peer(node), Port(port)).value;
    assert!(allowed(2, 1003) && !allowed(2, 1004) && allowed(2, 80));
    assert!(allowed(3, 80) && !allowed(3, 81) && !allowed(3, 1003));
    assert!(!allowed(4, 1003) && allowed(4, 999));
    let spans = engine.effective(&peer(2)).ports;
    let spans: Vec<(u16, u16, bool)> =
        spans.iter().map(|span| (span.first.0, span.last.0, span.allowed)).collect();
    let expected = [
        (0, 999, true),
        (1000, 1002, false),
        (1003, 1003, true),
        (1004, 2000, false),
        (2001, u16::MAX, true),
    ];
    assert_eq!(spans, expected);
}

#[test]
fn rules_for_strangers_do_not_concern_trusted_nodes() {
    let engine = engine(r#"{"version":1,"strangers":{"ports":{"deny":"7"},"requests":false}}"#);
    let stranger = Peer { trusted: false, ..peer(2) };
    assert!(engine.port(&peer(2), Port(7)).value && engine.requests(&peer(2)).value);
    assert!(!engine.port(&stranger, Port(7)).value && !engine.requests(&stranger).value);
}

#[test]
fn a_rule_for_a_key_follows_the_key() {
    let print = "7776-e870-b938-54f2-a0b2";
    let engine = engine(&format!(
        r#"{{"version":1,"nodes":{{"key:{print}":{{"max_hops":1}}}},
            "groups":{{"g":{{"members":["key:{print}"],"rules":{{"tasks":false}}}}}}}}"#
    ));
    let holder = Peer { key: Some(print.parse().unwrap()), ..peer(5) };
    assert_eq!(engine.max_hops(&holder).value, 1);
    assert!(!engine.tasks(&holder).value);
    assert_eq!(engine.max_hops(&peer(5)).value, 8);
}

#[test]
fn topics_have_to_be_in_the_lists_of_all_groups() {
    let engine = engine(
        r#"{"version":1,"all":{"publish":[]},
            "groups":{"a":{"members":["2","3"],"rules":{"publish":["jobs.*","news"]}},
                      "b":{"members":["2"],"rules":{"publish":["jobs.#"],"subscribe":[]}}}}"#,
    );
    let both = peer(2);
    assert!(engine.publish(&both, "jobs.a").value);
    assert_eq!(engine.publish(&both, "news"), Sourced { value: false, from: vec![target("group:b")] });
    assert_eq!(engine.publish(&both, "jobs.a.b"), Sourced { value: false, from: vec![target("group:a")] });
    assert!(engine.publish(&peer(3), "news").value);
    assert_eq!(engine.publish(&peer(4), "news"), Sourced { value: false, from: vec![Target::All] });
    assert!(!engine.hears_something(&both) && engine.hears_something(&peer(3)));
}

/// Rules from few choices, so that they meet.
fn rules() -> impl Strategy<Value = Rules> {
    let ports = proptest::option::of((0..4_u16, 0..4_u16, proptest::option::of(any::<bool>())));
    let limit = proptest::option::of(0..3_u64);
    let flag = proptest::option::of(any::<bool>());
    (ports, limit, flag).prop_map(|(ports, limit, flag)| Rules {
        ports: ports.map(|(allow, deny, others)| pilot_wire::policy::PortRules {
            allow: Port(allow).into(),
            deny: Port(deny).into(),
            others: others.map(|yes| if yes { Verdict::Allow } else { Verdict::Deny }),
        }),
        max_message: limit.map(Limit::Of),
        tasks: flag,
        ..Rules::default()
    })
}

proptest! {
    /// The same rules, told by going through them from the most specific to the least.
    #[test]
    fn the_engine_agrees_with_the_obvious_way_whatever_the_order_of_groups(
        all in rules(),
        groups in proptest::collection::vec((any::<bool>(), rules()), 0..4),
        own in proptest::option::of(rules()),
        reversed in any::<bool>(),
    ) {
        let mut book = Book { all: all.clone(), ..Book::default() };
        for (at, (is_member, rules)) in groups.iter().enumerate() {
            let number = if reversed { groups.len() - at } else { at };
            let group = book.groups.entry(format!("g{number}").parse().unwrap()).or_default();
            group.rules = rules.clone();
            if *is_member {
                group.members.insert(Who::Node(NodeId(2)));
            }
        }
        if let Some(own) = &own {
            book.nodes.insert(Who::Node(NodeId(2)), own.clone());
        }
        let engine = Engine::new(book);
        let mine: Vec<&Rules> =
            groups.iter().filter(|(is_member, _)| *is_member).map(|(_, rules)| rules).collect();
        let levels = [own.iter().collect::<Vec<_>>(), mine, vec![&all]];
        let who = peer(2);

        let tasks = levels.iter().find_map(|level| {
            let said: Vec<bool> = level.iter().filter_map(|rules| rules.tasks).collect();
            (!said.is_empty()).then(|| said.iter().all(|yes| *yes))
        });
        prop_assert_eq!(engine.tasks(&who).value, tasks.unwrap_or(true));

        let longest = levels.iter().find_map(|level| level.iter().filter_map(|rules| rules.max_message).min());
        prop_assert_eq!(engine.max_message(&who).value, longest.unwrap_or(Limit::Unlimited));

        let spans = engine.effective(&who).ports;
        for port in (0..6).map(Port) {
            let allowed = levels.iter().find_map(|level| {
                let said: Vec<Verdict> =
                    level.iter().filter_map(|rules| rules.ports.as_ref()?.verdict(port)).collect();
                (!said.is_empty()).then(|| said.iter().all(|verdict| *verdict == Verdict::Allow))
            });
            prop_assert_eq!(engine.port(&who, port).value, allowed.unwrap_or(true));
            let span = spans.iter().find(|span| (span.first..=span.last).contains(&port)).unwrap();
            prop_assert_eq!(span.allowed, engine.port(&who, port).value);
        }
        prop_assert_eq!(spans[0].first, Port(0));
        prop_assert!(spans.windows(2).all(|pair| pair[0].last.0 + 1 == pair[1].first.0));
        prop_assert_eq!(spans.last().unwrap().last, Port(u16::MAX));
    }
}
