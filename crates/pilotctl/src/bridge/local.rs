//! Sockets of this machine: TCP, and those with a path.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::failure::{Code, Failure};

/// Pause after a failed accept. It fails when the process is out of descriptors; time is what cures that.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place on this machine, or one that it reaches: `127.0.0.1:8080`, `8080`, `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Host and port, as one word.
    Tcp(String),
    /// A socket with a path.
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = !path.is_empty() && !path.contains('\0');
            return if is_path {
                Ok(Self::Unix(path.into()))
            } else {
                Err("a path belongs behind `unix:`".into())
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port: u16 =
            port.parse().map_err(|_| "write 127.0.0.1:8080, 8080 or unix:/path/of.sock".to_owned())?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Ok(Self::Tcp(format!("{host}:{port}")))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Who may reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Programs of this machine.
    Machine,
    /// Whoever the network lets through.
    Network,
}

impl Reach {
    /// From `--allow-remote`.
    pub(crate) const fn remote_if(allowed: bool) -> Self {
        if allowed { Self::Network } else { Self::Machine }
    }
}

/// A bound socket. The file of one with a path goes with it.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds a place. A socket that a dead program left at its path is replaced, and nobody but its owner may use it.
    pub(crate) async fn bind(place: &Place, reach: Reach) -> Result<Self, Failure> {
        match place {
            Place::Tcp(address) => bind_tcp(address, reach).await.map(Self::Tcp),
            Place::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// Where it listens, also when port 0 was asked for.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Tcp(listener) => {
                Place::Tcp(listener.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string()))
            }
            Self::Unix(_, file) => Place::Unix(file.path.clone()),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Socket {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(tcp, _)| Socket::tcp(tcp)),
                Self::Unix(listener, _) => listener.accept().await.map(|(unix, _)| Socket::Unix(unix)),
            };
            match accepted {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

async fn bind_tcp(text: &str, reach: Reach) -> Result<TcpListener, Failure> {
    let found = tokio::net::lookup_host(text)
        .await
        .map_err(|error| Failure::usage(format!("`{text}` is not an address to listen on: {error}")))?;
    let addresses: Vec<SocketAddr> = found.collect();
    if reach == Reach::Machine && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(Failure::usage(format!(
            "other machines reach `{text}`, and nobody is asked who they are"
        ))
        .hint("take 127.0.0.1, or say that it is meant with --allow-remote"));
    }
    TcpListener::bind(&addresses[..]).await.map_err(|error| cannot_listen(text, &error))
}

fn cannot_listen(place: impl fmt::Display, error: &io::Error) -> Failure {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        Failure::new(Code::AlreadyExists, format!("another program listens on {place}"))
            .hint("choose another port, or 0 for any that is free")
    } else if kind == io::ErrorKind::PermissionDenied {
        Failure::new(Code::PermissionDenied, format!("this user may not listen on {place}"))
            .hint("ports below 1024 are the system's; choose one above")
    } else if kind == io::ErrorKind::AddrNotAvailable {
        Failure::usage(format!("{place} is not an address of this machine"))
    } else {
        Failure::io(format!("listening on {place}"), error)
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), Failure> {
    let shown = format!("unix:{}", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Failure::new(Code::AlreadyExists, format!("{} is not a socket", path.display()))
                .hint("choose another path"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(Failure::new(Code::AlreadyExists, format!("another program listens on {shown}"))
                .hint("choose another path"));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|error| cannot_listen(&shown, &error))?,
        Err(_) => {}
    }
    let bound = bind_private(path).map_err(|error| cannot_listen(&shown, &error))?;
    let inode = std::fs::symlink_metadata(path).map(|made| made.ino()).unwrap_or_default();
    Ok((bound, SocketFile { path: path.to_owned(), inode }))
}

/// Bound where nobody else can go, then moved: at no time can another user connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let hidden = beside.join(format!(".p{}", std::process::id()));
    crate::settings::private_directory(&hidden)?;
    let made = hidden.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, path)?;
        Ok(listener)
    });
    drop(std::fs::remove_dir_all(&hidden));
    bound
}

/// The file of a socket, removed at the end unless another has taken its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A connection on this machine.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn tcp(tcp: TcpStream) -> Self {
        // What is passed on has been gathered by whoever wrote it.
        drop(tcp.set_nodelay(true));
        Self::Tcp(tcp)
    }

    /// Connects to a service.
    pub(crate) async fn connect(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => Ok(Self::tcp(TcpStream::connect(address).await?)),
            Place::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Where the other end of a TCP connection is.
    pub(crate) fn peer_ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().ok().map(|addr| addr.ip()),
            Self::Unix(_) => None,
        }
    }

    /// What has come by now, without waiting for more than `patience`.
    pub(crate) async fn first_bytes(&self, most: usize, patience: Duration) -> Vec<u8> {
        let readable = async {
            match self {
                Self::Tcp(tcp) => tcp.readable().await,
                Self::Unix(unix) => unix.readable().await,
            }
        };
        let mut bytes = Vec::new();
        if let Ok(Ok(())) = tokio::time::timeout(patience, readable).await {
            bytes.resize(most, 0);
            let read = match self {
                Self::Tcp(tcp) => tcp.try_read(&mut bytes),
                Self::Unix(unix) => unix.try_read(&mut bytes),
            };
            // An end or an error shows again to whoever reads next.
            bytes.truncate(read.unwrap_or(0));
            bytes.shrink_to_fit();
        }
        bytes
    }

    /// Ends it as a failure: the program at the other end of a TCP connection sees a reset. Sockets with a path know no
    /// such thing, and just end.
    pub(crate) fn reset(self) {
        if let Self::Tcp(tcp) = &self {
            drop(tcp.set_zero_linger());
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, data),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ports_addresses_and_paths() {
        for (text, shown) in [
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "localhost:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for text in ["", "agent-b", "127.0.0.1", "127.0.0.1:65536", "unix:", "http://x"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_with_a_path_is_private_replaces_a_dead_one_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let place = Place::Unix(path.clone());
        let listener = Listener::bind(&place, Reach::Machine).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = Listener::bind(&place, Reach::Machine).await.err().unwrap();
        assert_eq!(taken.code, Code::AlreadyExists);
        drop(listener);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn other_machines_are_let_in_only_when_that_is_said() {
        let place: Place = "0.0.0.0:0".parse().unwrap();
        let refused = Listener::bind(&place, Reach::Machine).await.err().unwrap();
        assert_eq!(refused.code, Code::InvalidArgument);
        assert!(Listener::bind(&place, Reach::Network).await.is_ok());
    }
}
