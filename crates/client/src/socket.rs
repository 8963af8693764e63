//! Where the daemon's socket is.

use std::path::PathBuf;

/// The socket of a daemon that was started without saying otherwise.
const DEFAULT: &str = "/tmp/pilot.sock";

/// The socket to connect to when none is given: `$PILOT_SOCKET`, else what `config.json` in `$PILOT_HOME` or
/// `~/.pilot` says, else `/tmp/pilot.sock`.
pub fn default_socket() -> PathBuf {
    let from_environment =
        std::env::var_os("PILOT_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    from_environment.or_else(configured).unwrap_or_else(|| DEFAULT.into())
}

fn configured() -> Option<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Config {
        socket: Option<PathBuf>,
    }
    let home = std::env::var_os("PILOT_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".pilot")))?;
    let text = std::fs::read(home.join("config.json")).ok()?;
    serde_json::from_slice::<Config>(&text).ok()?.socket.filter(|path| !path.as_os_str().is_empty())
}
