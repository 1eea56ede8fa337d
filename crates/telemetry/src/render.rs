//! Access-log lines.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use crate::event::{Event, EventKind, Peer, Wire};

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people: one line, values escaped so that no caller can forge a line or a field.
    Text,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("`{other}` is not a log format: json or text")),
        }
    }
}

/// The line for an event, without the newline.
pub(crate) fn line(event: &Event, format: Format) -> String {
    match format {
        // A struct of strings and numbers always serialises; an empty object would only say that something is amiss.
        Format::Json => serde_json::to_string(event).unwrap_or_else(|_| "{}".to_owned()),
        Format::Text => text(event),
    }
}

/// An event as one line for people, without the line break; values are escaped so that no caller can forge one.
pub fn text(event: &Event) -> String {
    let mut out = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _ = write!(out, "{} {} ", Stamp(event.time), event.reporter.as_str());
    peer(&mut out, &event.source);
    out.push_str(" -> ");
    peer(&mut out, &event.destination);
    if let Some(service) = &event.service {
        let _ = write!(out, " ({}:{})", Escaped(service), event.port);
    } else {
        let _ = write!(out, " (:{})", event.port);
    }
    let wire = match event.wire {
        Wire::MutualTls => "mtls",
        Wire::Hbone => "hbone",
        Wire::Local => "local",
        Wire::Foreign => "foreign tls",
        Wire::Plaintext => "plaintext",
    };
    let _ = write!(out, " {} {wire}", event.protocol);
    if let Some(http) = &event.http {
        let _ = write!(
            out,
            " {} \"{}\" \"{}\"",
            Escaped(&http.method),
            Escaped(&http.authority),
            Escaped(&http.path)
        );
        if let Some(normalized) = &http.path_normalized {
            let _ = write!(out, " as \"{}\"", Escaped(normalized));
        }
        let _ = write!(out, " {}", http.code);
    }
    let decision = match (event.kind, event.decision) {
        (EventKind::Drop, _) => "DROPPED",
        (_, crate::Decision::Allow) => "ALLOWED",
        (_, crate::Decision::Deny) => "DENIED",
        (_, crate::Decision::NotDecided) => "-",
    };
    let _ = write!(out, " {decision}");
    if let Some(reason) = event.reason {
        let _ = write!(out, " {reason}");
    }
    if let Some(policy) = &event.policy {
        let _ = write!(
            out,
            " by {}/{}",
            Escaped(&policy.namespace),
            Escaped(&policy.name)
        );
        if let Some(rule) = policy.rule {
            let _ = write!(out, "[{rule}]");
        }
    }
    if let Some(id) = &event.decision_id {
        let _ = write!(out, " decision {id}");
    }
    let _ = write!(
        out,
        " {} {}B/{}B {:.3}ms",
        event.flags,
        event.bytes_received,
        event.bytes_sent,
        event.duration.as_secs_f64() * 1000.0
    );
    if let Some(message) = &event.message {
        let _ = write!(out, ": {}", Escaped(message));
    }
    out
}

fn peer(out: &mut String, peer: &Peer) {
    let known = if peer.pod.is_empty() {
        &peer.workload
    } else {
        &peer.pod
    };
    if !known.is_empty() {
        let _ = write!(out, "{}/{}", Escaped(&peer.namespace), Escaped(known));
    }
    if let Some(address) = peer.address {
        let at = if known.is_empty() { "" } else { "@" };
        let _ = write!(out, "{at}{address}");
    }
    match &peer.principal {
        Some(id) => {
            let _ = write!(out, " {id}");
        }
        None => out.push_str(" -"),
    }
}

/// A text from a stranger, made safe for a line of text: control characters, quotes and backslashes are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    write!(f, "{}", c.escape_unicode())?
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) struct Stamp(pub(crate) SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = time::OffsetDateTime::from(self.0);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, HttpEvent, PolicyRef, Reporter};
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    fn denied() -> Event {
        let source = Peer {
            namespace: "full".into(),
            pod: "sleep-1".into(),
            workload: "sleep".into(),
            principal: Some("spiffe://cluster.local/ns/full/sa/sleep".parse().unwrap()),
            ..Peer::default()
        };
        let mut event = Event::new(
            EventKind::Request,
            Reporter::Destination,
            UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            Arc::new(source),
            Arc::new(Peer {
                namespace: "full".into(),
                pod: "httpbin-1".into(),
                ..Peer::default()
            }),
        );
        event.http = Some(Box::new(HttpEvent {
            method: "GET".into(),
            authority: "httpbin".into(),
            path: "/a\nb\"".into(),
            path_normalized: Some("/a".into()),
            version: "HTTP/1.1",
            code: 403,
            ..HttpEvent::default()
        }));
        event.decision = Decision::Deny;
        event.reason = Some(model::Reason::DenyExplicit);
        event.policy = Some(PolicyRef {
            namespace: "full".into(),
            name: "no".into(),
            rule: Some(0),
        });
        event.protocol = "http";
        event.decision_id = Some("abc".into());
        event
    }

    #[test]
    fn a_caller_cannot_forge_a_line() {
        let line = line(&denied(), Format::Text);
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains(r#""/a\u{a}b\"""#), "{line}");
        assert!(
            line.contains("DENIED DENY_EXPLICIT by full/no[0] decision abc"),
            "{line}"
        );
    }

    #[test]
    fn json_has_the_stable_keys() {
        let value: serde_json::Value = serde_json::from_str(&line(&denied(), Format::Json)).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(
            value["source"]["principal"],
            "spiffe://cluster.local/ns/full/sa/sleep"
        );
        assert_eq!(value["code"], 403);
        assert_eq!(value["path"], "/a\nb\"");
        assert_eq!(value["pathNormalized"], "/a");
        assert_eq!(value["decision"], "deny");
        assert_eq!(value["decisionId"], "abc");
        assert_eq!(value["reason"], "DENY_EXPLICIT");
        assert_eq!(value["policy"]["rule"], 0);
        assert_eq!(value["durationMs"], 0.0);
    }
}
