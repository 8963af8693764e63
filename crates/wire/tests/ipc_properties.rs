//! Properties of the local socket's frames: what is said is what is heard, and nothing half-said is.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::time::Duration;

use pilot_wire::ipc::{
    Call, ClientFrame, Code, Command, DaemonFrame, Decoder, Failure, Features, Handshake, Managed, Network,
    Reply, Request, SignEnvelope, VerifyEnvelope,
};
use pilot_wire::{Addr, Endpoint, NetworkId, NodeId, Port, StreamId};
use proptest::prelude::*;

/// Every kind of request once, with every field different from its default.
fn all_requests() -> Vec<Request<'static>> {
    let (network, node, port, stream) = (NetworkId(9), NodeId(0x0102_0304), Port(1001), StreamId(77));
    let to = Endpoint::new(Addr { network, node }, port);
    let tags = vec!["ml".to_owned(), "gpu".to_owned()];
    vec![
        Request::Bind { port },
        Request::Dial { to },
        Request::DialWith { to, data: b"first" },
        Request::Send { stream, data: b"data" },
        Request::Close { stream },
        Request::SendTo { to, data: b"data" },
        Request::SendToConfirm { to, data: b"data" },
        Request::SendFrom { from: Port(5000), to, data: b"data" },
        Request::Info,
        Request::Handshake(Handshake::Send { node, justification: "please" }),
        Request::Handshake(Handshake::Approve { node }),
        Request::Handshake(Handshake::Reject { node, reason: "no" }),
        Request::Handshake(Handshake::Pending),
        Request::Handshake(Handshake::Trusted),
        Request::Handshake(Handshake::Revoke { node }),
        Request::Handshake(Handshake::Wait { node, timeout: Duration::from_millis(1500) }),
        Request::ResolveHostname { name: "agent-b" },
        Request::SetHostname { name: "agent-a" },
        Request::SetVisibility { public: true },
        Request::Deregister,
        Request::SetTags { tags: tags.clone() },
        Request::SetWebhook { url: "http://127.0.0.1:1/x" },
        Request::Network(Network::List),
        Request::Network(Network::Join { network, token: "s3" }),
        Request::Network(Network::Leave { network }),
        Request::Network(Network::Members { network }),
        Request::Network(Network::Invite { network, node }),
        Request::Network(Network::PollInvites),
        Request::Network(Network::Respond { network, accept: true }),
        Request::Health,
        Request::Managed(Managed::Status { network }),
        Request::Managed(Managed::Cycle { network }),
        Request::Managed(Managed::PolicyGet { network }),
        Request::Managed(Managed::PolicySet { network, token: "t", policy: "{}" }),
        Request::Managed(Managed::TagsGet { network, node }),
        Request::Managed(Managed::TagsSet { network, node, tags }),
        Request::Managed(Managed::Reconcile { network }),
        Request::RotateKey,
        Request::Broadcast { network, port, token: "t", data: b"hello" },
        Request::Cancel,
        Request::PreferDirect { node },
        Request::SubmitBadge(Default::default()),
        Request::EnrollRecovery(Default::default()),
        Request::SignEnvelope(SignEnvelope {
            audience: "svc".into(),
            nonce: Some("00".into()),
            ..Default::default()
        }),
        Request::VerifyEnvelope(VerifyEnvelope { max_skew_secs: 5, ..Default::default() }),
        Request::Unbind { port },
        Request::Drain { stream },
        Request::Call(Call::Ping { node, size: 64, timeout_ms: 1000 }),
        Request::Call(Call::Resolve { target: "agent-b".into() }),
    ]
}

fn all_client_frames() -> Vec<ClientFrame<'static>> {
    let stream = StreamId(77);
    let mut frames: Vec<_> = all_requests().into_iter().map(ClientFrame::Request).collect();
    frames.extend([
        ClientFrame::Hello { version: 1 },
        ClientFrame::Tagged { tag: 5, request: &[0x0D] },
        ClientFrame::Credit { stream, bytes: 4096 },
        ClientFrame::Finish { stream },
        ClientFrame::Reset { stream, failure: Failure::new(Code::Cancelled, "gone") },
    ]);
    frames
}

fn all_daemon_frames() -> Vec<DaemonFrame<'static>> {
    let (port, stream) = (Port(1001), StreamId(77));
    let from = Endpoint::new(Addr::backbone(NodeId(2)), Port(49152));
    let failure = Failure::new(Code::NotTrusted, "no").with_hint("pilotctl handshake 2");
    vec![
        DaemonFrame::HelloOk { version: 1, features: Features::default() },
        DaemonFrame::Tagged { tag: 5, reply: &[0x3A] },
        DaemonFrame::Credit { stream, bytes: 4096 },
        DaemonFrame::Finish { stream },
        DaemonFrame::Reset { stream, failure: failure.clone() },
        DaemonFrame::Accept { port, stream, from },
        DaemonFrame::Recv { stream, data: b"data" },
        DaemonFrame::RecvFrom { from, port, data: b"data" },
        DaemonFrame::Reply(Reply::Bound { port }),
        DaemonFrame::Reply(Reply::Dialed { stream }),
        DaemonFrame::Reply(Reply::Closed { stream }),
        DaemonFrame::Reply(Reply::Broadcast),
        DaemonFrame::Reply(Reply::Unbound { port }),
        DaemonFrame::Reply(Reply::Sent),
        DaemonFrame::Reply(Reply::Drained { stream }),
        DaemonFrame::Reply(Reply::json(Command::InfoOk, &[1, 2])),
        DaemonFrame::Reply(Reply::Error { code: 1, text: "connection refused".into() }),
        DaemonFrame::Reply(Reply::Failure(failure)),
    ]
}

