//! `proxies` and `metrics`: what each node's proxy says of itself.

use std::collections::BTreeMap;

use admin::verbs::{Page, PageText, Proxy};
use serde_json::Value;

use crate::args::{Metrics, Proxies, Wide};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::{clean_lines, count, time};

pub(crate) async fn proxies(mesh: &Mesh, asked: &Proxies, out: &mut Out) -> Done {
    let mut code = 0;
    let mut found: Vec<Proxy> = Vec::new();
    for node in mesh.nodes(asked.node.as_deref()).await? {
        match ask(mesh, &node, "proxy").await {
            Ok(proxy) => found.push(proxy),
            Err(stop) => code = missed(stop, out)?,
        }
    }
    match asked.output {
        Some(Wide::Json) => out.json(&found)?,
        format => {
            out.table(&table(&found), "no proxy answers")?;
            if format == Some(Wide::Wide) {
                for more in [certificates(&found), drops(&found), workloads(&found)] {
                    if !more.is_empty() {
                        out.print(&format!("\n{}", more.render(out.colour)))?;
                    }
                }
            }
        }
    }
    Ok(code)
}

pub(crate) async fn metrics(mesh: &Mesh, asked: &Metrics, out: &mut Out) -> Done {
    let mut code = 0;
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for node in parts(mesh, asked.node.as_deref()).await? {
        let told = match node.as_str() {
            CONTROL => own(mesh).await,
            CA => page(mesh, CA).await,
            node => ask(mesh, node, "metrics").await,
        };
        match told {
            Ok(text) if asked.output.is_some() => drop(texts.insert(node, text)),
            Ok(text) => {
                let text: String = text;
                out.print(&clean_lines(&text))?;
            }
            Err(stop) => code = missed(stop, out)?,
        }
    }
    if asked.output.is_some() {
        out.json(&texts)?;
    }
    Ok(code)
}

/// The control plane and the certificate authority, where a node might be named.
const CONTROL: &str = "control";
const CA: &str = "ca";

/// Whose metrics are meant: the part that is named, or the proxies of all nodes, the control plane and the authority.
async fn parts(mesh: &Mesh, named: Option<&str>) -> Result<Vec<String>, Stop> {
    match named {
        Some(part @ (CONTROL | CA)) => Ok(vec![part.to_owned()]),
        Some(node) => mesh.nodes(Some(node)).await,
        None => {
            let mut all = mesh.nodes(None).await?;
            all.extend([CONTROL, CA].map(str::to_owned));
            Ok(all)
        }
    }
}

async fn own(mesh: &Mesh) -> Result<String, Stop> {
    last(mesh.control("metrics", &()).await?).await
}

async fn page(mesh: &Mesh, part: &str) -> Result<String, Stop> {
    let page = Page {
        part: part.to_owned(),
        path: "/metrics".to_owned(),
    };
    let told: PageText = last(mesh.up("page", &page, Vec::new()).await?).await?;
    Ok(told.text)
}

async fn ask<T: serde::de::DeserializeOwned>(mesh: &Mesh, node: &str, verb: &str) -> Result<T, Stop> {
    last(mesh.proxy(node, verb, &()).await?).await
}

/// A proxy that does not answer does not hide the others.
fn missed(stop: Stop, out: &mut Out) -> Done {
    match stop {
        Stop::Failed(failure) => {
            out.error(&failure.message);
            Ok(2)
        }
        gone @ Stop::Gone => Err(gone),
    }
}

fn table(proxies: &[Proxy]) -> Table {
    let mut table = Table::new([
        "NODE",
        "VERSION",
        "CONTROL",
        "CERTIFICATES",
        "WORKLOADS",
        "CONNECTIONS",
        "DROPS",
    ]);
    for proxy in proxies {
        let control = match proxy.control_silent_s {
            None => Cell::new("connected", Mood::Good),
            Some(silent) => Cell::new(format!("silent for {silent}s"), Mood::Bad),
        };
        let all = proxy.certificates.len();
        let ready = proxy
            .certificates
            .iter()
            .filter(|one| one.get("ready") == Some(&Value::Bool(true)))
            .count();
        let mood = if ready == all { Mood::Good } else { Mood::Bad };
        table.row(vec![
            proxy.node.as_str().into(),
            proxy.version.to_string().into(),
            control,
            Cell::new(format!("{ready}/{all}"), mood),
            proxy.workloads.len().to_string().into(),
            proxy.connections.to_string().into(),
            proxy
                .drops
                .values()
                .copied()
                .fold(0, u64::saturating_add)
                .to_string()
                .into(),
        ]);
    }
    table
}

