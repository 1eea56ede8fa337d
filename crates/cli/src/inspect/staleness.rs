//! What `status` says besides the control plane's words: how old what the proxies go by may be. They are asked themselves,
//! so that it is known also while the control plane is away.

use std::time::Duration;

use admin::verbs::Proxy;
use serde_json::Value;
use tokio::time::timeout;

use crate::mesh::{Mesh, last};
use crate::table::{Cell, Mood, Table};
use crate::text::time;

/// How long a proxy may take to answer; one that does not is left out here, and `proxies` says so.
const ANSWER: Duration = Duration::from_secs(2);

/// The proxies that answer.
pub(crate) async fn ask(mesh: &Mesh) -> Vec<Proxy> {
    let nodes = timeout(ANSWER, mesh.nodes(None)).await;
    let mut found = Vec::new();
    for node in nodes.ok().and_then(Result::ok).unwrap_or_default() {
        let asking = async { last(mesh.proxy(&node, "proxy", &()).await?).await };
        found.extend(timeout(ANSWER, asking).await.ok().and_then(Result::ok));
    }
    found
}

/// A line for each proxy that has not heard of the control plane, or for all.
pub(crate) fn links(proxies: &[Proxy], all: bool) -> Table {
    let mut table = Table::new(["NODE", "VERSION", "CONTROL PLANE"]);
    for proxy in proxies {
        let state = match proxy.control_silent_s {
            Some(silent) => Cell::new(
                format!("not heard of for {silent}s: what was last said is in force"),
                Mood::Bad,
            ),
            None if all => Cell::new("connected", Mood::Good),
            None => continue,
        };
        table.row(vec![
            proxy.node.as_str().into(),
            proxy.version.to_string().into(),
            state,
        ]);
    }
    table
}

/// A line for each certificate that is not there, has ended, or cannot be renewed.
pub(crate) fn certificates(proxies: &[Proxy]) -> Table {
    let mut table = Table::new(["NODE", "IDENTITY", "CERTIFICATE"]);
    for proxy in proxies {
        for one in &proxy.certificates {
            let ready = one.get("ready") == Some(&Value::Bool(true));
            let error = one.get("error").and_then(Value::as_str);
            if ready && error.is_none() {
                continue;
            }
            let end = one.get("notAfter").and_then(Value::as_i64).map(time);
            let state = match (ready, end) {
                (true, Some(end)) => format!("not renewed, ends {end}"),
                (_, Some(end)) => format!("ended {end}, not used"),
                (_, None) => "none".to_owned(),
            };
            let state = match error {
                Some(error) => format!("{state}: {error}"),
                None => state,
            };
            let mood = if ready { Mood::Warning } else { Mood::Bad };
            table.row(vec![
                proxy.node.as_str().into(),
                one.get("id").and_then(Value::as_str).unwrap_or_default().into(),
                Cell::new(state, mood),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_old_or_failing_is_said() {
        let id = |account: &str| format!("spiffe://cluster.local/ns/full/sa/{account}");
        let certificate = |account: &str, ready: bool, end: Option<i64>, error: Option<&str>| json!({"id": id(account), "ready": ready, "serial": "0a", "notAfter": end, "error": error});
        let good = Proxy {
            node: "node-0".to_owned(),
            version: 7,
            certificates: vec![certificate("a", true, Some(1_767_225_600), None)],
            ..Proxy::default()
        };
        let bad = Proxy {
            node: "node-1".to_owned(),
            version: 6,
            control_silent_s: Some(75),
            certificates: vec![
                certificate("a", true, Some(1_767_225_600), Some("out of reach")),
                certificate("b", false, Some(1_767_225_600), Some("out of reach")),
                certificate("c", false, None, Some("no token")),
            ],
            ..Proxy::default()
        };
        let all = [good, bad];
        assert!(links(&all[..1], false).is_empty() && certificates(&all[..1]).is_empty());
        assert_eq!(
            links(&all, false).render(false),
            "NODE    VERSION  CONTROL PLANE\n\
             node-1  6        not heard of for 75s: what was last said is in force\n"
        );
        assert_eq!(links(&all, true).render(false).lines().count(), 3);
        assert_eq!(
            certificates(&all).render(false),
            "NODE    IDENTITY                             CERTIFICATE\n\
             node-1  spiffe://cluster.local/ns/full/sa/a  not renewed, ends 2026-01-01T00:00:00Z: out of reach\n\
             node-1  spiffe://cluster.local/ns/full/sa/b  ended 2026-01-01T00:00:00Z, not used: out of reach\n\
             node-1  spiffe://cluster.local/ns/full/sa/c  none: no token\n"
        );
    }
}
