//! How long a registry takes to be there: `cargo run --release -p pilot-rendezvous --example startup STORE [NODES]`. It fills an
//! empty store with that many nodes (100,000), then opens it again and restores the state, and prints how long each took.
#![expect(clippy::print_stdout, reason = "the numbers are its output")]

use pilot_crypto::Identity;
use pilot_rendezvous::{
    Clock,
    registry::{
        Change, Config, Key, Record, State,
        record::{Counters, Node, Presence},
    },
    store::{self, StoreUrl},
};
use pilot_wire::NodeId;
use std::{
    collections::BTreeSet,
    error::Error,
    time::{Instant, SystemTime},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url: StoreUrl = arguments.next().ok_or("which store?")?.parse()?;
    let nodes: u32 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let (mut store, records) = store::open(&url).await?;
    if records.is_empty() {
        let start = Instant::now();
        let numbers: Vec<u32> = (1..=nodes).collect();
        for numbers in numbers.chunks(1000) {
            let mut changes: Vec<Change> = numbers.iter().map(|number| node(*number)).collect();
            changes.extend(numbers.iter().map(|number| friends(*number)));
            let counters = Counters { next_node: nodes + 1, next_network: 1 };
            changes.push((Key::Counters, Some(Record::Counters(counters))));
            store.begin(BTreeSet::new()).await?;
            store.commit(changes).await?;
        }
        println!("filled in {:.2} s", start.elapsed().as_secs_f64());
    }
    drop((store, records));
    for _ in 0..3 {
        let start = Instant::now();
        let (_store, records) = store::open(&url).await?;
        let opened = start.elapsed();
        let count = records.len();
        let state = State::restore(Config::default(), Clock::new(start, SystemTime::now()), records)?;
        let (registered, known) = state.node_counts();
        println!(
            "{count} records opened in {:.2} s, {registered} of {known} nodes are there after {:.2} s",
            opened.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn node(number: u32) -> Change {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let presence = Presence {
        endpoint: Some(([198, 51, 100, 7], 4000).into()),
        hostname: Some(format!("agent-{number}")),
        tags: vec!["weather".to_owned(), "europe".to_owned()],
        version: Some("1.18.0".to_owned()),
        lan_addrs: vec![([192, 168, 1, 7], 4000).into()],
        ..Presence::default()
    };
    let key = Identity::from_seed(&seed).public();
    let node = Node { signs: true, presence: Some(presence), ..Node::new(key, 1_795_000_000) };
    (Key::Node(NodeId(number)), Some(Record::Node(node)))
}

fn friends(number: u32) -> Change {
    let peers = (1..6).map(|step| NodeId(number + step)).collect();
    (Key::Consents(NodeId(number)), Some(Record::Consents { peers }))
}
