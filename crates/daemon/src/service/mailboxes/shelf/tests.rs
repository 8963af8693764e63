use std::os::unix::fs::PermissionsExt;

use pilot_wire::mailboxes::{BYTES_PER_OWNER, MESSAGES_PER_OWNER};

use super::*;

const B: NodeId = NodeId(2);
const A: NodeId = NodeId(1);
const C: NodeId = NodeId(3);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ROOM: Allowance = Allowance { bytes: BYTES_PER_OWNER, messages: MESSAGES_PER_OWNER };

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id(text: &str) -> MessageId {
    text.parse().unwrap()
}

struct Case {
    home: tempfile::TempDir,
    shelf: Shelf,
}

impl Case {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(home.path(), now()).unwrap();
        Self { home, shelf }
    }

    fn put(&mut self, from: NodeId, name: &str, sealed: &[u8]) -> Result<Put, ShelfError> {
        self.put_within(ROOM, from, name, sealed)
    }

    fn put_within(
        &mut self,
        allowance: Allowance,
        from: NodeId,
        name: &str,
        sealed: &[u8],
    ) -> Result<Put, ShelfError> {
        let deposit = Deposit { from, id: &id(name), ttl: DAY, sealed };
        self.shelf.put(B, allowance, deposit, now())
    }

    /// As after `kill -9`.
    fn restart(self) -> Self {
        let shelf = Shelf::open(self.home.path(), now()).unwrap();
        Self { home: self.home, shelf }
    }

    /// All that is kept for B, in the order in which it would be brought.
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let mut number = 0;
        while let Some(kept) = self.shelf.next_after(B, number, now()) {
            number = kept.number;
            names.push(kept.id.to_string());
        }
        names
    }

    fn files(&self) -> Vec<PathBuf> {
        let directory = self.home.path().join("mailbox").join("2");
        let entries = fs::read_dir(directory).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[test]
fn what_is_kept_comes_in_the_order_it_was_left_also_after_a_crash() {
    let mut case = Case::new();
    for number in 0..12 {
        case.put([A, C][number % 2], &format!("m-{number}"), &[number as u8; 100]).unwrap();
    }
    let mut case = case.restart();
    let expected: Vec<String> = (0..12).map(|number| format!("m-{number}")).collect();
    assert_eq!(case.names(), expected);
    let first = case.shelf.next_after(B, 0, now()).unwrap();
    assert_eq!((first.from, &case.shelf.read(B, &first).unwrap()[..]), (A, &[0; 100][..]));
    case.shelf.remove(B, first.number);
    case.put(A, "later", b"x").unwrap();
    let mut case = case.restart();
    assert_eq!(case.names()[0], "m-1");
    assert_eq!(case.names().last().unwrap(), "later");
}

#[test]
fn a_message_left_twice_is_kept_once_and_one_of_another_sender_is_another() {
    let mut case = Case::new();
    assert_eq!(case.put(A, "m-1", b"first"), Ok(Put::Kept));
    assert_eq!(case.put(A, "m-1", b"sealed anew"), Ok(Put::Duplicate));
    assert_eq!(case.put(C, "m-1", b"other"), Ok(Put::Kept));
    let mut case = case.restart();
    assert_eq!(case.put(A, "m-1", b"and anew"), Ok(Put::Duplicate));
    assert_eq!(case.names(), ["m-1", "m-1"]);
}

#[test]
fn files_are_private_and_go_with_their_messages() {
    let mut case = Case::new();
    case.put(A, "m-1", b"x").unwrap();
    let files = case.files();
    assert_eq!(files.len(), 1);
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(files[0].parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let number = case.shelf.next_after(B, 0, now()).unwrap().number;
    case.shelf.remove(B, number);
    assert_eq!(case.files(), [] as [PathBuf; 0]);
    assert_eq!((case.shelf.bytes, case.shelf.messages), (0, 0));
}

#[test]
fn one_sender_cannot_shut_out_the_others_and_an_owner_has_an_end() {
    let mut case = Case::new();
    let small = Allowance { bytes: 100_000, messages: 10 };
    for number in 0..5 {
        case.put_within(small, A, &format!("a-{number}"), b"x").unwrap();
    }
    assert_eq!(case.put_within(small, A, "a-5", b"x"), Err(ShelfError::Full), "half of the messages");
    for number in 0..5 {
        case.put_within(small, C, &format!("c-{number}"), b"x").unwrap();
    }
    assert_eq!(case.put_within(small, NodeId(4), "d-0", b"x"), Err(ShelfError::Full), "all messages");
    assert_eq!(case.put_within(small, A, "a-0", b"x"), Ok(Put::Duplicate), "what is kept is kept");
}

#[test]
fn bytes_are_counted_as_messages_are() {
    let mut case = Case::new();
    let small = Allowance { bytes: 10_000, messages: 100 };
    assert_eq!(case.put_within(small, A, "long", &[0; 5_000]), Err(ShelfError::TooLong(5_000)));
    case.put_within(small, A, "a-0", &[0; 4_000]).unwrap();
    assert_eq!(case.put_within(small, A, "a-1", &[0; 1_000]), Err(ShelfError::Full));
    case.put_within(small, C, "c-0", &[0; 4_000]).unwrap();
    assert_eq!(case.put_within(small, NodeId(4), "d-0", &[0; 2_000]), Err(ShelfError::Full));
    assert!(case.put_within(small, NodeId(4), "d-0", &[0; 1_000]).is_ok());
}

#[test]
fn all_owners_together_have_an_end() {
    let mut case = Case::new();
    case.put(A, "m-1", b"x").unwrap();
    case.shelf.messages = MESSAGES_TOTAL;
    assert_eq!(case.put(A, "m-2", b"x"), Err(ShelfError::Full));
    case.shelf.messages = 1;
    case.shelf.bytes = BYTES_TOTAL;
    assert_eq!(case.put(A, "m-2", b"x"), Err(ShelfError::Full));
}

#[test]
fn what_is_of_no_use_any_more_makes_room() {
    let mut case = Case::new();
    let one = Allowance { bytes: 10_000, messages: 2 };
    case.put_within(one, A, "m-1", b"x").unwrap();
    assert_eq!(case.put_within(one, A, "m-2", b"x"), Err(ShelfError::Full));
    assert_eq!(case.shelf.next_expiry(), Some(now() + DAY));
    let deposit = Deposit { from: A, id: &id("m-2"), ttl: DAY, sealed: b"x" };
    assert_eq!(case.shelf.put(B, one, deposit, now() + DAY), Ok(Put::Kept));
    let late = now() + DAY + DAY;
    assert_eq!(case.shelf.next_after(B, 0, late), None);
    assert_eq!(Shelf::open(case.home.path(), late).unwrap().owners().count(), 0);
    assert_eq!(case.files(), [] as [PathBuf; 0]);
}

#[test]
fn nothing_is_kept_for_longer_than_a_month_or_shorter_than_a_second() {
    let mut case = Case::new();
    for (name, ttl) in [("long", Duration::MAX), ("short", Duration::ZERO)] {
        let deposit = Deposit { from: A, id: &id(name), ttl, sealed: b"x" };
        case.shelf.put(B, ROOM, deposit, now()).unwrap();
    }
    assert_eq!(case.shelf.next_expiry(), Some(now() + Duration::from_secs(1)));
    case.shelf.expire(now() + Duration::from_secs(1));
    assert_eq!(case.shelf.next_expiry(), Some(now() + Duration::from_millis(TTL_MAX_MS)));
}

#[test]
fn a_half_written_or_damaged_file_harms_nobody_else() {
    let mut case = Case::new();
    case.put(A, "m-1", b"x").unwrap();
    let directory = case.home.path().join("mailbox").join("2");
    fs::write(directory.join("00000000000000000009.sealed.77.tmp"), b"half").unwrap();
    fs::write(directory.join("00000000000000000008.sealed"), b"no header").unwrap();
    fs::write(directory.join("00000000000000000007.sealed"), b"{\"from\":1}\nx").unwrap();
    fs::write(directory.join("notes.txt"), b"the owner's own").unwrap();
    let mut case = case.restart();
    assert_eq!(case.names(), ["m-1"]);
    let left: Vec<_> = case.files().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(left, ["00000000000000000001.sealed", "notes.txt"]);
}

#[test]
fn what_is_discarded_is_gone() {
    let mut case = Case::new();
    case.put(A, "m-1", b"x").unwrap();
    case.put(C, "m-2", b"x").unwrap();
    let load = case.shelf.load(B);
    assert_eq!((load.messages, load.oldest), (2, Some(now())));
    assert_eq!(case.shelf.discard(B), 2);
    assert_eq!(case.shelf.load(B), Load { messages: 0, bytes: 0, oldest: None });
    assert_eq!(case.restart().names(), [] as [String; 0]);
}
