//! Tasks between a daemon of ours and a node as released in early 2026, which a program plays on port 1003: one word per
//! stream, and no answer but to submissions.
#![allow(clippy::unwrap_used, reason = "a step that fails is the test's failure, in helpers too")]

#[path = "daemon/common.rs"]
mod common;

use std::time::Duration;

use common::{Daemon, Home, Rendezvous, befriend, within};
use pilot_client::{Addr, Client, Listener, NewTask, Port, Stream, TaskResult, TaskState};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TASKS: Port = Port(1003);
const LONG: Duration = Duration::from_secs(20);

/// Our daemon, and one that leaves port 1003 to a program.
struct Mixed {
    ours: Daemon,
    older: Daemon,
    _rendezvous: Rendezvous,
    homes: [Home; 2],
}

impl Mixed {
    async fn start() -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let ours = Daemon::start(homes[0].config(&rendezvous)).await;
        let mut config = homes[1].config(&rendezvous);
        config.services.tasks = false;
        let older = Daemon::start(config).await;
        befriend(&ours, &older).await;
        Self { ours, older, _rendezvous: rendezvous, homes }
    }
}

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn addr(daemon: &Daemon) -> Addr {
    Addr::backbone(daemon.node())
}

async fn read_frame(stream: &mut Stream) -> (u32, Value) {
    let kind = within("a type", stream.read_u32()).await.unwrap();
    let length = within("a length", stream.read_u32()).await.unwrap();
    let mut json = vec![0; length as usize];
    within("a word", stream.read_exact(&mut json)).await.unwrap();
    (kind, serde_json::from_slice(&json).unwrap())
}

