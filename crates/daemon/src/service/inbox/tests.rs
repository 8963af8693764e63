use std::path::Path;

use pilot_wire::mailbox::{Filter, List};

use super::*;

fn letter(body: &[u8], id: Option<&str>, reply_to: Option<&str>) -> Letter {
    Letter {
        kind: "TEXT".into(),
        binary: false,
        body: bytes::Bytes::copy_from_slice(body),
        from: Addr::backbone(NodeId(1)),
        from_hostname: None,
        from_key: None,
        message_id: id.map(|id| id.parse().unwrap()),
        reply_to: reply_to.map(|id| id.parse().unwrap()),
        extension: Extension::default(),
        provenance: None,
        row: None,
    }
}

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_169) + Duration::from_millis(ms)
}

fn wanted(reply_to: Option<&str>, since: SystemTime) -> Wanted {
    let filter = Filter { from: Some(NodeId(1)), since_ns: Some(unix_ns(since)), ..Filter::default() };
    Wanted { filter, reply_to: reply_to.map(|id| id.parse().unwrap()), exact_only: false }
}

fn open(home: &Path) -> Inbox {
    Inbox::open(home.join("inbox")).unwrap()
}

fn put(inbox: &mut Inbox, letter: Letter, now: SystemTime) -> Result<String, Refusal> {
    inbox.take_new();
    inbox.put_all(vec![letter], now).remove(0)?;
    let place = inbox.take_new()[0];
    Ok(inbox.kept[&place].entry.id.clone())
}

fn listed(inbox: &mut Inbox, list: &List) -> (Vec<String>, u64, u64) {
    let Reply::Messages { messages, total, more, .. } = inbox.list(list).unwrap() else { panic!() };
    (messages.into_iter().map(|entry| entry.preview.unwrap_or_default()).collect(), total, more)
}

fn with_filter(filter: Filter) -> List {
    List { filter, ..List::default() }
}

fn total(inbox: &mut Inbox) -> u64 {
    listed(inbox, &List::default()).1
}

fn files(home: &Path) -> usize {
    fs::read_dir(home.join("inbox")).unwrap().count()
}

#[test]
fn a_message_is_a_file_that_release_1_18_reads() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let id = put(&mut inbox, letter(b"hello", None, None), at(11)).unwrap();
    assert_eq!(id, "TEXT-20261121-080249.011-000001");
    let text = fs::read_to_string(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
    assert_eq!(
        text,
        r#"{"bytes":5,"data":"hello","data_encoding":"utf8","from":"0:0000.0000.0001","received_at":"2026-11-21T08:02:49.011Z","type":"TEXT"}"#
    );
}

#[test]
fn an_id_is_known_after_restarts_and_after_its_message_is_gone_and_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    put(&mut inbox, letter(b"one", Some("m-1"), None), at(0)).unwrap();
    put(&mut inbox, letter(b"two", Some("m-2"), None), at(1)).unwrap();
    assert_eq!(inbox.clear(None, false).unwrap(), 2);
    drop(inbox);
    let mut again = open(home.path());
    assert_eq!(total(&mut again), 0);
    let year = at(365 * 24 * 3600 * 1000);
    assert_eq!(again.put_all(vec![letter(b"one", Some("m-1"), None)], year), [Ok(Put::Duplicate)]);
    let other = Letter { from: Addr::backbone(NodeId(2)), ..letter(b"one", Some("m-1"), None) };
    assert_eq!(again.put_all(vec![other], year), [Ok(Put::Stored)]);
}

