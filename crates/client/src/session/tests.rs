//! A session stays whole whatever the daemon says and whatever the application does.

use std::io::IoSlice;
use std::task::{Context, Waker};

use bytes::Bytes;
use pilot_wire::ipc::{ClientFrame, Code, DaemonFrame, Failure, Reply, Request};
use pilot_wire::{Addr, Endpoint, NodeId, Port, StreamId};
use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::{Dialect, Session};

const PORT: Port = Port(5000);
const PEER: Endpoint = Endpoint::new(Addr::backbone(NodeId(2)), Port(1000));

/// One thing that happens. Numbers are small, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Raw(Vec<u8>),
    Data(u32, usize),
    Credit(u32, u32),
    Accept(u32),
    Ended(u32),
    Reset(u32),
    Answered(u32, u32),
    Read(u32, usize),
    Write(u32, usize),
    Finish(u32),
    Close(u32),
    Abort(u32),
    Dial,
    Forget(u32),
    Listen,
    Unlisten,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0_u32..6;
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Raw),
        (id.clone(), 0_usize..600).prop_map(|(id, length)| Step::Data(id, length)),
        (id.clone(), any::<u32>()).prop_map(|(id, bytes)| Step::Credit(id, bytes)),
        id.clone().prop_map(Step::Accept),
        id.clone().prop_map(Step::Ended),
        id.clone().prop_map(Step::Reset),
        (id.clone(), 0_u32..6).prop_map(|(tag, id)| Step::Answered(tag, id)),
        (id.clone(), 0_usize..600).prop_map(|(id, length)| Step::Read(id, length)),
        (id.clone(), 0_usize..600).prop_map(|(id, length)| Step::Write(id, length)),
        id.clone().prop_map(Step::Finish),
        id.clone().prop_map(Step::Close),
        id.clone().prop_map(Step::Abort),
        Just(Step::Dial),
        id.prop_map(Step::Forget),
        Just(Step::Listen),
        Just(Step::Unlisten),
    ]
}

fn hear(session: &mut Session, said: &DaemonFrame<'_>) {
    let mut bytes = Vec::new();
    said.emit(&mut bytes);
    let _ = session.on_frame(&Bytes::from(bytes.split_off(4)));
}

fn take(session: &mut Session, step: Step) {
    let cx = &Context::from_waker(Waker::noop());
    let failure = || Failure::new(Code::Cancelled, "test");
    match step {
        Step::Raw(bytes) => {
            let _ = session.on_frame(&Bytes::from(bytes));
        }
        Step::Data(id, length) => {
            hear(session, &DaemonFrame::Recv { stream: StreamId(id), data: &vec![1; length] });
        }
        Step::Credit(id, bytes) => hear(session, &DaemonFrame::Credit { stream: StreamId(id), bytes }),
        Step::Accept(id) => {
            hear(session, &DaemonFrame::Accept { port: PORT, stream: StreamId(id), from: PEER });
        }
        Step::Ended(id) => hear(session, &DaemonFrame::Reply(Reply::Closed { stream: StreamId(id) })),
        Step::Reset(id) => hear(session, &DaemonFrame::Reset { stream: StreamId(id), failure: failure() }),
        Step::Answered(tag, id) => {
            let dialed = Reply::Dialed { stream: StreamId(id) };
            hear(session, &DaemonFrame::Reply(dialed.clone()));
            let mut reply = Vec::new();
            dialed.emit(&mut reply);
            hear(session, &DaemonFrame::Tagged { tag, reply: &reply[4..] });
            let _ = session.poll_answer(tag, cx);
        }
        Step::Read(id, length) => {
            let _ = session.poll_read(StreamId(id), &mut ReadBuf::new(&mut vec![0; length]), cx);
        }
        Step::Write(id, length) => {
            let _ = session.poll_write(StreamId(id), &[IoSlice::new(&vec![1; length])], cx);
        }
        Step::Finish(id) => session.finish(StreamId(id)),
        Step::Close(id) => session.close(StreamId(id)),
        Step::Abort(id) => session.reset(StreamId(id), failure()),
        Step::Dial => {
            let _ = session.poll_start(&Request::Dial { to: PEER }, cx);
        }
        Step::Forget(tag) => session.forget_request(tag),
        Step::Listen => {
            let _ = session.add_listener(PORT);
        }
        Step::Unlisten => session.remove_listener(PORT),
    }
}

/// What was said to the daemon is whole frames that it understands.
fn assert_understandable(session: &mut Session) {
    let mut bytes = Vec::new();
    session.outbox.take(&mut bytes);
    let mut rest = &bytes[..];
    while let Some((prefix, after)) = rest.split_first_chunk() {
        let (frame, after) = after.split_at(u32::from_be_bytes(*prefix) as usize);
        assert!(ClientFrame::parse(frame).is_ok(), "{frame:02X?}");
        rest = after;
    }
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn a_session_stays_whole_whatever_happens(
        extended in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let dialect = if extended { Dialect::Extended { initial_credit: 1000 } } else { Dialect::Reference };
        let mut session = Session::new(dialect);
        for step in steps {
            take(&mut session, step);
            prop_assert!(session.streams.is_consistent());
        }
        assert_understandable(&mut session);
    }
}