fn frame(kind: u32, json: &Value) -> Vec<u8> {
    let json = json.to_string();
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(json.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

/// Takes one word, as such a node does, and answers it if it is a submission.
async fn hear(listener: &mut Listener, answer: Option<Value>) -> (u32, Value) {
    let mut stream = within("a stream", listener.accept()).await.unwrap();
    let heard = read_frame(&mut stream).await;
    if let Some(answer) = answer {
        stream.write_all(&frame(1, &answer)).await.unwrap();
    }
    within("the end", stream.close()).await.unwrap();
    heard
}

#[tokio::test]
async fn a_worker_of_an_older_release_does_a_task_of_ours() {
    let Mixed { ours, older, .. } = &Mixed::start().await;
    let mut port = client(older).await.listen(TASKS).await.unwrap();
    let submitter = client(ours).await;
    let task = submitter.submit_task(addr(older), NewTask::new("summarise X")).await.unwrap();
    let id = task.task_id;
    let received = json!({"task_id": id, "status": 200, "message": "Task received with status NEW"});
    let (kind, submission) = hear(&mut port, Some(received)).await;
    assert_eq!((kind, &submission["task_description"]), (1, &json!("summarise X")));
    assert_eq!(submission["from_addr"], json!(addr(ours)));

    let speaker = client(older).await;
    let say = async |words: &[(u32, Value)]| {
        let mut stream = speaker.dial(addr(ours).port(TASKS)).await.unwrap();
        for (kind, word) in words {
            stream.write_all(&frame(*kind, word)).await.unwrap();
        }
        stream.flush().await.unwrap();
        // It does not wait for an answer.
        within("the end", stream.close()).await.unwrap();
    };
    say(&[(3, json!({"task_id": id, "status": "ACCEPTED", "justification": "Task accepted"}))]).await;
    submitter.wait_task_until(&id, &[TaskState::Accepted], LONG).await.unwrap();
    // Both on one stream: early releases lost the second word.
    let results = json!({"task_id": id, "result_type": "text", "result_text": "the summary",
        "completed_at": "2026-11-21T07:16:10Z", "time_idle_ms": 2109});
    let last = json!({"task_id": id, "status": "SUCCEEDED", "justification": "Task completed successfully"});
    say(&[(4, results), (3, last)]).await;
    let done = submitter.wait_task_until(&id, &[TaskState::Succeeded], LONG).await.unwrap();
    assert_eq!((done.result_text.as_deref(), done.time_idle_ms), (Some("the summary"), Some(2109)));
}

#[tokio::test]
async fn a_submitter_of_an_older_release_gets_one_word_per_stream_and_learns_of_the_success() {
    let Mixed { ours, older, homes, .. } = &Mixed::start().await;
    let worker = client(ours).await;
    worker.task_settings(Some(true), None).await.unwrap();
    let mut port = client(older).await.listen(TASKS).await.unwrap();
    let id = "7ecad140-42bc-f33a-5501-232a12d71b37";
    let mut stream = client(older).await.dial(addr(ours).port(TASKS)).await.unwrap();
    let submission = json!({"task_id": id, "task_description": "file result",
        "from_addr": addr(older), "to_addr": addr(ours)});
    stream.write_all(&frame(1, &submission)).await.unwrap();
    stream.flush().await.unwrap();
    let (kind, answer) = read_frame(&mut stream).await;
    assert_eq!(
        (kind, &answer["status"], &answer["message"]),
        (1, &json!(200), &json!("Task received with status NEW"))
    );
    assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0, "the server ends the stream");

    let task = worker.accept_task(LONG).await.unwrap();
    assert_eq!((task.task_id.as_str(), task.status), (id, TaskState::Accepted));
    let (kind, word) = hear(&mut port, None).await;
    assert_eq!((kind, &word["status"]), (3, &json!("ACCEPTED")));
    worker.execute_task(None, LONG).await.unwrap();
    assert_eq!(hear(&mut port, None).await.1["status"], "EXECUTING");

    let file = homes[0].path().join("res.csv");
    std::fs::write(&file, "a,b\n1,2\n").unwrap();
    let both = TaskResult::text("and words").with_file(&file);
    assert!(worker.complete_task(&task.task_id, both).await.is_err(), "it takes one of the two");
    worker.complete_task(&task.task_id, TaskResult::file(&file)).await.unwrap();
    let (kind, word) = hear(&mut port, None).await;
    assert_eq!((kind, &word["filename"], &word["file_data"]), (4, &json!("res.csv"), &json!("YSxiCjEsMgo=")));
    assert_eq!(word.get("pilot"), None);
    assert_eq!(hear(&mut port, None).await.1["status"], "SUCCEEDED");
    worker.wait_task_until(&task.task_id, &[TaskState::Succeeded], LONG).await.unwrap();
}

#[tokio::test]
async fn a_node_without_tasks_declines_by_not_listening() {
    let Mixed { ours, older, .. } = &Mixed::start().await;
    let submitter = client(ours).await;
    let task = submitter.submit_task(addr(older), NewTask::new("x")).await.unwrap();
    let ended = submitter.wait_task(&task.task_id, LONG).await.unwrap();
    assert_eq!(ended.status, TaskState::Declined);
    assert!(ended.justification.contains("port 1003"), "{}", ended.justification);
    let refused = client(older).await.tasks(None).await.unwrap_err();
    assert_eq!(refused.code(), pilot_client::ipc::Code::Unsupported);
}

/// A whole life of a task, through the driver of both sides.
#[tokio::test]
async fn two_agents_share_work_through_the_driver() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    befriend(&a, &b).await;
    let (submitter, worker) = (client(&a).await, client(&b).await);

    let working = tokio::spawn(async move {
        let task = worker.accept_task(LONG).await.unwrap();
        let task = worker.execute_task(Some(&task.task_id), LONG).await.unwrap();
        worker.report_task_progress(&task.task_id, "half of it").await.unwrap();
        let summary = format!("{} words", task.description.split(' ').count());
        worker.complete_task(&task.task_id, TaskResult::text(summary).delivered_within(LONG)).await.unwrap()
    });
    let new = || NewTask::new("count these four words").deadline(LONG).answered_within(LONG);
    let mut task = submitter.submit_task(addr(&b), new()).await.unwrap();
    // The worker may not wait yet, and is then not asked again by itself.
    while task.status == TaskState::Declined {
        task = submitter.submit_task(addr(&b), new()).await.unwrap();
    }
    let done = submitter.wait_task(&task.task_id, LONG).await.unwrap();
    assert_eq!((done.status, done.result_text.as_deref()), (TaskState::Succeeded, Some("4 words")));
    let handed_in = within("the worker", working).await.unwrap();
    assert_eq!((handed_in.status, handed_in.undelivered), (TaskState::Succeeded, None));

    let settings = submitter.task_settings(Some(true), None).await.unwrap();
    assert!(settings.enabled && !settings.gate);
    let worker = client(&b).await;
    let task = worker.submit_task(addr(&a), NewTask::new("x").answered_within(LONG)).await.unwrap();
    let declined = submitter.decline_task(&task.task_id, "busy").await.unwrap();
    assert_eq!(declined.status, TaskState::Declined);
    assert_eq!(worker.wait_task(&task.task_id, LONG).await.unwrap().justification, "busy");
    let task = worker.submit_task(addr(&a), NewTask::new("y").answered_within(LONG)).await.unwrap();
    submitter.accept_this_task(&task.task_id).await.unwrap();
    assert_eq!(submitter.task_queue().await.unwrap().1, 1);
    submitter.fail_task(&task.task_id, "no idea").await.unwrap();
    assert_eq!(worker.wait_task(&task.task_id, LONG).await.unwrap().status, TaskState::Failed);
    let task = worker.submit_task(addr(&a), NewTask::new("z").answered_within(LONG)).await.unwrap();
    assert_eq!(worker.cancel_task(&task.task_id, "").await.unwrap().status, TaskState::Cancelled);
    let (tasks, total) = submitter.tasks(Some(pilot_client::Category::Received)).await.unwrap();
    assert_eq!((tasks.len(), total), (3, 3));
}
