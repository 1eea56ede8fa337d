//! `info`, `ports`, `version`.

use admin::verbs::{Info, Port};
use serde_json::json;

use crate::args::Plain;
use crate::mesh::Mesh;
use crate::out::{Done, Out};
use crate::table::{Cell, Table};

pub(crate) async fn info(mesh: &Mesh, asked: Plain, out: &mut Out) -> Done {
    let info = mesh.info().await?;
    match asked.output {
        Some(_) => out.json(&info)?,
        None => out.print(&render(&info).render(false))?,
    }
    Ok(0)
}

pub(crate) async fn ports(mesh: &Mesh, asked: Plain, out: &mut Out) -> Done {
    let info = mesh.info().await?;
    match asked.output {
        Some(_) => out.json(&info.ports)?,
        None => out.table(&port_table(&info.ports), "nothing listens")?,
    }
    Ok(0)
}

pub(crate) fn version(asked: Plain, out: &mut Out) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    match asked.output {
        Some(_) => out.json(&json!({ "version": version }))?,
        None => out.print(&format!("meshward {version}\n"))?,
    }
    Ok(0)
}

fn render(info: &Info) -> Table {
    let mut table = Table::bare();
    let mut row = |what: &str, said: String| table.row(vec![what.into(), Cell::from(said)]);
    row("mesh", info.name.clone());
    row("profile", info.profile.clone());
    row("ready", if info.ready { "yes" } else { "no" }.to_owned());
    for waiting in &info.waiting_for {
        row("waiting for", waiting.clone());
    }
    row("nodes", info.nodes.join(", "));
    for source in &info.sources {
        row("source", source.display().to_string());
    }
    for (part, pid) in &info.processes {
        row("process", format!("{part} {pid}"));
    }
    table
}

fn port_table(ports: &[Port]) -> Table {
    let mut table = Table::new([
        "PART",
        "ADDRESS",
        "TRANSPORT",
        "PURPOSE",
        "REACHED BY",
        "AUTHENTICATION",
    ]);
    for port in ports {
        table.row(vec![
            port.part.as_str().into(),
            port.address.to_string().into(),
            port.transport.as_str().into(),
            port.purpose.as_str().into(),
            port.reach.as_str().into(),
            port.authentication.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_runs_and_what_it_listens_on() {
        let info = Info {
            name: "default".to_owned(),
            profile: "secure".to_owned(),
            nodes: vec!["node-0".to_owned(), "node-1".to_owned()],
            processes: BTreeMap::from([("ca".to_owned(), 7)]),
            ready: false,
            waiting_for: vec!["full/sleep-0".to_owned()],
            sources: vec!["samples/httpbin".into()],
            ports: vec![Port {
                part: "ca".to_owned(),
                netns: "mw-default-hub".to_owned(),
                transport: "tcp".to_owned(),
                address: "10.78.0.1:15012".parse().unwrap(),
                purpose: "certificates".to_owned(),
                reach: "nodes".to_owned(),
                authentication: "service account token".to_owned(),
            }],
        };
        assert_eq!(
            render(&info).render(false),
            "mesh         default\nprofile      secure\nready        no\nwaiting for  full/sleep-0\nnodes        node-0, node-1\nsource       samples/httpbin\nprocess      ca 7\n"
        );
        assert_eq!(
            port_table(&info.ports).render(false),
            "PART  ADDRESS          TRANSPORT  PURPOSE       REACHED BY  AUTHENTICATION\nca    10.78.0.1:15012  tcp        certificates  nodes       service account token\n"
        );
    }
}
