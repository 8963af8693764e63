//! A stream that is not asked for segments, because its tunnel has no keys, has no deadlines that are already over.

use std::time::Duration;

use pilot_proto::stream::{Config, Stream};
use pilot_wire::{Addr, NodeId, Port, Seq};

use crate::pair::start;

#[test]
fn a_dial_whose_next_copy_cannot_leave_waits_without_a_deadline_in_the_past() {
    let mut now = start();
    let at = |node, port| Addr::backbone(NodeId(node)).port(Port(port));
    let mut stream = Stream::connect(&Config::default(), now, at(1, 50_000), at(2, 7), Seq(5));
    assert!(stream.poll_segment(now, &mut Vec::new()).is_some(), "the first copy leaves");
    while let Some(due) = stream.poll_timeout() {
        assert!(due > now || due == now && stream.state().is_live(), "a deadline lies in the past");
        now = due.max(now + Duration::from_millis(1));
        stream.handle_timeout(now);
        assert!(
            stream.poll_timeout().is_none_or(|next| next > now),
            "a deadline that was acted on comes again"
        );
    }
    assert!(!stream.state().is_live(), "the dial is given up");
}
