//! Asks the pages of a rendezvous (`--http-listen`): one request, one answer, in the little HTTP that this takes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::{Code, Failure};

/// Longest answer in bytes: the records of a very large registry.
const ANSWER_MAX: u64 = 8 << 30;

/// What is at `path`, within `limit`. `token` opens what is not for everybody.
pub(crate) async fn get(
    address: &str,
    path: &str,
    token: Option<&str>,
    limit: Duration,
) -> Result<Vec<u8>, Failure> {
    let asking = tokio::time::timeout(limit, exchange(address, path, token));
    let unreachable = |why: String| {
        Failure::new(
            Code::ConnectionFailed,
            format!("the rendezvous' pages at {address} do not answer: {why}"),
        )
        .hint("`pilotctl rendezvous status` shows where they are; `--http-listen` sets it")
    };
    let answer = match asking.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(format!("nothing within {} s", limit.as_secs()))),
    };
    let (status, length, body) = parse(&answer).ok_or_else(|| unreachable("that is no HTTP".to_owned()))?;
    let text = || String::from_utf8_lossy(body).trim().to_owned();
    match status {
        200 if length.is_some_and(|length| length != body.len()) => {
            Err(unreachable("it broke off".to_owned()))
        }
        200 => Ok(body.to_vec()),
        401 | 403 => Err(Failure::new(Code::PermissionDenied, text())),
        404 => Err(Failure::new(Code::NotFound, format!("{address} has no {path}"))),
        status => Err(unreachable(format!("{status} {}", text()))),
    }
}

async fn exchange(address: &str, path: &str, token: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Status, announced length and body.
fn parse(answer: &[u8]) -> Option<(u16, Option<usize>, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, length, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_length_and_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse(answer), Some((200, Some(5), b"hello".as_slice())));
        assert_eq!(parse(b"HTTP/1.1 403 Forbidden\r\n\r\n"), Some((403, None, b"".as_slice())));
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), None);
    }
}
