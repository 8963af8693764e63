//! Failures of a reference daemon: it has texts only, so the class is read from the text here and nowhere else.

use pilot_wire::ipc::{Code, Failure};

/// Parts of the texts of 1.18 and the class they stand for; the first that occurs decides.
const CLASSES: &[(&str, Code)] = &[
    ("unknown command", Code::Unsupported),
    ("connection refused", Code::Refused),
    ("dial timeout", Code::Timeout),
    ("timeout", Code::Timeout),
    ("untrusted", Code::NotTrusted),
    ("was not trusted", Code::NotFound),
    ("not trusted", Code::NotTrusted),
    ("trust_required", Code::NotTrusted),
    ("not found", Code::NotFound),
    ("already bound", Code::AlreadyExists),
    ("already", Code::AlreadyExists),
    ("not owned by this client", Code::PermissionDenied),
    ("dial tcp", Code::RegistryUnreachable),
    ("too large", Code::InvalidArgument),
    ("missing", Code::InvalidArgument),
    ("invalid", Code::InvalidArgument),
    ("maximum", Code::InvalidArgument),
    ("cannot target", Code::InvalidArgument),
];

/// What a reference daemon's error text means.
pub(crate) fn failure(text: &str) -> Failure {
    let code = CLASSES.iter().find(|(part, _)| text.contains(part)).map_or(Code::Other, |&(_, code)| code);
    Failure::new(code, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_texts_have_their_class() {
        for (text, code) in [
            ("connection refused", Code::Refused),
            ("resolve node 99: registry: node 99: node not found", Code::NotFound),
            (
                "cannot look up peer 0:0000.0000.0063 (registry: …); refusing tunnel to untrusted node",
                Code::NotTrusted,
            ),
            ("port 7 already bound", Code::AlreadyExists),
            ("unbind: port is not owned by this client", Code::PermissionDenied),
            ("sendto: marshal: payload too large: 66000 bytes (max 65535)", Code::InvalidArgument),
            ("rotate_key: registry: registry: request failed", Code::Other),
        ] {
            assert_eq!(failure(text).code, code, "{text}");
        }
    }
}
