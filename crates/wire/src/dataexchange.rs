//! Data exchange, port 1001: typed messages and files, each answered by the receiver.
//!
//! A connection carries any number of frames `u32 type | u32 length | payload` in each direction
//! (spec local.md 2.5). [`Decoder`] cuts the byte stream into [`RawFrame`]s without trusting the announced
//! length; [`Frame::parse`] gives one its meaning; [`Answer`] is what the receiver says back.

mod answer;
mod control;
mod decoder;
mod filestream;
mod folder;
mod frame;
mod tag;

pub use answer::{Answer, AnswerError, Timing, is_refused_for_good};
pub use control::{
    CONTROL_HEADER_MAX, Control, ControlError, NOT_WANTED, Receipt, ReceiptState, TransferWord,
};
pub use decoder::{DEFAULT_MAX_FRAME, Decoder, FrameTooLarge, HEADER_LEN, RawFrame};
pub use filestream::{
    CHUNK_LEN, FileStream, FileStreamError, Init, NO_ACTIVE_TRANSFER, TransferId, WIDE_WINDOW_CHUNKS,
    WINDOW_CHUNKS,
};
pub use folder::{
    ContentHash, FOLDER_ENTRIES_MAX, FolderFile, Held, MANIFEST_MAX, Manifest, ManifestError, RelativePath,
};
pub use frame::{Content, Delivery, Frame, FrameError, FrameType, NamedFile};
pub use tag::{Extension, Interim, InterimKind, MessageId, MessageIdError, Outcome, RequestTag, Tag};
