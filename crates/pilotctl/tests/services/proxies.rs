//! The proxy: curl through it, and clients that are not as kind as curl.

use std::io::{Read, Write};

use crate::common::{Agent, World};
use crate::door::{Door, connect, service};
use crate::web::{curl, plain_site};

/// The proxy with both its listeners.
fn proxy(agent: &Agent) -> Door {
    Door::open(agent, &["proxy", "--socks5", "127.0.0.1:0", "--http", "127.0.0.1:0"], 2)
}

#[test]
fn curl_reaches_a_site_by_name_number_and_address_through_both_proxies() {
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 80, plain_site());
    let proxy = proxy(&a);
    let (socks, http) = (&proxy.at[0], &proxy.at[1]);
    let form = b.address().replacen(':', "-", 1);
    let number = b.json(&["info"])["node_id"].to_string();
    for name in ["agent-b", "AGENT-B", &form, &number] {
        let url = format!("http://{name}.pilot/");
        let host = format!("host {name}.pilot connection ");
        let by_socks = curl(&["--socks5-hostname", socks, &url]);
        assert!(by_socks.body.to_lowercase().starts_with(&host.to_lowercase()), "{by_socks:?}");
        let by_http = curl(&["--proxy", http, &url]);
        assert_eq!((by_http.status, by_http.body.to_lowercase()), (0, format!("{host}close").to_lowercase()));
        let by_tunnel = curl(&["--proxy", http, "--proxytunnel", &url]);
        assert_eq!(by_tunnel.body.to_lowercase(), by_socks.body.to_lowercase(), "{by_tunnel:?}");
    }
    let long = "x".repeat(100_000);
    let posted = curl(&["--proxy", http, "--data", &long, "http://agent-b.pilot/echo"]);
    assert!(posted.body == long, "{} {}", posted.status, posted.stderr);
    let twice = curl(&["--socks5-hostname", socks, "http://agent-b.pilot/", "http://agent-b.pilot/"]);
    assert_eq!(twice.body.matches("host agent-b.pilot").count(), 2, "{twice:?}");
}

#[test]
fn a_client_learns_why_it_gets_nowhere() {
    let world = World::new();
    let (a, _b) = world.friends();
    let _stranger = world.agent("stranger");
    let number = _stranger.json(&["info"])["node_id"].to_string();
    let proxy = proxy(&a);
    let (socks, http) = (&proxy.at[0], &proxy.at[1]);
    for (host, reply, status, error) in [
        ("agent-b.pilot:4242", 5, "502", "connection_refused"),
        ("nobody.pilot", 4, "502", "destination_not_found"),
        ("a.b.pilot", 4, "502", "destination_not_found"),
        (&format!("{number}.pilot"), 2, "403", "http_request_denied"),
        ("example.com", 2, "403", "http_request_denied"),
        ("localhost", 2, "403", "http_request_denied"),
    ] {
        let url = format!("http://{host}/");
        let by_socks = curl(&["--socks5-hostname", socks, &url]);
        // curl's 97 is "proxy handshake error", with the number of the reply at its end.
        assert_eq!(by_socks.status, 97, "{host} {by_socks:?}");
        assert!(by_socks.stderr.trim_end().ends_with(&format!("({reply})")), "{host} {by_socks:?}");
        let by_http = curl(&["--proxy", http, "--include", &url]);
        assert!(by_http.body.starts_with(&format!("HTTP/1.1 {status} ")), "{host} {by_http:?}");
        assert!(by_http.body.contains(&format!("Proxy-Status: pilot; error={error}\r\n")), "{by_http:?}");
        let by_tunnel = curl(&["--proxy", http, "--proxytunnel", &url]);
        assert!(by_tunnel.status != 0 && by_tunnel.stderr.contains(status), "{host} {by_tunnel:?}");
    }
    let looked_up = curl(&["--socks5", socks, "http://127.0.0.1/"]);
    assert!(looked_up.stderr.trim_end().ends_with("(8)"), "{looked_up:?}");
}

#[test]
fn bytes_that_are_no_request_harm_nobody() {
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 80, plain_site());
    let proxy = proxy(&a);
    let [socks, http] = [0, 1].map(|at| proxy.at[at].parse().unwrap());
    let endless = [b"GET http://agent-b.pilot/ HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let mut seed = 0x2545_F491_u32;
    let mut noise = || -> Vec<u8> {
        let next = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        (0..200).map(next).collect()
    };
    for says in [vec![5, 255, 0], vec![4], vec![], endless, noise(), noise()] {
        for to in [socks, http] {
            let mut stream = connect(to);
            // The other side may end before it has heard everything.
            drop(stream.write_all(&says));
            drop(stream.shutdown(std::net::Shutdown::Write));
            drop(stream.read_to_end(&mut Vec::new()));
        }
    }
    for (says, hears) in [
        (&b"GET http://agent-b.pilot/ HTTP/1.1\r\nNo header\r\n\r\n"[..], &b"HTTP/1.1 400 "[..]),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 505 "),
    ] {
        let mut stream = connect(http);
        stream.write_all(says).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert!(heard.starts_with(hears), "{}", String::from_utf8_lossy(&heard));
    }
    let fine = curl(&["--proxy", &proxy.at[1], "http://agent-b.pilot/"]);
    assert_eq!(fine.body, "host agent-b.pilot connection close", "{fine:?}");
}

#[test]
fn what_a_client_says_too_early_is_not_lost() {
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 80, service(crate::door::backwards));
    let proxy = proxy(&a);
    let host = b"agent-b.pilot";
    let early = [&[5, 1, 0, 5, 1, 0, 3, host.len() as u8][..], host, &[0, 80], b"early"].concat();
    let heard = crate::door::ask(&mut connect(proxy.at[0].parse().unwrap()), &early).unwrap();
    assert_eq!(heard, [&[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"ylrae"].concat());
    let early = b"CONNECT agent-b.pilot:80 HTTP/1.1\r\n\r\nearly";
    let heard = crate::door::ask(&mut connect(proxy.at[1].parse().unwrap()), early).unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), "HTTP/1.1 200 Connection established\r\n\r\nylrae");
}

#[test]
fn other_machines_get_in_only_when_that_is_said() {
    let world = World::new();
    let a = world.agent("agent-a");
    for words in [&["proxy", "--socks5", "0.0.0.0:0"][..], &["forward", "0.0.0.0:0", "agent-b:80"]] {
        let refused = a.run(&[words, &["--json"]].concat());
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (2, Some("invalid_argument")),
            "{refused:?}"
        );
        assert!(refused.json()["hint"].as_str().unwrap().contains("--allow-remote"), "{refused:?}");
    }
    let allowed = Door::open(&a, &["proxy", "--socks5", "0.0.0.0:0", "--allow-remote"], 1);
    assert!(allowed.at[0].starts_with("0.0.0.0:"), "{:?}", allowed.at);
}
