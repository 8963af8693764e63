//! What nodes and registries say to each other.

use pilot_wire::registry::{Card, Decoder, Envelope, Response, seal};

/// Requests as a registry reads them: frames in any segmentation, and what was read can be sent on.
pub fn registry_request(bytes: &[u8]) {
    request(bytes);
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(7) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(content)) => request(&content),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn request(json: &[u8]) {
    if let Ok(envelope) = Envelope::parse(json) {
        // A field that could not be read is kept as the reason why, so only the kind of request must be the same.
        let again = Envelope::parse(&envelope.to_json()).expect("what was read can be read again");
        assert_eq!(std::mem::discriminant(&again.request), std::mem::discriminant(&envelope.request));
    }
    let _ = seal::seal_of(json);
}

/// Replies of a registry as a node reads them.
pub fn registry_response(json: &[u8]) {
    if let Ok(response) = Response::parse(json) {
        let sent = response.to_json();
        // Not byte for byte: numbers of a policy that is passed through may lose their last digit.
        let again = Response::parse(&sent).expect("what was read can be read again");
        assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&response));
    }
    let _ = seal::attestation_of(json);
}

/// Cards that agents publish about themselves.
pub fn card(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(card) = Card::parse(text) {
        assert_eq!(Card::parse(&card.to_text()).expect("what was read can be read again"), card);
    }
}
