//! What can be seen without a daemon: settings, files and who may read them, room, the clock.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::context::Context;
use crate::failure::Code;
use crate::humane;

/// With less free space messages are refused soon.
const ROOM_LEAST: u64 = 64 << 20;

/// With less the owner should know.
const ROOM_ENOUGH: u64 = 1 << 30;

/// 2026-01-01: this program did not exist before.
const EPOCH_OF_PILOT: Duration = Duration::from_secs(1_767_225_600);

/// Nobody else's business.
const OTHERS: u32 = 0o077;

pub(super) fn look(ctx: &Context) -> Vec<Finding> {
    let home = ctx.settings.home();
    let mut findings = vec![settings(ctx), home_of(home)];
    let identity = ctx.settings.path("identity").unwrap_or_else(|| home.join("identity.json"));
    findings.push(key(&identity));
    findings.extend(room(home));
    findings.push(clock(SystemTime::now()));
    findings
}

fn settings(ctx: &Context) -> Finding {
    // A file that cannot be read has ended this command before.
    let file = ctx.settings.file();
    let found = if file.exists() {
        file.display().to_string()
    } else {
        format!("defaults and environment; there is no {}", file.display())
    };
    Finding::ok("settings", found)
}

fn home_of(home: &Path) -> Finding {
    match mode_of(home) {
        Ok(mode) if mode & OTHERS == 0 => Finding::ok("home", home.display().to_string()),
        Ok(mode) => Finding::remark(
            "home",
            format!("{} is open to other users (mode {:o})", home.display(), mode & 0o777),
            format!("chmod 700 {}", home.display()),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok("home", format!("{} is made by the first start", home.display()))
        }
        Err(error) => Finding::fault(
            "home",
            Code::PermissionDenied,
            format!("{}: {error}", home.display()),
            "this user has to be able to read and write it; or name another home",
        ),
    }
}

fn key(identity: &Path) -> Finding {
    match mode_of(identity) {
        Ok(mode) if mode & OTHERS == 0 => Finding::ok("key", identity.display().to_string()),
        Ok(mode) => Finding::fault(
            "key",
            Code::PermissionDenied,
            format!("{} can be read by other users (mode {:o})", identity.display(), mode & 0o777),
            format!("chmod 600 {}; if somebody read it: pilotctl rotate-key", identity.display()),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok("key", format!("{} is made by the first start", identity.display()))
        }
        Err(error) => Finding::fault(
            "key",
            Code::PermissionDenied,
            format!("{}: {error}", identity.display()),
            "the daemon has to be able to read it",
        ),
    }
}

fn mode_of(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode())
}

/// Room where the state is kept, or would be.
fn room(home: &Path) -> Option<Finding> {
    let place = home.ancestors().find(|place| place.exists())?;
    let stat = rustix::fs::statvfs(place).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{} free for {}", humane::bytes(free), home.display());
    Some(match free {
        free if free < ROOM_LEAST => Finding::fault(
            "space",
            Code::Internal,
            found,
            "make room: messages and files that arrive are refused without it",
        ),
        free if free < ROOM_ENOUGH => Finding::remark("space", found, "make room before it is used up"),
        _ => Finding::ok("space", found),
    })
}

/// Certificates, records and deadlines are counted by it.
fn clock(now: SystemTime) -> Finding {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = humane::utc(since.as_secs());
    if since < EPOCH_OF_PILOT {
        return Finding::fault(
            "clock",
            Code::Internal,
            format!("it says {shown}"),
            "set it: certificates and signed records are refused with a wrong one",
        );
    }
    Finding::ok("clock", shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doctor::Verdict;

    fn with_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_or_a_home_that_others_can_read_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("identity.json");
        assert_eq!(key(&identity).verdict, Verdict::Ok, "it is not there yet");
        fs::write(&identity, "{}").unwrap();
        with_mode(&identity, 0o644);
        let open = key(&identity);
        assert_eq!((open.verdict, open.code), (Verdict::Fault, Some(Code::PermissionDenied)));
        assert!(open.advice.unwrap().starts_with("chmod 600"));
        with_mode(&identity, 0o600);
        assert_eq!(key(&identity).verdict, Verdict::Ok);
        with_mode(folder.path(), 0o755);
        assert_eq!(home_of(folder.path()).verdict, Verdict::Remark);
        with_mode(folder.path(), 0o700);
        assert_eq!(home_of(folder.path()).verdict, Verdict::Ok);
    }

    #[test]
    fn a_clock_of_the_last_century_is_a_fault() {
        assert_eq!(clock(UNIX_EPOCH).verdict, Verdict::Fault);
        assert_eq!(clock(UNIX_EPOCH + EPOCH_OF_PILOT).verdict, Verdict::Ok);
    }

    #[test]
    fn room_is_counted_where_the_home_will_be() {
        let folder = tempfile::tempdir().unwrap();
        assert!(room(&folder.path().join("not/yet/there")).is_some());
    }
}
