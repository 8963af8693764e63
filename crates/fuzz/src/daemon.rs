//! What a daemon parses itself: answers of gateways, announcements in the local network, names, URLs, its own files.

use pilot_daemon::fuzzing;

/// Announcements of the local network.
pub fn lan(datagram: &[u8]) {
    fuzzing::lan(datagram);
}

/// Answers of gateways that map ports: NAT-PMP, PCP, SSDP, HTTP, the description of a UPnP device.
pub fn gateway(answer: &[u8]) {
    fuzzing::gateway(answer);
}

/// File names, URLs, times, envelopes, requests and answers by HTTP.
pub fn received_text(bytes: &[u8]) {
    fuzzing::file_name(bytes);
    fuzzing::metrics_request(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        fuzzing::text(text);
    }
}

/// Files of the daemon, which partly repeat what peers said.
pub fn state_files(bytes: &[u8]) {
    fuzzing::state_file(bytes);
    fuzzing::stored(bytes);
}
