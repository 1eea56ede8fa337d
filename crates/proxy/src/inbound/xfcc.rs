//! X-Forwarded-Client-Cert (semantics 5.6): what the application is told of who calls.

use meshward_http::{HeaderMap, HeaderValue};
use model::SpiffeId;
use snapshot::XfccMode;

use identity::PeerIdentity;

const NAME: &str = "x-forwarded-client-cert";

/// Makes the field say what was proven, and nothing that a plaintext caller says (ID-08, ID-09).
pub(super) fn apply(
    headers: &mut HeaderMap,
    mode: XfccMode,
    peer: Option<&PeerIdentity>,
    own: Option<&SpiffeId>,
) {
    let Some(peer) = peer else {
        headers.remove(NAME);
        return;
    };
    let element = element(peer.id(), peer.leaf_sha256(), peer.subject(), own);
    let before: Vec<String> = match mode {
        XfccMode::SanitizeSet => Vec::new(),
        XfccMode::AppendForward => headers
            .get_all(NAME)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect(),
    };
    let whole = before.into_iter().chain([element]).collect::<Vec<_>>().join(",");
    headers.remove(NAME);
    if let Ok(value) = HeaderValue::try_from(whole) {
        headers.insert(NAME, value);
    }
}

fn element(peer: &SpiffeId, leaf: &[u8; 32], subject: &str, own: Option<&SpiffeId>) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(320);
    if let Some(own) = own {
        // Writing to a String cannot fail.
        let _ = write!(out, "By={own};");
    }
    out.push_str("Hash=");
    for byte in leaf {
        let digit = |value: u8| {
            char::from(if value < 10 {
                b'0' + value
            } else {
                b'a' + value - 10
            })
        };
        out.push(digit(byte >> 4));
        out.push(digit(byte & 15));
    }
    out.push_str(";Subject=\"");
    for c in subject.chars() {
        if matches!(c, '\\' | '"') {
            out.push('\\');
        }
        out.push(c);
    }
    let _ = write!(out, "\";URI={peer}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_09_r9_plaintext_has_none() {
        for mode in [XfccMode::SanitizeSet, XfccMode::AppendForward] {
            let mut headers = HeaderMap::new();
            headers.append(NAME, HeaderValue::from_static("URI=spiffe://x"));
            headers.append(NAME, HeaderValue::from_static("URI=spiffe://y"));
            apply(&mut headers, mode, None, None);
            assert!(!headers.contains_key(NAME));
        }
    }

    #[test]
    fn the_element_as_envoy_writes_it() {
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        let text = element(
            &id("spiffe://cluster.local/ns/a/sa/client"),
            &[0xab; 32],
            "",
            Some(&id("spiffe://cluster.local/ns/b/sa/server")),
        );
        let hash = "ab".repeat(32);
        assert_eq!(
            text,
            format!(
                "By=spiffe://cluster.local/ns/b/sa/server;Hash={hash};Subject=\"\";URI=spiffe://cluster.local/ns/a/sa/client"
            )
        );
    }
}
