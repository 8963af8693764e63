//! What every command gets: how to print, the settings, and the way to the daemon.

use std::path::{Path, PathBuf};

use pilot_client::Client;

use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use crate::settings::{Flags, Settings};

/// One invocation.
pub(crate) struct Context {
    pub(crate) format: Format,
    pub(crate) settings: Settings,
    flags: Flags,
    config: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(format: Format, flags: Flags, config: Option<PathBuf>) -> Result<Self, Failure> {
        let settings = Settings::load(&flags, config.as_deref())?;
        Ok(Context { format, settings, flags, config })
    }

    /// The settings as they are now, after the file was changed.
    pub(crate) fn reload(&self) -> Result<Settings, Failure> {
        Settings::load(&self.flags, self.config.as_deref())
    }

    /// `--socket`, if it was given.
    pub(crate) fn socket_flag(&self) -> Option<&Path> {
        self.flags.get("socket").map(Path::new)
    }

    /// A connection to the running daemon.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let socket = self.settings.socket();
        Client::connect_to(&socket).await.map_err(|error| {
            match Failure::from(pilot_client::Error::from(error)) {
                failure if failure.code == Code::NotRunning => Failure::not_running(&socket),
                failure => failure,
            }
        })
    }

    /// The same, or `None` where a daemon that is down is an answer and not a failure.
    pub(crate) async fn client_if_running(&self) -> Result<Option<Client>, Failure> {
        match self.client().await {
            Ok(client) => Ok(Some(client)),
            Err(failure) if failure.code == Code::NotRunning => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A remark for people.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        output::note(self.format, text.as_ref());
    }
}
