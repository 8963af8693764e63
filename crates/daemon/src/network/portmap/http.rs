//! As much HTTP as a gateway's UPnP server needs: one request, one answer, then the connection ends.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer. Descriptions of real gateways have 2 to 20 KiB.
const ANSWER_MAX: u64 = 128 << 10;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An `http://` URL on a server whose address is a literal one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) server: SocketAddr,
    pub(super) path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let scheme = text.get(..7)?;
        if !scheme.eq_ignore_ascii_case("http://") {
            return None;
        }
        let rest = &text[7..];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let server = authority
            .parse()
            .or_else(|_| authority.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, 80)))
            .ok()?;
        Some(Self { server, path: path_of(path)? })
    }

    /// The URL that `reference` means in a document of this one.
    pub(super) fn join(&self, reference: &str) -> Option<Self> {
        if reference.contains("://") {
            return Self::parse(reference);
        }
        let path = match reference.strip_prefix('/') {
            Some(_) => reference.to_owned(),
            None => format!("{}/{reference}", self.path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        Some(Self { server: self.server, path: path_of(&path)? })
    }
}

/// What can stand in a request line.
fn path_of(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    Some(if text.is_empty() { "/".to_owned() } else { text.to_owned() })
}

/// Gets a document.
pub(super) async fn get(url: &Url) -> io::Result<Answer> {
    let head = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.server);
    exchange(url.server, head).await
}

/// Calls a SOAP action.
pub(super) async fn post(url: &Url, action: &str, body: &str) -> io::Result<Answer> {
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
         SOAPAction: \"{action}\"\r\nContent-Length: {}\r\n\r\n{body}",
        url.path,
        url.server,
        body.len()
    );
    exchange(url.server, request).await
}

async fn exchange(server: SocketAddr, request: String) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_MAX);
    loop {
        // Some servers keep the connection although they were asked not to: the length tells, where there is one.
        if let Some(complete) = parse(&answer, false)? {
            return Ok(complete);
        }
        if limited.read_buf(&mut answer).await? == 0 {
            return parse(&answer, true)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The answer in these bytes, if it is complete; at the `end` of the connection what is there is all there is.
fn parse(bytes: &[u8], end: bool) -> io::Result<Option<Answer>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let Some(head_len) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&bytes[..head_len]).map_err(|_| malformed())?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().filter(|line| line.starts_with("HTTP/1.")).ok_or_else(malformed)?;
    let status = status_line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
    let header = |wanted: &str| {
        lines.clone().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let rest = &bytes[head_len + 4..];
    let body = if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        match chunked(rest) {
            Ok(body) => body,
            Err(Unfinished::NotYet) => return Ok(None),
            Err(Unfinished::Malformed) => return Err(malformed()),
        }
    } else {
        let length = header("content-length").map(|text| text.parse::<usize>().map_err(|_| malformed()));
        match length.transpose()? {
            Some(length) => match rest.get(..length) {
                Some(body) => body.to_vec(),
                None => return Ok(None),
            },
            None if end => rest.to_vec(),
            None => return Ok(None),
        }
    };
    Ok(Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned() }))
}

enum Unfinished {
    NotYet,
    Malformed,
}

/// Puts the pieces of a chunked body together (RFC 9112 7.1).
fn chunked(mut rest: &[u8]) -> Result<Vec<u8>, Unfinished> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").ok_or(Unfinished::NotYet)?;
        let size = str::from_utf8(&rest[..line]).ok().and_then(|text| text.split(';').next());
        let size = size.and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let size = size.filter(|size| *size as u64 <= ANSWER_MAX).ok_or(Unfinished::Malformed)?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or(Unfinished::NotYet)?);
        rest = rest.get(size + 2..).ok_or(Unfinished::NotYet)?;
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(answer: &[u8]) {
    let whole = parse(answer, false);
    // What is complete does not depend on how the connection ends, nor on what follows.
    if let Ok(Some(complete)) = &whole {
        assert_eq!(parse(answer, true).ok().flatten().as_ref(), Some(complete));
    }
    if let Ok(text) = str::from_utf8(answer)
        && let Some(url) = Url::parse(text)
    {
        assert!(!url.path.contains(['\r', '\n', ' ']), "{url:?}");
        let again = Url::parse(&format!("http://{}{}", url.server, url.path));
        assert!(again.as_ref() == Some(&url) || !url.path.starts_with('/'), "{url:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: &str, end: bool) -> Option<String> {
        parse(answer.as_bytes(), end).unwrap().map(|answer| answer.body)
    }

    #[test]
    fn urls_lead_to_literal_addresses_only() {
        let url = Url::parse("http://192.168.1.1:5000/a/desc.xml").unwrap();
        assert_eq!((url.server, url.path.as_str()), ("192.168.1.1:5000".parse().unwrap(), "/a/desc.xml"));
        assert_eq!(Url::parse("HTTP://192.168.1.1").unwrap().server.port(), 80);
        for wrong in
            ["https://192.168.1.1/", "http://router.local/", "http://", "http", "http://192.168.1.1/a b", "é"]
        {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
        assert_eq!(url.join("/ctl").unwrap().path, "/ctl");
        assert_eq!(url.join("ctl").unwrap().path, "/a/ctl");
        assert_eq!(url.join("http://10.0.0.1/x").unwrap().server, "10.0.0.1:80".parse().unwrap());
        assert_eq!(url.join("/x\r\nHost: y"), None);
    }

    #[test]
    fn a_body_ends_where_its_length_its_chunks_or_the_connection_end() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", false).unwrap(), "ab");
        assert_eq!(body("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", false), None);
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        assert_eq!(body(chunks, false).unwrap(), "abcd");
        for length in 0..chunks.len() - 2 {
            assert_eq!(body(&chunks[..length], false), None, "{length}");
        }
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nabc", false), None);
        assert_eq!(body("HTTP/1.0 200 OK\r\n\r\nabc", true).unwrap(), "abc");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for wrong in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 xx\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        ] {
            assert!(parse(wrong.as_bytes(), true).is_err(), "{wrong}");
        }
    }
}
