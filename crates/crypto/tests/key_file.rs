//! The identity on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pilot_crypto::{Identity, KeyFileError};

#[test]
fn an_identity_survives_a_restart_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.json");
    let made = Identity::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Identity::load_or_create(&path).unwrap().public(), made.public());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays behind");
}

#[test]
fn a_damaged_identity_is_an_error_and_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.json");
    let whole = {
        Identity::load_or_create(&path).unwrap();
        fs::read_to_string(&path).unwrap()
    };
    for keep in [0, 1, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..keep]).unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(KeyFileError::Damaged { .. })), "{keep} bytes");
        assert_eq!(fs::read_to_string(&path).unwrap(), whole[..keep]);
    }
}

#[test]
fn an_identity_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.json");
    Identity::load_or_create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Identity::load(&path), Err(KeyFileError::Exposed { mode: 0o644, .. })));
}

#[test]
fn a_new_identity_never_overwrites_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.json");
    let first = Identity::load_or_create(&path).unwrap();
    let second = Identity::generate().unwrap();
    assert!(second.store_new(&path).is_err());
    assert_eq!(Identity::load(&path).unwrap().public(), first.public());
    second.store(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().public(), second.public());
}
