//! Services that know nothing of Pilot, between two agents behind NATs of their own: what a client types is what it
//! would type on the internet.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use pilot_interop::{Node, Process, until};
use pilot_lab::Access::{AddressRestricted, PortRestricted};
use pilot_lab::{Host, Lab, Site, Way, agree};

/// Bytes of the page: more than fits into one window.
const LENGTH: usize = 4 << 20;

/// A website with one page.
fn site(host: &Host) -> SocketAddr {
    let listener = host.namespace().enter(|| TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
            let page = [head.as_bytes(), &vec![b'x'; LENGTH]].concat();
            // A client that goes away is seen on its own side.
            let _ = reader.get_mut().write_all(&page);
        }
    });
    address
}

/// Runs a line of this node on its host until the test is over; returns when it takes connections.
pub(crate) fn door(host: &Host, node: &Node, words: &[&str]) -> Process {
    let mut command = node.command(words);
    let mut process = host.namespace().enter(|| Process::start(words[0], node.home(), &mut command));
    until(&format!("{words:?} listens"), || {
        assert!(process.is_running(), "{words:?} has ended: {}", process.log());
        process.log().contains("listening on").then_some(())
    });
    process
}

/// What curl says of a page: its status, and how many bytes came.
fn curl(host: &Host, words: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", "--max-time", "60", "--output", "/dev/null", "--noproxy", ""]);
    command.args(["--write-out", "%{http_code} %{size_download}"]).args(words).stdin(Stdio::null());
    let done = host.namespace().enter(|| command.output()).expect("curl runs");
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

#[test]
fn curl_reaches_a_site_behind_another_nat_by_its_name_a_port_and_an_address() {
    let lab = Lab::open();
    let near = Site::build(&lab, "a", PortRestricted);
    let far = Site::build(&lab, "b", AddressRestricted);
    let a = lab.ours(&near.host, "agent-a", &[]);
    let b = lab.ours(&far.host, "agent-b", &["--trust-auto-approve"]);
    agree(&a, &b);
    Way::Direct.awaited([&a, &b]);
    let _serving = door(&far.host, &b, &["serve", "80", "--to", &site(&far.host).to_string()]);
    let whole = format!("200 {LENGTH}");

    let _proxy = door(&near.host, &a, &["proxy", "--socks5", "127.0.0.1:1080", "--http", "127.0.0.1:8118"]);
    let url = "http://agent-b.pilot/";
    assert_eq!(curl(&near.host, &["--socks5-hostname", "127.0.0.1:1080", url]), whole);
    assert_eq!(curl(&near.host, &["--proxy", "http://127.0.0.1:8118", url]), whole);

    let _forwarding = door(&near.host, &a, &["forward", "127.0.0.1:9090", "agent-b:80"]);
    assert_eq!(curl(&near.host, &["http://127.0.0.1:9090/"]), whole);

    // With root: an address that is no loopback address, and is gone afterwards.
    let on_loopback = || {
        let name = near.host.namespace().name();
        let shown =
            Command::new("ip").args(["-n", name, "address", "show", "dev", "lo"]).output().expect("ip runs");
        String::from_utf8_lossy(&shown.stdout).contains("10.4.0.1/32")
    };
    let _gateway = door(&near.host, &a, &["gateway", "start", "--ports", "80", "agent-b"]);
    until("the address leads there", || (curl(&near.host, &["http://10.4.0.1/"]) == whole).then_some(()));
    assert!(on_loopback());
    a.ctl(&["gateway", "stop"]);
    assert!(!on_loopback());
}
