//! The registry's protocol: requests and replies as JSON objects behind a length (spec/registry.md 2 to 12).
//!
//! A connection carries one request after the other, and the replies come in the same order. A server reads with
//! [`Decoder`] and [`Envelope::parse`] and answers with [`Response::to_json`]; a client emits with
//! [`Envelope::to_json`] and reads with [`Response::parse`]. [`frame`] puts the length in front.
//!
//! Requests are read as leniently as the reference reads them (spec/registry.md 2.2): a field of the wrong type is a
//! field that is not there. Where a wrong value and a missing one need different answers, the field is a [`Sent`].

mod administration;
mod card;
mod decoder;
mod lenient;
mod membership;
mod request;
mod response;
pub mod seal;
mod sealer;
mod sent;
pub mod signed_text;

pub use administration::{
    AuditEntry, AuditQuery, Blueprint, BlueprintPolicy, BlueprintRole, KeyInfo, Provision,
    ProvisionedNetwork, SetKeyExpiry,
};
pub use card::{
    CARD_MAX, Card, CardError, CardQuery, Method, PublishCard, PublishedCard, RemoveCard, signed_card,
};
pub use decoder::{Decoder, FrameError, MAX_FRAME, frame};
pub use membership::{MemberKey, Members, MembersQuery, OwnNetwork, SetMemberExpiry};
pub use request::{
    AwaitNotices, BeaconLink, BeaconRegister, CreateNetwork, Envelope, ExprPolicyUpdate, Handshake,
    HandshakeAnswer, Invite, InviteAnswer, JoinNetwork, Kind, MemberQuery, MemberTagsUpdate, Membership,
    NetworkQuery, NetworkUpdate, Pair, PolicyUpdate, PublishRecord, Punch, Register, ReportTask, Request,
    RequestError, Resolve, ResolveHostname, RotateKey, ScoreUpdate, Sealed, SetEnterprise, SetHostname,
    SetTags, SetTaskExec, SetVisibility, Signed, TransferOwnership,
};
pub use response::{
    Beacon, BeaconLinked, BeaconNode, HandshakeNotice, HandshakeVerdict, Handshakes, InviteNotice,
    JoinedNetwork, ListedNode, Lookup, MemberRole, MemberTags, MeshSecret, Network, NetworkPolicy,
    NoticeKind, Notices, Punched, Registered, Resolved, ResolvedHostname, Response, ResponseError, Role,
    RotatedKey, Score, Visibility,
};
pub use sealer::Sealer;
pub use sent::Sent;
