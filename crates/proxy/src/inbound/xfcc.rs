//! X-Forwarded-Client-Cert (semantics 5.6): what the application is told of who calls.

use identity::PeerIdentity;
use meshward_http::{HeaderMap, HeaderName, HeaderValue};
use model::SpiffeId;
use snapshot::XfccMode;

static NAME: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What is said of a caller to an application that has the identity `own`: the same for all requests of a connection. `None`
/// for one that has proven nothing.
pub(super) fn of(peer: Option<&PeerIdentity>, own: Option<&SpiffeId>) -> Option<HeaderValue> {
    let peer = peer?;
    let element = element(peer.id(), peer.leaf_sha256(), peer.subject(), own);
    HeaderValue::try_from(element).ok()
}

/// Makes the field say what was proven, and nothing that a plaintext caller says (ID-08, ID-09).
pub(super) fn apply(headers: &mut HeaderMap, mode: XfccMode, element: Option<&HeaderValue>) {
    let whole = match (element, mode) {
        (None, _) => None,
        (Some(element), XfccMode::AppendForward) if headers.contains_key(&NAME) => {
            let lines = headers.get_all(&NAME).iter();
            let before = lines.filter_map(|line| line.to_str().ok().map(str::as_bytes));
            let all: Vec<&[u8]> = before.chain([element.as_bytes()]).collect();
            HeaderValue::try_from(all.join(&b","[..])).ok()
        }
        (Some(element), _) => Some(element.clone()),
    };
    match whole {
        Some(whole) => drop(headers.insert(NAME.clone(), whole)),
        None => drop(headers.remove(&NAME)),
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
            headers.append(&NAME, HeaderValue::from_static("URI=spiffe://x"));
            headers.append(&NAME, HeaderValue::from_static("URI=spiffe://y"));
            apply(&mut headers, mode, None);
            assert!(!headers.contains_key(&NAME));
        }
    }

    #[test]
    fn id_08_what_was_said_before_stays_only_where_it_is_appended_to() {
        let element = HeaderValue::from_static("URI=spiffe://z");
        for (mode, before, expect) in [
            (XfccMode::SanitizeSet, vec![], "URI=spiffe://z"),
            (XfccMode::SanitizeSet, vec!["a", "b"], "URI=spiffe://z"),
            (XfccMode::AppendForward, vec![], "URI=spiffe://z"),
            (XfccMode::AppendForward, vec!["a", "b"], "a,b,URI=spiffe://z"),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(&NAME, HeaderValue::from_static(value));
            }
            apply(&mut headers, mode, Some(&element));
            assert_eq!(headers.get_all(&NAME).iter().collect::<Vec<_>>(), [expect]);
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