fn certificates(proxies: &[Proxy]) -> Table {
    let mut table = Table::new(["NODE", "IDENTITY", "SERIAL", "NOT AFTER", "STATE"]);
    for proxy in proxies {
        for one in &proxy.certificates {
            let text = |field: &str| one.get(field).and_then(Value::as_str).unwrap_or_default();
            let until = ["not_after", "notAfter"]
                .iter()
                .find_map(|field| one.get(*field)?.as_i64());
            let state = match (text("error"), one.get("ready")) {
                ("", Some(Value::Bool(true))) => Cell::new("valid", Mood::Good),
                ("", _) => Cell::new("none yet", Mood::Bad),
                (error, _) => Cell::new(error, Mood::Bad),
            };
            table.row(vec![
                proxy.node.as_str().into(),
                text("id").into(),
                text("serial").into(),
                until.map(time).unwrap_or_default().into(),
                state,
            ]);
        }
    }
    table
}

fn drops(proxies: &[Proxy]) -> Table {
    let mut table = Table::new(["NODE", "DROPPED", "REASON"]);
    for proxy in proxies {
        for (reason, packets) in &proxy.drops {
            let packets = usize::try_from(*packets).unwrap_or(usize::MAX);
            table.row(vec![
                proxy.node.as_str().into(),
                count(packets, "packet", "packets").into(),
                reason.into(),
            ]);
        }
    }
    table
}

fn workloads(proxies: &[Proxy]) -> Table {
    let mut table = Table::new(["NODE", "MARK", "WORKLOAD"]);
    for proxy in proxies {
        for (mark, workload) in &proxy.workloads {
            table.row(vec![
                proxy.node.as_str().into(),
                format!("{mark:#x}").into(),
                workload.into(),
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
    fn each_proxy_has_a_line_and_wide_says_the_rest() {
        let proxy = Proxy {
            node: "node-0".to_owned(),
            version: 7,
            control_silent_s: Some(3),
            certificates: vec![
                json!({"id": "spiffe://cluster.local/ns/full/sa/sleep", "ready": true, "serial": "0a", "not_after": 1_767_225_600, "error": null}),
                json!({"id": "spiffe://cluster.local/ns/full/sa/x", "ready": false, "serial": null, "not_after": null, "error": "no token"}),
            ],
            connections: 2,
            drops: BTreeMap::from([("ICMP".to_owned(), 5)]),
            workloads: BTreeMap::from([(0x101, "full/sleep-0".to_owned())]),
        };
        let all = [proxy];
        assert_eq!(
            table(&all).render(false),
            "NODE    VERSION  CONTROL        CERTIFICATES  WORKLOADS  CONNECTIONS  DROPS\n\
             node-0  7        silent for 3s  1/2           1          2            5\n"
        );
        assert_eq!(
            certificates(&all).render(false),
            "NODE    IDENTITY                                 SERIAL  NOT AFTER             STATE\n\
             node-0  spiffe://cluster.local/ns/full/sa/sleep  0a      2026-01-01T00:00:00Z  valid\n\
             node-0  spiffe://cluster.local/ns/full/sa/x      -       -                     no token\n"
        );
        assert_eq!(
            drops(&all).render(false),
            "NODE    DROPPED    REASON\nnode-0  5 packets  ICMP\n"
        );
        assert_eq!(
            workloads(&all).render(false),
            "NODE    MARK   WORKLOAD\nnode-0  0x101  full/sleep-0\n"
        );
    }
}
