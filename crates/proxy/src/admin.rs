//! What the command line may ask a proxy, over its Unix socket.

use std::os::fd::AsFd;
use std::sync::Arc;

use admin::trust::{Holding, Leaf};
use admin::verbs::{Access, AccessLine, Proxy};
use admin::{Call, Failure, Handler};
use identity::CertificateStatus;
use serde_json::Value;
use telemetry::{Event, Peer};
use tokio::sync::broadcast::error::RecvError;

use crate::inbound::Denials;
use crate::shared::{Shared, Stage, Standing, staleness};

/// Answers until the socket fails.
pub(crate) async fn serve(shared: Arc<Shared>, standing: Arc<Standing>) -> Result<(), String> {
    let path = shared.config.socket.clone();
    let desk = Arc::new(Desk { shared, standing });
    let served = if desk.shared.config.take_over {
        admin::serve_instead(&path, desk).await
    } else {
        admin::serve(&path, desk).await
    };
    served.map_err(|error| format!("cannot answer at `{}`: {error}", path.display()))
}

struct Desk {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
}

impl Handler for Desk {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "access" => {
                let wanted = call.parse()?;
                self.access(&wanted, call).await
            }
            "why" => {
                let wanted = call.parse()?;
                let node = &self.shared.config.node;
                let mut found = self.shared.denials.explain(&wanted, node);
                if found.is_empty() {
                    let log = self.shared.telemetry.subscribe().backlog;
                    found = Denials::of_log(log.iter().rev(), &wanted, node);
                }
                for refused in found {
                    if call.items.send(&refused).await.is_err() {
                        break;
                    }
                }
                Ok(Value::Null)
            }
            "proxy" => value(&self.proxy()?),
            "sockets" => {
                let (labels, sockets) = self.shared.sockets.copies().map_err(broken)?;
                let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                call.items.send_with(&labels, &sockets).await.map_err(broken)?;
                Ok(Value::Null)
            }
            "names" => value(&self.shared.demand.interest().names()),
            "leave" => {
                self.shared.sockets.release();
                self.shared.ending.advance(Stage::HandedOver);
                Ok(Value::Null)
            }
            "trust" => value(&self.holding()),
            "metrics" => Ok(Value::String(staleness::metrics(&self.shared))),
            other => Err(Failure::usage(format!("a proxy has no verb `{other}`"))),
        }
    }
}

impl Desk {
    async fn access(&self, wanted: &Access, mut call: Call) -> Result<Value, Failure> {
        let mut events = self.shared.telemetry.subscribe();
        for event in &events.backlog {
            if matches(wanted, event) && send(&mut call, event).await?.is_gone() {
                return Ok(Value::Null);
            }
        }
        if !wanted.follow {
            return Ok(Value::Null);
        }
        loop {
            let next = tokio::select! {
                next = events.live.recv() => next,
                () = call.items.closed() => return Ok(Value::Null),
            };
            let event = match next {
                Ok(event) if matches(wanted, &event) => event,
                Ok(_) => continue,
                Err(RecvError::Closed) => return Ok(Value::Null),
                Err(RecvError::Lagged(missed)) => {
                    return Err(Failure::undecided(format!(
                        "{missed} events were missed: the reader is too slow"
                    )));
                }
            };
            if send(&mut call, &event).await?.is_gone() {
                return Ok(Value::Null);
            }
        }
    }

    /// What we believe and show.
    fn holding(&self) -> Holding {
        let identities = &self.shared.identities;
        let leaf = |one: CertificateStatus| {
            Some(Leaf {
                id: one.id.to_string(),
                root: one.root,
                not_after: one.not_after?,
            })
        };
        Holding {
            roots: identities.roots(),
            leaves: identities.status().into_iter().filter_map(leaf).collect(),
        }
    }

    fn proxy(&self) -> Result<Proxy, Failure> {
        let shared = &self.shared;
        let certificates = shared.identities.status();
        let drops = self.standing.drops();
        let workloads = shared.locals.all();
        Ok(Proxy {
            node: shared.config.node.clone(),
            version: *shared.store.version().borrow(),
            control_silent_s: self.standing.control_silent().map(|silent| silent.as_secs()),
            certificates: certificates.iter().map(value).collect::<Result<_, _>>()?,
            connections: shared.registry.len(),
            drops: drops.into_iter().map(|(why, n)| (why.to_owned(), n)).collect(),
            workloads: workloads
                .iter()
                .map(|w| (w.mark, format!("{}/{}", w.namespace, w.pod)))
                .collect(),
        })
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::undecided(error.to_string())
}

/// Whether the reader is still there.
enum Sent {
    Taken,
    Gone,
}

impl Sent {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }
}

async fn send(call: &mut Call, event: &Event) -> Result<Sent, Failure> {
    let line = AccessLine {
        text: telemetry::text(event),
        event: value(event)?,
    };
    Ok(match call.items.send(&line).await {
        Ok(()) => Sent::Taken,
        Err(_) => Sent::Gone,
    })
}

fn value(of: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(of).map_err(|error| Failure::undecided(error.to_string()))
}

fn matches(wanted: &Access, event: &Event) -> bool {
    // Namespace and workload are of one end: `full` and `web` mean `full/web`, and not `full/a` calling `other/web`.
    let is = |peer: &Peer| {
        let namespace = wanted.namespace.as_deref();
        let workload = wanted.workload.as_deref();
        namespace.is_none_or(|n| *n == *peer.namespace)
            && workload.is_none_or(|w| *w == *peer.pod || *w == *peer.workload)
    };
    (!wanted.denied || event.denied()) && (is(&event.source) || is(&event.destination))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use telemetry::{Decision, EventKind, Reporter};

    use super::*;

    fn peer(namespace: &str, pod: &str, workload: &str) -> Arc<Peer> {
        Arc::new(Peer {
            namespace: namespace.into(),
            pod: pod.into(),
            workload: workload.into(),
            ..Peer::default()
        })
    }

    #[test]
    fn what_is_asked_for() {
        let mut event = Event::new(
            EventKind::Request,
            Reporter::Source,
            SystemTime::UNIX_EPOCH,
            peer("full", "sleep-1", "sleep"),
            peer("legacy", "web-1", "web"),
        );
        let check = |event: &Event, denied: bool, namespace: Option<&str>, workload: Option<&str>| {
            let wanted = Access {
                follow: false,
                denied,
                namespace: namespace.map(str::to_owned),
                workload: workload.map(str::to_owned),
            };
            matches(&wanted, event)
        };
        assert!(check(&event, false, None, None));
        assert!(check(&event, false, Some("legacy"), None));
        assert!(check(&event, false, None, Some("sleep-1")));
        assert!(check(&event, false, Some("legacy"), Some("web")));
        assert!(!check(&event, false, Some("full"), Some("web")));
        assert!(!check(&event, false, Some("other"), None));
        assert!(!check(&event, true, None, None));
        event.decision = Decision::Deny;
        assert!(check(&event, true, None, None));
    }
}
