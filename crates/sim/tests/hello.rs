//! Two nodes and one message: the smallest world. Change a line and run it.

use std::time::Duration;

use pilot_proto::Read;
use pilot_sim::{Detail, World};
use pilot_wire::Port;

#[test]
fn a_message_reaches_a_friend() {
    let mut world = World::new(1, Detail::Lines);
    let alice = world.node("alice");
    let bob = world.node("bob");

    // Both nodes are private: before their owners agree, they do not exist for each other.
    world.befriend(alice, bob);

    // Bob waits for streams, Alice opens one and writes.
    world.with_node(bob, |node, _| node.listen(Port::STDIO)).unwrap();
    let to = world.addr(bob).port(Port::STDIO);
    let ours = world.with_node(alice, |node, now| node.dial(now, to)).unwrap();
    world.with_node(alice, |node, now| node.write(now, ours, "hello".into())).unwrap();

    // Nothing has happened yet: a world moves only when it is told to. A second is plenty.
    world.run_for(Duration::from_secs(1));

    // Bob was told of the stream, and reads.
    let (theirs, from) = world.take_incoming(bob).expect("Bob sees the stream");
    assert_eq!(from.addr, world.addr(alice));
    let read = world.with_node(bob, |node, now| node.read(now, theirs, 100)).unwrap();
    assert_eq!(read, Read::Data("hello".into()), "{:#?}", world.history().lines());
}
