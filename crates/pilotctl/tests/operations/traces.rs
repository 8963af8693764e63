//! `--otlp`: what a collector of OpenTelemetry is told of what users waited for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::common::{World, befriend};

/// Long enough for a machine under load; nothing waits that long otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes whatever is posted; the spans of it come out of the channel.
fn collector() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, spans) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            for span in take(stream) {
                if sender.send(span).is_err() {
                    return;
                }
            }
        }
    });
    (url, spans)
}

fn take(stream: TcpStream) -> Vec<Value> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
    while line != "\r\n" {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "cut off");
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    let document: Value = serde_json::from_slice(&body).unwrap();
    let resource = &document["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "pilot");
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

/// The first span that fits.
fn span(spans: &Receiver<Value>, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let span = spans.recv_timeout(PATIENCE).expect("no such span came");
        if wanted(&span) {
            return span;
        }
    }
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a str {
    let all = span["attributes"].as_array().unwrap();
    let found =
        all.iter().find(|attribute| attribute["key"] == key).unwrap_or_else(|| panic!("{key}: {span}"));
    let value = found["value"].as_object().unwrap().values().next().unwrap();
    value.as_str().unwrap()
}

#[test]
fn a_collector_is_told_of_trust_a_dial_its_path_and_a_message() {
    let world = World::new();
    let (url, spans) = collector();
    let mut a = world.machine("agent-a");
    a.set_env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    a.start(&[]);
    let b = world.agent("agent-b");
    befriend(&a, &b);
    let peer = b.address();
    let asked = span(&spans, |span| span["name"] == "pilot.registry");
    assert!(!attribute(&asked, "pilot.request").is_empty(), "{asked}");
    let trusted = span(&spans, |span| span["name"] == "pilot.handshake");
    assert_eq!((attribute(&trusted, "pilot.peer"), &trusted["status"]), (&*peer, &serde_json::json!({})));

    let echoed = a.pipe(&["connect", "agent-b", "7"], b"hello");
    assert_eq!(echoed.stdout, b"hello");
    let is_echo = |span: &Value| span["name"] == "pilot.dial" && attribute(span, "pilot.port") == "7";
    let dial = span(&spans, is_echo);
    assert_eq!(attribute(&dial, "pilot.peer"), peer);
    let nanos = |name: &str| dial[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{dial}");
    assert_eq!((dial["traceId"].as_str().unwrap().len(), dial["spanId"].as_str().unwrap().len()), (32, 16));

    a.ok(&["send-message", "agent-b", "hello", "--timeout", "30s"]);
    let message = span(&spans, |span| span["name"] == "pilot.message");
    assert_eq!((attribute(&message, "pilot.peer"), attribute(&message, "pilot.bytes")), (&*peer, "5"));

    assert_ne!(a.pipe(&["connect", "agent-b", "4242"], b"").status, 0);
    let refused =
        span(&spans, |span| span["name"] == "pilot.dial" && attribute(span, "pilot.port") == "4242");
    assert_eq!(refused["status"]["code"], 2, "{refused}");

    // The first dial of another life has to find the peer, and says so as a part of itself.
    a.kill();
    a.start(&[]);
    assert_eq!(a.pipe(&["connect", "agent-b", "7"], b"again").stdout, b"again");
    let path = span(&spans, |span| span["name"] == "pilot.path");
    assert_eq!((attribute(&path, "pilot.peer"), attribute(&path, "pilot.path")), (&*peer, "direct"));
    assert_eq!(path["parentSpanId"].as_str().map(str::len), Some(16), "{path}");
}

#[test]
fn a_collector_that_is_not_there_harms_nothing_and_without_one_nothing_is_sent() {
    let world = World::new();
    let (url, spans) = collector();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", dead.local_addr().unwrap());
    drop(dead);
    let (mut a, mut b) = (world.machine("agent-a"), world.machine("agent-b"));
    a.start(&["--otlp", &gone]);
    b.set_env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    b.start(&["--otlp", "off"]);
    befriend(&a, &b);
    a.ok(&["send-message", "agent-b", "hello", "--timeout", "30s"]);
    b.ok(&["send-message", "agent-a", "hello", "--timeout", "30s"]);
    assert!(spans.try_recv().is_err(), "something was sent");
    let mut c = world.machine("agent-c");
    let refused =
        c.run(&["daemon", "start", "--registry", &world.registry, "--otlp", "collector:4318", "--json"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(refused.json()["message"].as_str().unwrap().contains("collector:4318"), "{refused:?}");
    c.kill();
}