#[test]
fn a_crash_between_the_file_and_the_table_neither_loses_nor_doubles() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    put(&mut inbox, letter(b"before", Some("m-0"), None), at(0)).unwrap();
    // As far as the file, then the process is gone.
    let mut batch = Batch::default();
    assert!(inbox.write(letter(b"x", Some("m-1"), None), at(1), &mut batch).is_ok());
    drop(inbox);
    let mut again = open(home.path());
    assert_eq!(listed(&mut again, &List::default()).0, ["before", "x"]);
    assert_eq!(again.put_all(vec![letter(b"x", Some("m-1"), None)], at(2)), [Ok(Put::Duplicate)]);
    assert_eq!(files(home.path()), 2);
    // What was found on disk is in the table now, and stays there without its file.
    again.clear(None, false).unwrap();
    drop(again);
    let mut third = open(home.path());
    assert_eq!(third.put_all(vec![letter(b"x", Some("m-1"), None)], at(3)), [Ok(Put::Duplicate)]);
}

#[test]
fn a_crash_before_the_rename_leaves_nothing_and_the_next_try_is_stored() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()));
    fs::write(home.path().join("inbox").join("TEXT-x.json.1.tmp"), b"{\"bytes\":").unwrap();
    let mut again = open(home.path());
    assert_eq!((total(&mut again), files(home.path())), (0, 0));
    put(&mut again, letter(b"x", Some("m-1"), None), at(0)).unwrap();
}

#[test]
fn a_batch_whose_ids_cannot_be_written_is_refused_as_a_whole_and_stored_once_later() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let mut batch = Batch::default();
    for number in 0..3 {
        let letter = letter(b"x", Some(&format!("m-{number}")), None);
        assert!(inbox.write(letter, at(number), &mut batch).is_ok());
    }
    inbox.table = None;
    assert!(inbox.settle(batch).is_err());
    assert_eq!(files(home.path()), 0);
    let again: Vec<Letter> = (0..3).map(|number| letter(b"x", Some(&format!("m-{number}")), None)).collect();
    assert_eq!(inbox.put_all(again, at(9)), [Ok(Put::Stored), Ok(Put::Stored), Ok(Put::Stored)]);
    assert_eq!(total(&mut inbox), 3);
}

#[test]
fn a_batch_keeps_its_order_and_knows_its_own_repetitions() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let names = ["a", "b", "a", "c"];
    let letters = names.iter().map(|name| letter(name.as_bytes(), Some(name), None)).collect();
    let verdicts = inbox.put_all(letters, at(0));
    assert_eq!(verdicts, [Ok(Put::Stored), Ok(Put::Stored), Ok(Put::Duplicate), Ok(Put::Stored)]);
    assert_eq!(listed(&mut inbox, &List::default()).0, ["a", "b", "c"]);
}

#[test]
fn nothing_of_a_row_passes_what_was_refused_before_it() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    inbox.bytes = MAX_BYTES - 600;
    let row = Row::default();
    let in_row = |body: &[u8], id| Letter { row: Some(row.clone()), ..letter(body, Some(id), None) };
    let letters = vec![
        in_row(b"fits", "m-1"),
        in_row(&[b'-'; 600], "m-2"),
        in_row(b"would fit", "m-3"),
        letter(b"of nobody's row", Some("m-4"), None),
    ];
    let full = Refusal::InboxFull;
    let behind = Refusal::Behind(full.to_string());
    let verdicts = inbox.put_all(letters, at(0));
    assert_eq!(verdicts, [Ok(Put::Stored), Err(full), Err(behind.clone()), Ok(Put::Stored)]);
    // Not in a later batch either.
    assert_eq!(inbox.put_all(vec![in_row(b"y", "m-5")], at(1)), [Err(behind)]);
}

#[test]
fn the_list_is_in_the_order_of_arrival_though_the_clock_goes_back_and_the_process_ends() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    put(&mut inbox, letter(b"1", None, None), at(5000)).unwrap();
    put(&mut inbox, letter(b"2", None, None), at(100)).unwrap();
    inbox.clear(None, false).unwrap();
    put(&mut inbox, letter(b"3", None, None), at(200)).unwrap();
    drop(inbox);
    let mut inbox = open(home.path());
    put(&mut inbox, letter(b"4", None, None), at(300)).unwrap();
    assert_eq!(listed(&mut inbox, &List::default()).0, ["3", "4"]);
    assert!(inbox.kept.keys().all(|place| *place > unix_ns(at(5000))));
    drop(inbox);
    assert_eq!(listed(&mut open(home.path()), &List::default()).0, ["3", "4"]);
}

