//! What the command line may ask a proxy, over its Unix socket.

use std::sync::Arc;

use admin::verbs::{Access, AccessLine, Proxy};
use admin::{Call, Failure};
use serde_json::{Value, json};
use telemetry::{Event, Peer, Telemetry};
use tokio::sync::broadcast::error::RecvError;

use crate::shared::Shared;

/// Answers `access`, `proxy` and `metrics`.
pub(crate) struct Admin(pub(crate) Arc<Shared>);

impl admin::Handler for Admin {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "access" => {
                let wanted = call.parse()?;
                access(&self.0.telemetry, &wanted, call).await
            }
            "proxy" => serde_json::to_value(state(&self.0)).map_err(|e| Failure::undecided(e.to_string())),
            "metrics" => Ok(json!(self.0.telemetry.metrics_text())),
            other => Err(Failure::usage(format!("a proxy knows no verb `{other}`"))),
        }
    }
}

async fn access(telemetry: &Telemetry, wanted: &Access, mut call: Call) -> Result<Value, Failure> {
    let mut subscription = telemetry.subscribe();
    for event in subscription.backlog.iter().filter(|e| fits(wanted, e)) {
        if call.items.send(&line(event)).await.is_err() {
            return Ok(Value::Null);
        }
    }
    while wanted.follow {
        let event = tokio::select! {
            event = subscription.live.recv() => event,
            () = call.items.closed() => break,
        };
        match event {
            Ok(event) if fits(wanted, &event) => {
                if call.items.send(&line(&event)).await.is_err() {
                    break;
                }
            }
            Ok(_) => {}
            // A reader that is too slow is told what it missed, in its own stream.
            Err(RecvError::Lagged(missed)) => {
                let told = AccessLine {
                    text: format!("({missed} lines were missed: the reader is too slow)"),
                    event: json!({ "missed": missed }),
                };
                if call.items.send(&told).await.is_err() {
                    break;
                }
            }
            Err(RecvError::Closed) => break,
        }
    }
    Ok(Value::Null)
}

fn line(event: &Event) -> AccessLine {
    AccessLine {
        text: telemetry::text(event),
        event: serde_json::to_value(event).unwrap_or_default(),
    }
}

fn fits(wanted: &Access, event: &Event) -> bool {
    let is = |peer: &Peer| {
        let namespace = wanted.namespace.as_deref();
        let workload = wanted.workload.as_deref();
        namespace.is_none_or(|n| n == &*peer.namespace)
            && workload.is_none_or(|w| w == &*peer.workload || w == &*peer.pod)
    };
    (!wanted.denied || event.denied()) && (is(&event.source) || is(&event.destination))
}

fn state(shared: &Shared) -> Proxy {
    let certificates = shared.identities.status();
    let workloads = shared.locals.all().into_iter();
    Proxy {
        node: shared.config.node.clone(),
        version: *shared.store.version().borrow(),
        control_silent_s: None,
        certificates: certificates
            .iter()
            .map(|c| serde_json::to_value(c).unwrap_or_default())
            .collect(),
        connections: shared.registry.len(),
        drops: shared.drops(),
        workloads: workloads
            .map(|(mark, r)| (mark, format!("{}/{}", r.namespace, r.pod)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use telemetry::{Decision, EventKind, Reporter};

    use super::*;

    #[test]
    fn lines_are_chosen_by_either_end_and_by_what_was_decided() {
        let peer = |namespace: &str, workload: &str| {
            Arc::new(Peer {
                namespace: namespace.into(),
                workload: workload.into(),
                ..Peer::default()
            })
        };
        let mut event = Event::new(
            EventKind::Connection,
            Reporter::Destination,
            SystemTime::now(),
            peer("a", "client"),
            peer("b", "server"),
        );
        event.decision = Decision::Deny;
        let wanted = |namespace: &str, workload: &str, denied| Access {
            namespace: Some(namespace.to_owned()).filter(|n| !n.is_empty()),
            workload: Some(workload.to_owned()).filter(|w| !w.is_empty()),
            denied,
            follow: false,
        };
        for (fit, expect) in [
            (wanted("", "", true), true),
            (wanted("a", "", false), true),
            (wanted("b", "server", false), true),
            (wanted("a", "server", false), false),
            (wanted("c", "", false), false),
        ] {
            assert_eq!(fits(&fit, &event), expect, "{fit:?}");
        }
        event.decision = Decision::Allow;
        assert!(!fits(&wanted("", "", true), &event));
    }
}
