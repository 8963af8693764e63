//! A machine is lost, and its recovery key is not.

mod common;

use common::World;

#[test]
fn a_lost_machine_comes_back_on_another_one_with_its_recovery_key() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let file = world.directory.path().join("recovery.json").display().to_string();
    let (before, address) = (b.json(&["info"]), b.address());
    assert!(b.ok(&["recovery", "show"]).contains("names no recovery key"));
    let made = b.json(&["recovery", "create", "--out", &file]);
    assert_eq!(b.json(&["recovery", "show"])["fingerprint"], made["fingerprint"]);
    assert_eq!(b.run(&["recovery", "create", "--out", &file, "--json"]).json()["code"], "already_exists");
    let living = b.run(&["recovery", "use", &file, "--address", &address, "--json"]);
    assert_eq!(living.json()["code"], "already_exists", "{living:?}");
    // Behind the record that names the key, on one connection; the friend sees it when it looks.
    b.ok(&["lookup", &a.address()]);
    a.ok(&["why", "agent-b", "--timeout", "10s"]);
    let pinned = a.json(&["trust"])["trusted"][0]["key_fingerprint"].clone();
    assert_eq!(pinned, before["key_fingerprint"]);
    b.kill();

    let mut c = world.machine("machine-c");
    let found = c.json(&["recovery", "use", &file, "--address", &address, "--registry", &world.registry]);
    assert_eq!((&found["address"], &found["hostname"]), (&before["address"], &"agent-b".into()));
    c.name = String::new();
    c.start(&[]);
    assert_eq!(c.json(&["info"])["hostname"], "agent-b");
    // Whom it trusted was lost with the machine, and is not the registry's to say. Its friends still trust it, and answer.
    c.ok(&["handshake", &a.address(), "again", "--wait=20s"]);
    c.ok(&["ping", &a.address(), "--count", "1"]);
    a.ok(&["ping", &address, "--count", "3"]);
    a.ok(&["connect", "agent-b", "7", "--message", "x"]);
    let trusted = &a.json(&["trust"])["trusted"][0];
    assert_eq!(trusted["key_changed"]["by"], "recovery_key", "{trusted}");
    assert_eq!(trusted["key_fingerprint"], found["fingerprint"]);
    assert!(a.ok(&["trust"]).contains(" by the recovery key"));
    let again = c.run(&["recovery", "use", &file, "--address", &address, "--json"]);
    assert_eq!(again.json()["code"], "already_exists", "{again:?}");
}
