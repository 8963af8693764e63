//! The payload of a command: words, a file, or stdin.

use std::io::{IsTerminal, Read};
use std::path::Path;

use crate::failure::Failure;

/// `-` is stdin, anything else is itself.
pub(crate) fn data(text: &str) -> Result<Vec<u8>, Failure> {
    if text == "-" { stdin() } else { Ok(text.as_bytes().to_vec()) }
}

pub(crate) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))
}

/// All of stdin, without the line break that `echo` adds.
pub(crate) fn stdin() -> Result<Vec<u8>, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is nothing on stdin")
            .hint("pipe something in, or give the data on the line"));
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Failure::io("reading stdin", &e))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// Bytes as JSON and text can show them: text if it is UTF-8, else base64 under another name, so that nothing
/// is lost.
pub(crate) fn shown(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Stdin piece by piece, read by a thread of its own: a terminal gives no other way to wait for it.
pub(crate) struct Chunks(tokio::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>);

impl Chunks {
    /// Chunks read ahead of the stream that takes them.
    const AHEAD: usize = 8;

    pub(crate) fn of_stdin() -> Self {
        let (sender, receiver) = tokio::sync::mpsc::channel(Self::AHEAD);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let chunk = match std::io::stdin().lock().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(buffer[..count].to_vec()),
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => Err(e),
                };
                if sender.blocking_send(chunk).is_err() {
                    return;
                }
            }
        });
        Chunks(receiver)
    }

    /// The next piece, `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<std::io::Result<Vec<u8>>> {
        self.0.recv().await
    }
}