fn unframe(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new();
    decoder.space().extend_from_slice(bytes);
    decoder.next_frame().unwrap().unwrap().to_vec()
}

#[test]
fn every_client_frame_is_heard_as_said() {
    for said in all_client_frames() {
        let mut bytes = Vec::new();
        said.emit(&mut bytes);
        assert_eq!(ClientFrame::parse(&unframe(&bytes)), Ok(said));
    }
}

#[test]
fn every_daemon_frame_is_heard_as_said() {
    for said in all_daemon_frames() {
        let mut bytes = Vec::new();
        said.emit(&mut bytes);
        assert_eq!(DaemonFrame::parse(&unframe(&bytes)), Ok(said));
    }
}

#[test]
fn a_tagged_request_and_reply_carry_the_plain_one() {
    for request in all_requests() {
        let mut bytes = Vec::new();
        request.emit_tagged(42, &mut bytes);
        let frame = unframe(&bytes);
        let Ok(ClientFrame::Tagged { tag: 42, request: inner }) = ClientFrame::parse(&frame) else {
            panic!("{request:?} was not tagged")
        };
        assert_eq!(Request::parse(inner), Ok(request));
    }
    let mut bytes = Vec::new();
    Reply::Sent.emit_tagged(42, &mut bytes);
    assert_eq!(DaemonFrame::parse(&unframe(&bytes)), Ok(DaemonFrame::Tagged { tag: 42, reply: &[0x3A] }));
}

#[test]
fn every_answer_names_the_command_the_request_expects() {
    for request in all_requests() {
        let unanswered = matches!(request, Request::Send { .. } | Request::SendTo { .. } | Request::Cancel);
        assert_eq!(request.answered_by().is_none(), unanswered, "{request:?}");
        if let Some(command) = request.answered_by() {
            assert!(Request::parse(&[command.byte()]).is_err());
        }
    }
}

#[test]
fn the_name_of_a_call_is_the_one_in_its_json() {
    for call in [
        Call::Status,
        Call::TrustList,
        Call::Resolve { target: "x".into() },
        Call::AutoApprove { enabled: None },
    ] {
        assert_eq!(serde_json::to_value(&call).unwrap()["call"], call.name());
    }
}

#[test]
fn tags_cannot_be_nested() {
    assert!(Request::parse(&[0x82, 0, 0, 0, 1, 0x0D]).is_err());
    assert!(Reply::parse(&[0x83, 0, 0, 0, 1, 0x3A]).is_err());
}

/// What a shorter frame may still mean: text and data reach to the end, whatever the end.
fn ends_open(frame: &ClientFrame<'_>) -> bool {
    match frame {
        ClientFrame::Tagged { .. } => true,
        ClientFrame::Hello { .. }
        | ClientFrame::Credit { .. }
        | ClientFrame::Finish { .. }
        | ClientFrame::Reset { .. } => false,
        ClientFrame::Request(request) => matches!(
            request,
            Request::Send { .. }
                | Request::DialWith { .. }
                | Request::SendTo { .. }
                | Request::SendToConfirm { .. }
                | Request::SendFrom { .. }
                | Request::Broadcast { .. }
                | Request::ResolveHostname { .. }
                | Request::SetHostname { .. }
                | Request::SetWebhook { .. }
                | Request::Handshake(Handshake::Send { .. } | Handshake::Reject { .. })
                | Request::Network(Network::Join { .. })
                | Request::Managed(Managed::PolicySet { .. })
        ),
    }
}

#[test]
fn a_request_that_lost_its_end_is_refused_unless_its_end_is_open() {
    for said in all_client_frames() {
        let mut bytes = Vec::new();
        said.emit(&mut bytes);
        let frame = unframe(&bytes);
        for length in 0..frame.len() {
            if let Ok(heard) = ClientFrame::parse(&frame[..length]) {
                assert!(
                    ends_open(&said) && ends_open(&heard),
                    "{said:?} cut to {length} was heard as {heard:?}"
                );
            }
        }
    }
}

#[test]
fn a_reply_that_lost_its_end_is_refused_unless_its_end_is_open() {
    for said in all_daemon_frames() {
        let open = matches!(
            said,
            DaemonFrame::Tagged { .. }
                | DaemonFrame::Recv { .. }
                | DaemonFrame::RecvFrom { .. }
                | DaemonFrame::Reply(Reply::Json { .. } | Reply::Error { .. })
        );
        let mut bytes = Vec::new();
        said.emit(&mut bytes);
        let frame = unframe(&bytes);
        for length in 0..frame.len() {
            assert!(
                DaemonFrame::parse(&frame[..length]).is_err() || open,
                "{said:?} cut to {length} was accepted"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_from_a_client_break_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(heard) = ClientFrame::parse(&bytes) {
            let mut again = Vec::new();
            heard.emit(&mut again);
            let again = unframe(&again);
            prop_assert_eq!(ClientFrame::parse(&again), Ok(heard));
        }
    }

    #[test]
    fn no_bytes_from_a_daemon_break_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(heard) = DaemonFrame::parse(&bytes) {
            let mut again = Vec::new();
            heard.emit(&mut again);
            let again = unframe(&again);
            prop_assert_eq!(DaemonFrame::parse(&again), Ok(heard));
        }
    }

    #[test]
    fn frames_survive_any_cutting(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
        cuts in proptest::collection::vec(1_usize..97, 1..50),
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect();
        let (mut decoder, mut heard, mut rest) = (Decoder::new(), Vec::new(), &wire[..]);
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            decoder.space().extend_from_slice(now);
            rest = later;
            while let Some(frame) = decoder.next_frame().unwrap() {
                heard.push(frame.to_vec());
            }
        }
        prop_assert_eq!(heard, frames);
    }
}