#[test]
fn a_file_with_a_time_far_ahead_does_not_move_the_clock_of_others() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let file = r#"{"bytes":1,"data":"x","from":"0:0000.0000.0001","received_at":"2199-01-01T00:00:00Z","type":"TEXT"}"#;
    fs::write(home.path().join("inbox").join("TEXT-odd.json"), file).unwrap();
    inbox.refresh().unwrap();
    put(&mut inbox, letter(b"y", None, None), at(0)).unwrap();
    assert_eq!(listed(&mut inbox, &List::default()).0, ["y", "x"]);
}

#[test]
fn files_removed_by_others_leave_the_list() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let id = put(&mut inbox, letter(b"one", None, None), at(0)).unwrap();
    put(&mut inbox, letter(b"two", None, None), at(1)).unwrap();
    fs::remove_file(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
    assert_eq!(total(&mut inbox), 1);
    assert_eq!(inbox.read(Some(&id)).unwrap(), None);
    assert_eq!(inbox.clear(None, false).unwrap(), 1);
    assert_eq!(files(home.path()), 0);
}

#[test]
fn a_full_inbox_refuses_until_somebody_makes_room() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let id = put(&mut inbox, letter(b"one", None, None), at(0)).unwrap();
    inbox.bytes = MAX_BYTES;
    inbox.kept.values_mut().for_each(|kept| kept.file_len = MAX_BYTES);
    assert_eq!(put(&mut inbox, letter(b"two", None, None), at(1)), Err(Refusal::InboxFull));
    fs::remove_file(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
    assert!(put(&mut inbox, letter(b"two", None, None), at(1)).is_ok());
}

#[test]
fn what_was_read_stays_read_and_its_sender_is_told_once() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let receipts = Extension { receipts: true, ..Extension::default() };
    let asked = Letter { extension: receipts, ..letter(b"asked", Some("m-1"), None) };
    let asked = put(&mut inbox, asked, at(0)).unwrap();
    let plain = put(&mut inbox, letter(b"plain", Some("m-2"), None), at(1)).unwrap();
    let both = [asked.clone(), plain];
    assert_eq!(inbox.mark(&both, true, at(2)).unwrap(), 2);
    assert_eq!(inbox.take_notices(), [ReadNotice { to: NodeId(1), id: "m-1".parse().unwrap() }]);
    assert_eq!(inbox.mark(&both, true, at(3)).unwrap(), 0, "they are read already");
    inbox.mark(std::slice::from_ref(&asked), false, at(4)).unwrap();
    drop(inbox);
    let mut inbox = open(home.path());
    let unread = with_filter(Filter { unread: true, ..Filter::default() });
    assert_eq!(listed(&mut inbox, &unread).0, ["asked"]);
    inbox.mark(&[asked], true, at(5)).unwrap();
    assert_eq!(inbox.take_notices(), [], "it was told before the restart");
}

