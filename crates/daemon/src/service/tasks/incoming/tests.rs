//! Port 1003 as released nodes use it, and as nobody should.

#![expect(clippy::wildcard_enum_match_arm, reason = "the services say more than these tests are about")]

use std::path::Path;

use pilot_crypto::{Identity, Sha256};
use pilot_wire::dataexchange::RawFrame;
use pilot_wire::registry::Score;
use pilot_wire::tasks::frame::{Digest, FileNote, FileStart, ResultsExtension, StatusUpdate};
use pilot_wire::tasks::{Category, Request as Ask, Submission};
use pilot_wire::{Addr, NodeId};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use super::super::super::policy::Policy;
use super::super::book::Told;
use super::super::desk::Way;
use super::super::record::{Key, Pending};
use super::*;
use crate::driver::Command;
use crate::handle::{Handle, ServiceOrder};

const ME: NodeId = NodeId(2);
const PEER: NodeId = NodeId(1);
const STRANGER: NodeId = NodeId(9);

/// The service of node 2, which trusts node 1, over a real folder.
struct Office {
    tasks: Tasks,
    home: tempfile::TempDir,
    _trusted: watch::Sender<Vec<NodeId>>,
    _node: watch::Sender<NodeId>,
}

impl Office {
    async fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self::at(home).await
    }

    async fn at(home: tempfile::TempDir) -> Self {
        let (commands, inbox) = mpsc::channel(8);
        let (trusted, trusted_watch) = watch::channel(vec![PEER]);
        let (node, node_watch) = watch::channel(ME);
        let (signs, _) = broadcast::channel(8);
        tokio::spawn(driver(inbox));
        let handle = Handle::new(commands, trusted_watch, node_watch, signs);
        let way = Way::start(home.path(), None).unwrap();
        let policy = Policy::default();
        policy.set_nodes(ME, [(PEER, None, None)].into_iter());
        let tasks = Tasks::over(way, handle, policy);
        tasks.call(Ask::Settings { enabled: Some(true), gate: None }).await.unwrap();
        Self { tasks, home, _trusted: trusted, _node: node }
    }

    /// The daemon is killed and started again.
    async fn restart(self) -> Self {
        let Self { tasks, home, .. } = self;
        drop(tasks);
        Self::at(home).await
    }

    /// Sends these bytes on a stream of its own and returns what comes back until its end.
    async fn bytes(&self, from: NodeId, sent: &[u8]) -> (Vec<u8>, Result<(), Closed>) {
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        let mut remote = Remote::of(from);
        remote.key = Some(worker().public());
        let large = Semaphore::new(1);
        let asking = async {
            theirs.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            theirs.shutdown().await.unwrap();
            theirs.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = tokio::join!(self.tasks.serve(ours, &remote, &large), asking);
        (answer, served)
    }

    async fn say(&self, from: NodeId, words: &[Word]) -> Vec<Answer> {
        let mut sent = Vec::new();
        words.iter().for_each(|word| word.emit(&mut sent));
        let (answer, served) = self.bytes(from, &sent).await;
        served.unwrap();
        let mut decoder = Decoder::new(MAX_FRAME);
        decoder.feed(&answer);
        let mut answers = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            answers.push(Answer::parse(&frame).unwrap());
        }
        answers
    }

    /// A task of ours that the peer has.
    async fn submitted(&self, id: &str) -> TaskId {
        let id: TaskId = id.parse().unwrap();
        let submission = Submission {
            to: Addr::backbone(PEER),
            description: "do it".into(),
            id: Some(id.clone()),
            deadline_ms: None,
            wait_ms: 0,
        };
        self.tasks.call(Ask::Submit(submission)).await.unwrap();
        let key = Key { category: Category::Submitted, id: id.clone() };
        let told = Told::Answer(Book::reply(&id, Answer::OK, "fine"));
        self.tasks
            .book(move |book, now| book.told(now, &key, (Pending::Submit, 0), &told, None))
            .await
            .unwrap();
        id
    }

    async fn state(&self, id: &TaskId) -> Option<State> {
        let id = id.clone();
        self.tasks.book(move |book, _| book.find(&id).map(|task| task.state)).await.unwrap()
    }

    fn results(&self) -> Vec<String> {
        names(&self.home.path().join("tasks/results"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn worker() -> Identity {
    Identity::from_seed(&[1; 32])
}

fn submitter() -> Identity {
    Identity::from_seed(&[2; 32])
}

/// Signs, and knows the scores: node 1 has 3, everybody else 0.
async fn driver(mut inbox: mpsc::Receiver<Command>) {
    while let Some(command) = inbox.recv().await {
        let Command::Service(order) = command else { continue };
        match order {
            ServiceOrder::Identity(answer) => drop(answer.send(submitter())),
            ServiceOrder::Registry(request, answer) => {
                let Request::GetPoloScore(wanted) = *request else { continue };
                let polo_score = if wanted.node_id == PEER { -1 } else { 1 };
                let score = Score { node_id: wanted.node_id, address: String::new(), polo_score };
                drop(answer.send(Ok(Response::GetPoloScore(score).to_json())));
            }
            ServiceOrder::Describe(_, answer) => drop(answer.send(Default::default())),
            _ => {}
        }
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../../wire/tests/vectors/services.json")).unwrap()
}

fn text_results(id: &str, text: &str) -> Results {
    Results {
        task_id: id.parse().unwrap(),
        result_type: ResultType::Text,
        result_text: Some(text.to_owned()),
        filename: None,
        file_data: None,
        completed_at: String::new(),
        time_idle_ms: None,
        time_staged_ms: None,
        time_cpu_ms: None,
        pilot: None,
    }
}

#[tokio::test]
async fn the_recorded_words_of_released_nodes_are_answered_as_recorded() {
    let office = Office::open().await;
    let vectors = vectors();
    let cases = vectors["echo_1001_1002_1003_batteries"]["feb2026"].as_array().unwrap();
    let mut seen = 0;
    for case in cases.iter().filter(|case| case["service"] == "tasksubmit/1003") {
        let sent = hex::decode(case["sent_hex"].as_str().unwrap()).unwrap();
        let (answer, _) = office.bytes(PEER, &sent).await;
        let recorded = hex::decode(case["reply_hex"].as_str().unwrap()).unwrap();
        if case["case"] == "submit" {
            let read = |bytes: &[u8]| {
                let mut decoder = Decoder::new(MAX_FRAME);
                decoder.feed(bytes);
                let frame: RawFrame = decoder.next_frame().unwrap().unwrap();
                (frame.kind, Answer { pilot: None, ..Answer::parse(&frame).unwrap() })
            };
            assert_eq!(read(&answer), read(&recorded));
        } else {
            assert_eq!(recorded, [0u8; 0], "{case}");
            // Ours says that it knows no such task, which released nodes do not wait for.
            let unknown = String::from_utf8_lossy(&answer).contains("\"status\":404");
            assert!(answer.is_empty() || unknown, "{case}: {}", String::from_utf8_lossy(&answer));
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
    assert_eq!(office.results(), [""; 0], "results of unknown tasks leave nothing");
}

#[tokio::test]
async fn the_recorded_streams_of_a_released_worker_end_at_succeeded() {
    let office = Office::open().await;
    let vectors = vectors();
    let mut finished = 0;
    for capture in vectors["task_1003_feb_streams"].as_array().unwrap() {
        let stream = capture["stream"].as_array().unwrap();
        let sent: String = stream
            .iter()
            .filter(|frame| frame["dir"] == "driver->daemon" && frame["name"] == "Send")
            .map(|frame| frame["data_hex"].as_str().unwrap())
            .collect();
        let sent = hex::decode(sent).unwrap();
        let mut decoder = Decoder::new(MAX_FRAME);
        decoder.feed(&sent);
        let first = Word::parse(&decoder.next_frame().unwrap().unwrap()).unwrap();
        let id = match &first {
            // What is recorded from both directions is ours to give here: we are the submitter.
            Word::Submit(word) => {
                office.submitted(word.task_id.as_str()).await;
                continue;
            }
            Word::Status(word) => word.task_id.clone(),
            Word::Results(word) => word.task_id.clone(),
            Word::File(_) | Word::Data(_) => panic!("{first:?}"),
        };
        let (_, served) = office.bytes(PEER, &sent).await;
        served.unwrap();
        let state = office.state(&id).await.unwrap();
        let expected = match &first {
            Word::Status(word) => word.status,
            Word::Results(_) | Word::Submit(_) | Word::File(_) | Word::Data(_) => State::Succeeded,
        };
        assert_eq!(state, expected, "{}", capture["argv"]);
        finished += usize::from(state == State::Succeeded);
    }
    assert_eq!(finished, 2);
    assert_eq!(
        office.results(),
        ["5881e2ee-9fc6-c3d4-0982-6b7e73b3e951_result.txt", "7ecad140-42bc-f33a-5501-232a12d71b37_res.csv"]
    );
}

#[tokio::test]
async fn results_from_others_or_for_unknown_tasks_write_nothing() {
    let office = Office::open().await;
    office.submitted("t").await;
    for (from, id) in [(STRANGER, "t"), (PEER, "unknown"), (ME, "t")] {
        let answers = office.say(from, &[Word::Results(text_results(id, "x"))]).await;
        assert_eq!(answers[0].status, Answer::UNKNOWN, "{from} {id}");
        let note = FileNote { name: "x.txt".into(), size: 1, sha256: Digest([0; 32]) };
        let start = FileStart { task_id: id.parse().unwrap(), index: 0, file: note };
        assert_eq!(office.say(from, &[Word::File(start)]).await[0].status, Answer::UNKNOWN);
    }
    assert_eq!(office.results(), [""; 0]);
    assert_eq!(names(&office.home.path().join("tasks/results/.partial")), [""; 0]);
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder() {
    let office = Office::open().await;
    let id = office.submitted("t").await;
    for name in ["../evil.txt", "/etc/passwd", "..", "a/b", "", "a\0b"] {
        let results = Results {
            result_type: ResultType::File,
            filename: Some(name.to_owned()),
            file_data: Some(Bytes::from_static(b"x")),
            ..text_results("t", "")
        };
        assert_eq!(office.say(PEER, &[Word::Results(results)]).await[0].status, Answer::REFUSED, "{name:?}");
        let note = FileNote { name: name.to_owned(), size: 1, sha256: Digest([0; 32]) };
        let start = FileStart { task_id: id.clone(), index: 0, file: note };
        assert_eq!(office.say(PEER, &[Word::File(start)]).await[0].status, Answer::REFUSED, "{name:?}");
    }
    // An id that is a path is no id at all: the stream ends without an answer.
    let json = br#"{"task_id":"../../x","result_type":"text","result_text":"r"}"#;
    let mut frame = Vec::new();
    RawFrame { kind: FrameType(4), payload: Bytes::from_static(json) }.emit(&mut frame);
    let (answer, served) = office.bytes(PEER, &frame).await;
    assert!(answer.is_empty() && matches!(served, Err(Closed::Word(_))));
    assert_eq!(office.results(), [""; 0]);
    assert_eq!(office.state(&id).await, Some(State::New));
    // Names that only look odd are made harmless.
    let results = Results {
        result_type: ResultType::File,
        filename: Some("-rf\u{1b}[2J.txt".to_owned()),
        file_data: Some(Bytes::from_static(b"x")),
        ..text_results("t", "")
    };
    assert_eq!(office.say(PEER, &[Word::Results(results)]).await[0].status, Answer::OK);
    assert_eq!(office.results(), ["t__rf_[2J.txt"]);
}

#[tokio::test]
async fn frames_and_files_beyond_the_limits_are_refused() {
    let office = Office::open().await;
    let id = office.submitted("t").await;
    let header = [0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(office.bytes(PEER, &header).await.1, Err(Closed::TooLarge(_))));
    let file = |index, size| {
        let note = FileNote { name: "x.bin".into(), size, sha256: Digest([0; 32]) };
        Word::File(FileStart { task_id: id.clone(), index, file: note })
    };
    assert_eq!(office.say(PEER, &[file(0, 2 << 30)]).await[0].status, Answer::REFUSED);
    assert_eq!(office.say(PEER, &[file(16, 1)]).await[0].status, Answer::REFUSED);
    let mut data = Vec::new();
    Word::Data(Bytes::from_static(b"x")).emit(&mut data);
    assert!(matches!(office.bytes(PEER, &data).await.1, Err(Closed::Unannounced)));
    let more = [file(0, 1), Word::Data(Bytes::from_static(b"xy"))];
    assert_eq!(office.say(PEER, &more).await[1].status, Answer::LATER, "more than was announced");
    let wrong = [file(0, 1), Word::Data(Bytes::from_static(b"x"))];
    assert_eq!(office.say(PEER, &wrong).await[1].status, Answer::LATER, "another hash");
    assert_eq!(office.results(), [""; 0]);
}

#[tokio::test]
async fn a_file_goes_on_where_it_was_cut_off_and_results_wait_for_it() {
    let office = Office::open().await;
    let id = office.submitted("t").await;
    let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let note = FileNote { name: "data.csv".into(), size: 100_000, sha256: Digest(Sha256::digest(&content)) };
    let start = Word::File(FileStart { task_id: id.clone(), index: 0, file: note.clone() });
    let half = Word::Data(Bytes::copy_from_slice(&content[..40_000]));
    let rest = Word::Data(Bytes::copy_from_slice(&content[40_000..]));
    let offset = |answer: &Answer| answer.pilot.as_ref().unwrap().offset;

    assert_eq!(offset(&office.say(PEER, &[start.clone(), half]).await[0]), Some(0));
    let extension = ResultsExtension { files: vec![note], at: 0, signature: None };
    let results = Word::Results(Results { pilot: Some(extension), ..text_results("t", "see the file") });
    assert_eq!(office.say(PEER, std::slice::from_ref(&results)).await[0].status, Answer::LATER);

    let office = office.restart().await;
    let answers = office.say(PEER, &[start.clone(), rest]).await;
    assert_eq!((offset(&answers[0]), offset(&answers[1])), (Some(40_000), Some(100_000)));
    let office = office.restart().await;
    assert_eq!(offset(&office.say(PEER, &[start]).await[0]), Some(100_000), "all of it is here");
    for _ in 0..2 {
        assert_eq!(office.say(PEER, std::slice::from_ref(&results)).await[0].status, Answer::OK);
    }
    assert_eq!(office.state(&id).await, Some(State::Succeeded));
    assert_eq!(office.results(), ["t_data.csv", "t_result.txt"]);
    assert_eq!(std::fs::read(office.home.path().join("tasks/results/t_data.csv")).unwrap(), content);
    let office = office.restart().await;
    assert_eq!(office.state(&id).await, Some(State::Succeeded));
}

#[tokio::test]
async fn the_submitter_signs_for_work_that_it_saw_and_for_no_other() {
    let office = Office::open().await;
    let id = office.submitted("t").await;
    let claim = |cpu_ms: u64, signer: &Identity| {
        let outcome = Ended::Done { cpu_ms, idle_ms: 0, staged_ms: 0, at: 7 };
        let statement = Statement { task_id: id.clone(), submitter: ME, worker: PEER, outcome };
        let signature = Some(signer.sign(statement.texts().1.as_bytes()));
        Word::Results(Results {
            time_idle_ms: Some(0),
            time_staged_ms: Some(0),
            time_cpu_ms: Some(cpu_ms),
            pilot: Some(ResultsExtension { files: Vec::new(), at: 7, signature }),
            ..text_results("t", "done")
        })
    };
    let signed = async |word: Word| {
        let answer = office.say(PEER, &[word]).await.remove(0);
        assert_eq!(answer.status, Answer::OK);
        answer.pilot.unwrap().signature
    };
    assert_eq!(signed(claim(10_000_000, &worker())).await, None, "hours of work in no time");
    assert_eq!(signed(claim(5, &submitter())).await, None, "not the worker's signature");
    let signature = signed(claim(5, &worker())).await.unwrap();
    assert!(verify(&submitter().public(), b"task_done:t:2:1:5:0:0:7", &signature));
}

#[tokio::test]
async fn submissions_need_trust_and_a_node_that_takes_tasks_and_a_score_where_that_counts() {
    let office = Office::open().await;
    let submit = |from: NodeId, id: &str| {
        Word::Submit(Submit {
            task_id: id.parse().unwrap(),
            task_description: "x".into(),
            from_addr: Addr::backbone(from),
            to_addr: Addr::backbone(ME),
            pilot: None,
        })
    };
    let status = async |from, id| office.say(from, &[submit(from, id)]).await.remove(0);
    assert_eq!(status(STRANGER, "a").await.status, Answer::REFUSED);
    assert_eq!(status(PEER, "b").await.status, Answer::OK);
    office.tasks.call(Ask::Settings { enabled: None, gate: Some(true) }).await.unwrap();
    let refused = status(PEER, "c").await;
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (400, "Polo score too low: submitter=-1, receiver=1")
    );
    office.tasks.call(Ask::Settings { enabled: Some(false), gate: Some(false) }).await.unwrap();
    assert!(status(PEER, "d").await.message.contains("enable-tasks"));
}

#[tokio::test]
async fn what_a_peer_was_answered_outlasts_a_crash() {
    let office = Office::open().await;
    let id = office.submitted("t").await;
    let accepted = StatusUpdate {
        task_id: id.clone(),
        status: State::Accepted,
        justification: String::new(),
        pilot: Some(Default::default()),
    };
    assert_eq!(office.say(PEER, &[Word::Status(accepted)]).await[0].status, Answer::OK);
    let office = office.restart().await;
    assert_eq!(office.state(&id).await, Some(State::Accepted));
}
