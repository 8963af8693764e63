//! The IPC socket: made where nobody can touch it, then moved to its place; only its owner may talk to it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

/// Pause after a failed accept. It fails when the process is out of descriptors; time is what cures that.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the IPC socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers on it.
    #[error("another daemon is running on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket has its name.
    #[error("{} exists and is not a socket; choose another with --socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; its file is removed when this is dropped.
pub(crate) struct Listener {
    inner: UnixListener,
    path: PathBuf,
    inode: u64,
    owner: u32,
    /// After a failure: until clients are accepted again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Listener {
    /// Binds `path` with mode 0600. A socket left by a dead daemon is replaced, a live one is an error.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        refuse_if_live(path)?;
        bind_and_move(path).map_err(|source| SocketError::Io { path: path.to_owned(), source })
    }

    /// The next client that runs under the daemon's user, or as root.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<UnixStream> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.inner.poll_accept(cx)) {
                Ok((stream, _)) if self.may_talk(&stream) => return Poll::Ready(stream),
                Ok(_) => tracing::warn!("a program of another user tried the IPC socket"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a local client");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn may_talk(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner || peer.uid() == 0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if is_ours {
            // Nothing to do about a failure: the next daemon finds the socket dead and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn refuse_if_live(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io { path: path.to_owned(), source }),
        Ok(file) if !file.file_type().is_socket() => Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => match StdUnixStream::connect(path) {
            Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(source) => Err(SocketError::Io { path: path.to_owned(), source }),
        },
    }
}

fn bind_and_move(path: &Path) -> io::Result<Listener> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let private = beside.join(format!(".pilot{}", std::process::id()));
    // A daemon of the same process id that was killed in the middle may have left one.
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let bound = bind_in(&private, path);
    let _ = fs::remove_dir_all(&private);
    bound
}

fn bind_in(private: &Path, path: &Path) -> io::Result<Listener> {
    let owner = fs::metadata(private)?.uid();
    let unmoved = private.join("s");
    let inner = UnixListener::bind(&unmoved)?;
    fs::set_permissions(&unmoved, fs::Permissions::from_mode(0o600))?;
    let inode = fs::metadata(&unmoved)?.ino();
    fs::rename(&unmoved, path)?;
    Ok(Listener { inner, path: path.to_owned(), inode, owner, pause: None })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_goes_away_with_its_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pilot.sock");
        let mut listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the private folder is gone");
        let (accepted, connected) =
            tokio::join!(poll_fn(|cx| listener.poll_accept(cx)), UnixStream::connect(&path));
        drop((accepted, connected.unwrap()));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused_and_a_dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pilot.sock");
        let first = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::InUse { .. })));
        drop(first);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed daemon leaves its socket");
        Listener::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "keep me").unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"keep me");
    }
}
