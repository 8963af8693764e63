//! The gateway: the running one is what `map`, `unmap` and `list` speak to.

use std::net::TcpStream;

use crate::common::{Agent, World};
use crate::door::{Door, ask, backwards, service};
use crate::web::{curl, plain_site};

/// A network of loopback addresses, which needs no root. Each test has one of its own.
fn start(agent: &Agent, subnet: &str, more: &[&str], listeners: usize) -> Door {
    Door::open(
        agent,
        &[&["gateway", "start", "--subnet", subnet, "--ports", "8080"], more].concat(),
        1 + listeners,
    )
}

#[test]
fn a_peer_with_an_address_is_reached_there_until_it_is_taken_back() {
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 8080, plain_site());
    let mut gateway = start(&a, "127.77.1.0/24", &["agent-b"], 1);
    assert_eq!(gateway.at[1], "127.77.1.1");
    let page = curl(&["http://127.77.1.1:8080/"]);
    assert_eq!(page.body, "host 127.77.1.1:8080 connection ", "{page:?}");
    assert_eq!(
        std::fs::read_to_string(a.home.join("gateway.pid")).unwrap(),
        gateway.process.pid().to_string()
    );

    let address = b.address();
    assert_eq!(a.json(&["gateway", "map", &address, "127.77.1.9"])["local_ip"], "127.77.1.9");
    assert_eq!(a.json(&["gateway", "map", "agent-b"])["local_ip"], "127.77.1.1", "it keeps what it has");
    let list = a.json(&["gateway", "list"]);
    assert_eq!(
        (&list["total"], &list["mappings"][1]["pilot_addr"]),
        (&2.into(), &address.clone().into()),
        "{list}"
    );
    assert_eq!(curl(&["http://127.77.1.9:8080/"]).status, 0);

    for (words, status, code) in [
        (&["gateway", "map", "agent-b", "127.77.1.9"][..], 1, "already_exists"),
        (&["gateway", "map", "agent-b", "127.78.0.1"], 2, "invalid_argument"),
        (&["gateway", "map", "nobody"], 5, "not_found"),
        (&["gateway", "unmap", "127.77.1.5"], 5, "not_found"),
        (&["gateway", "start"], 1, "already_exists"),
    ] {
        let refused = a.run(&[words, &["--json"]].concat());
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (status, Some(code)),
            "{words:?} {refused:?}"
        );
    }

    assert_eq!(a.json(&["gateway", "unmap", "127.77.1.9"])["unmapped"], "127.77.1.9");
    assert_eq!(a.json(&["gateway", "list"])["total"], 1);
    // curl's 7 is a connection that was refused.
    assert_eq!(curl(&["http://127.77.1.9:8080/"]).status, 7);

    assert_eq!(a.json(&["gateway", "stop"])["pid"], gateway.process.pid());
    assert_eq!(gateway.process.status(), Some(0));
    assert_eq!(a.run(&["gateway", "list", "--json"]).status, 7);
    assert!(!a.home.join("gateway.pid").exists() && !a.home.join("gateway.sock").exists());
}

#[test]
fn the_socket_of_the_gateway_is_its_owners_and_nonsense_on_it_harms_nobody() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 8080, service(backwards));
    let _gateway = start(&a, "127.77.2.0/24", &["agent-b"], 1);
    let path = a.home.join("gateway.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for nonsense in [&b""[..], b"\n", b"{\"do\":\"fly\"}\n", b"\xff\xfe\n", &[b'x'; 2 << 20]] {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        // It may have heard enough before the end.
        drop(stream.write_all(nonsense));
    }
    assert_eq!(a.json(&["gateway", "list"])["total"], 1);
    let mut stream = crate::door::patient(TcpStream::connect("127.77.2.1:8080").unwrap());
    assert_eq!(ask(&mut stream, b"fine").unwrap(), b"enif");
}
