//! Somebody between the nodes and the beacon: hears all that goes through it, and says what it likes in the beacon's name.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use pilot_wire::NodeId;
use pilot_wire::beacon::Message;

/// How soon its threads notice that the test is over.
const TURN: Duration = Duration::from_millis(50);

/// A frame that one node sent to another through the beacon.
#[derive(Clone)]
pub(crate) struct Overheard {
    pub(crate) source: NodeId,
    pub(crate) destination: NodeId,
    pub(crate) frame: Vec<u8>,
}

pub(crate) struct Middle {
    /// What nodes take for the beacon.
    pub(crate) address: SocketAddr,
    front: UdpSocket,
    heard: Arc<Mutex<Vec<Overheard>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Middle {
    pub(crate) fn before(beacon: &str) -> Self {
        let beacon: SocketAddr = beacon.parse().unwrap();
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_read_timeout(Some(TURN)).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let address = front.local_addr().unwrap();
        let thread = {
            let (front, heard, over) = (front.try_clone().unwrap(), Arc::clone(&heard), Arc::clone(&over));
            std::thread::spawn(move || forth(&front, beacon, &heard, &over))
        };
        Self { address, front, heard, over, thread: Some(thread) }
    }

    /// What has been heard so far.
    pub(crate) fn heard(&self) -> Vec<Overheard> {
        self.heard.lock().unwrap().clone()
    }

    /// In the beacon's name.
    pub(crate) fn say(&self, to: SocketAddr, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        self.front.send_to(&bytes, to).unwrap();
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

/// From nodes to the beacon: for each node another socket, so that it can be told whom an answer is for.
fn forth(front: &UdpSocket, beacon: SocketAddr, heard: &Mutex<Vec<Overheard>>, over: &Arc<AtomicBool>) {
    let mut backs: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut threads = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !over.load(Ordering::SeqCst) {
        let Ok((length, node)) = front.recv_from(&mut buffer) else { continue };
        if let Ok(Message::Relay { source, destination, frame }) = Message::parse(&buffer[..length]) {
            heard.lock().unwrap().push(Overheard { source, destination, frame: frame.to_vec() });
        }
        let back = backs.entry(node).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.set_read_timeout(Some(TURN)).unwrap();
            let (from, to, over) = (back.try_clone().unwrap(), front.try_clone().unwrap(), Arc::clone(over));
            threads.push(std::thread::spawn(move || back_to(node, &from, &to, beacon, &over)));
            back
        });
        let _ = back.send_to(&buffer[..length], beacon);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// From the beacon to a node. What others send to its outside does not pass, as with most NATs.
fn back_to(node: SocketAddr, from: &UdpSocket, to: &UdpSocket, beacon: SocketAddr, over: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !over.load(Ordering::SeqCst) {
        if let Ok((length, sender)) = from.recv_from(&mut buffer)
            && sender == beacon
        {
            let _ = to.send_to(&buffer[..length], node);
        }
    }
}