#[test]
fn filters_let_through_what_they_say() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let long = [b"begin ".as_slice(), &[b'-'; 500], b" needle"].concat();
    put(&mut inbox, letter(&long, None, None), at(0)).unwrap();
    let json = Letter { kind: "JSON".into(), ..letter(br#"{"k":"needle"}"#, None, None) };
    put(&mut inbox, json, at(1)).unwrap();
    let binary = Letter { kind: "BINARY".into(), binary: true, ..letter(b"\x00needle\xff", None, None) };
    put(&mut inbox, binary, at(2)).unwrap();
    let other = Letter { from: Addr::backbone(NodeId(2)), ..letter(b"hay", None, None) };
    put(&mut inbox, other, at(3)).unwrap();
    let count = |filter, inbox: &mut Inbox| listed(inbox, &with_filter(filter)).0.len();
    let text = Some("needle".to_owned());
    assert_eq!(count(Filter { text: text.clone(), ..Filter::default() }, &mut inbox), 3);
    assert_eq!(
        count(Filter { text: text.clone(), kind: Some("json".into()), ..Filter::default() }, &mut inbox),
        1
    );
    assert_eq!(count(Filter { from: Some(NodeId(2)), ..Filter::default() }, &mut inbox), 1);
    assert_eq!(count(Filter { since_ns: Some(unix_ns(at(1))), ..Filter::default() }, &mut inbox), 2);
    assert_eq!(count(Filter { text, from: Some(NodeId(2)), ..Filter::default() }, &mut inbox), 0);
}

#[test]
fn pages_cover_everything_once() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    for number in 0..7u8 {
        put(&mut inbox, letter(&[b'0' + number], None, None), at(0)).unwrap();
    }
    let mut list = List { limit: Some(3), ..List::default() };
    let mut seen = Vec::new();
    loop {
        let Reply::Messages { messages, more, .. } = inbox.list(&list).unwrap() else { panic!() };
        list.before_ns = messages.first().map(|entry| entry.arrived_ns);
        let page: String = messages.into_iter().filter_map(|entry| entry.preview).collect();
        seen.push((page, more));
        if more == 0 {
            break;
        }
    }
    assert_eq!(seen, [("456".to_owned(), 4), ("123".to_owned(), 1), ("0".to_owned(), 0)]);
}

#[test]
fn a_message_is_found_by_either_of_its_names() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let id = put(&mut inbox, letter(b"x", Some("m-1"), None), at(0)).unwrap();
    for name in [id.as_str(), "m-1"] {
        let Some(Reply::Message { id: found, .. }) = inbox.read(Some(name)).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(found, id);
    }
    assert_eq!(inbox.read(Some("../inbox.redb")).unwrap(), None);
}

#[test]
fn only_names_of_messages_can_be_removed() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    fs::write(home.path().join("precious.json"), b"{}").unwrap();
    assert_eq!(inbox.remove(&["../precious".to_owned()]).unwrap(), 0);
    assert!(home.path().join("precious.json").exists());
}

#[test]
fn an_answer_that_names_the_question_is_found_whenever_it_came() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let answer = put(&mut inbox, letter(b"answer", None, Some("q-1")), at(0)).unwrap();
    put(&mut inbox, letter(b"plain", None, None), at(5)).unwrap();
    assert_eq!(inbox.find(&wanted(Some("q-1"), at(3))), Some(Found { id: answer, doubtful: false }));
    assert_eq!(inbox.find(&wanted(Some("q-2"), at(5))), None, "an answer to something else is no answer");
}

#[test]
fn a_plain_later_message_is_an_answer_but_a_doubtful_one_from_who_names_questions() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let plain = put(&mut inbox, letter(b"plain", None, None), at(5)).unwrap();
    assert_eq!(inbox.find(&wanted(Some("q-1"), at(5))), None);
    assert_eq!(inbox.find(&wanted(Some("q-1"), at(4))), Some(Found { id: plain.clone(), doubtful: false }));
    put(&mut inbox, letter(b"other", None, Some("q-0")), at(6)).unwrap();
    assert_eq!(inbox.find(&wanted(Some("q-1"), at(4))), Some(Found { id: plain, doubtful: true }));
}

#[test]
fn a_scan_goes_on_where_the_last_one_ended() {
    let home = tempfile::tempdir().unwrap();
    let mut inbox = open(home.path());
    let letters = (0..300).map(|number| letter(format!("{number}").as_bytes(), None, None)).collect();
    inbox.put_all(letters, at(0));
    let mut filter = Filter { text: Some("99".into()), ..Filter::default() };
    let mut found = Vec::new();
    loop {
        let scan = inbox.scan(&filter);
        found.extend(scan.entries.into_iter().filter_map(|entry| entry.preview));
        filter.since_ns = Some(scan.until_ns);
        if !scan.more {
            break;
        }
    }
    assert_eq!(found, ["99", "199", "299"]);
    assert_eq!(filter.since_ns, Some(inbox.last_ns()));
}
