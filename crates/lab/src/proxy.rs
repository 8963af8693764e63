//! An HTTP proxy as companies have it: whoever asks with `CONNECT` gets a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::host::Host;

/// Where proxies usually listen.
const PORT: u16 = 3128;

/// Longest request. Those of a test are shorter; a line without end must not fill the memory.
const REQUEST_MAX: u64 = 8 << 10;

/// A proxy on a host. Its threads end with the connections, which end with the namespaces.
#[derive(Debug)]
pub struct Proxy {
    place: SocketAddrV4,
    served: Arc<AtomicU32>,
}

impl Proxy {
    /// Starts it.
    pub fn start(host: &Host) -> Self {
        let place = SocketAddrV4::new(host.address(), PORT);
        let served = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&served);
        // Threads live in the namespace of the thread that starts them.
        host.namespace().enter(|| {
            let listener = TcpListener::bind(place).unwrap_or_else(|error| panic!("{place}: {error}"));
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    let count = Arc::clone(&count);
                    // A connection that breaks is a matter of the two that had it.
                    thread::spawn(move || serve(stream, &count).is_ok());
                }
            });
        });
        Self { place, served }
    }

    /// Where it listens.
    pub fn place(&self) -> SocketAddrV4 {
        self.place
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.place)
    }

    /// How many connections it has made so far.
    pub fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, served: &AtomicU32) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?.take(REQUEST_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, to) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let is_asked_for = method == "CONNECT";
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
    }
    let mut client = stream;
    if !is_asked_for {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n");
    }
    let Ok(server) = TcpStream::connect(&to) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    served.fetch_add(1, Ordering::Relaxed);
    // A client waits for the answer before it sends more, so nothing is left in the reader.
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || pass_on(from, to));
    let back = pass_on(server, client);
    // It does not panic, and what it says is the same.
    let _ = there.join();
    back
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let passed = io::copy(&mut from, &mut to);
    // Whoever is left learns of the end.
    let _ = to.shutdown(Shutdown::Write);
    passed.map(drop)
}
