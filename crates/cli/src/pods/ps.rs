//! `ps`: the pods, and what is in force for them.

use admin::verbs::{OutcomeKind, PodRow, Status};

use crate::args::{Ps, Wide};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::{clean, count};

pub(crate) async fn ps(mesh: &Mesh, asked: &Ps, out: &mut Out) -> Done {
    let mut rows: Vec<PodRow> = last(mesh.up("ps", &(), Vec::new()).await?).await?;
    if let Some(namespace) = &asked.namespace {
        rows.retain(|row| row.namespace == *namespace);
    }
    if asked.json || asked.output == Some(Wide::Json) {
        out.json(&rows)?;
        return Ok(0);
    }
    let none = match &asked.namespace {
        Some(namespace) => format!("no pods in namespace `{namespace}`"),
        None => "no pods".to_owned(),
    };
    out.table(&table(&rows, asked.output == Some(Wide::Wide)), &none)?;
    let messages = messages(&rows);
    out.print(&messages)?;
    // The pods are there whether or not the control plane is.
    match status(mesh).await {
        Ok(status) => out.print(&summary(&status, &rows, &mesh.command("status")))?,
        Err(Stop::Gone) => return Err(Stop::Gone),
        Err(Stop::Failed(failure)) => out.warn(&failure.message),
    }
    Ok(0)
}

async fn status(mesh: &Mesh) -> Result<Status, Stop> {
    last(mesh.control("status", &()).await?).await
}

fn table(rows: &[PodRow], wide: bool) -> Table {
    let mut heads = vec![
        "NAMESPACE",
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "NODE",
        "IP",
        "IP6",
        "MTLS",
        "POLICIES",
        "IDENTITY",
    ];
    if wide {
        heads.extend(["WORKLOAD", "SERVICEACCOUNT", "NETNS"]);
    }
    let mut table = Table::new(heads);
    for row in rows {
        let ready = match (row.ready, row.phase.as_str()) {
            (true, _) => Cell::new("yes", Mood::Good),
            (false, "Succeeded") => "no".into(),
            (false, _) => Cell::new("no", Mood::Warning),
        };
        let phase = match row.phase.as_str() {
            "Failed" | "CrashLoopBackOff" => Mood::Bad,
            _ => Mood::Plain,
        };
        let policies = row.policies.as_deref().unwrap_or_default();
        let policies_mood = if policies.contains("invalid") {
            Mood::Bad
        } else {
            Mood::Plain
        };
        let address = |address: Option<std::net::IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let mut cells = vec![
            row.namespace.as_str().into(),
            row.name.as_str().into(),
            ready,
            Cell::new(&row.phase, phase),
            row.restarts.to_string().into(),
            row.node.as_str().into(),
            address(row.ip).into(),
            address(row.ip6).into(),
            mtls(row),
            Cell::new(policies, policies_mood),
            row.identity.as_deref().unwrap_or_default().into(),
        ];
        if wide {
            let more = [&row.workload, &row.service_account, &row.netns];
            cells.extend(more.map(Cell::from));
        }
        table.row(cells);
    }
    table
}

fn mtls(row: &PodRow) -> Cell {
    match &row.mtls {
        _ if !row.in_mesh => Cell::new("not in the mesh", Mood::Warning),
        Some(mode) if mode == "STRICT" => Cell::new(mode, Mood::Good),
        Some(mode) => Cell::new(mode, Mood::Warning),
        None => "".into(),
    }
}

/// Why pods do not run, where they do not.
fn messages(rows: &[PodRow]) -> String {
    rows.iter()
        .filter(|row| !row.message.is_empty())
        .map(|row| {
            let name = format!("{}/{}", row.namespace, row.name);
            format!("{}: {}\n", clean(&name), clean(&row.message))
        })
        .collect()
}

/// The profile in force, and under it how the mesh stands, a line each.
fn summary(status: &Status, rows: &[PodRow], more: &str) -> String {
    let defaults: Vec<String> = status.defaults.iter().take(5).map(|text| short(text)).collect();
    let profile = format!("profile {}: {}", status.profile, defaults.join(", "));
    let ready = rows.iter().filter(|row| row.ready).count();
    let connected = status.nodes.iter().filter(|node| node.connected).count();
    let nodes = count(status.nodes.len(), "node", "nodes");
    let mut parts = vec![
        format!("{ready} of {} ready", count(rows.len(), "pod", "pods")),
        format!("{connected} of {nodes} connected"),
    ];
    let objects = |result| {
        status
            .objects
            .iter()
            .filter(|object| object.result == result)
            .count()
    };
    let errors = status
        .problems
        .iter()
        .filter(|problem| problem.severity == "error")
        .count();
    let findings = [
        (objects(OutcomeKind::Rejected), "rejected"),
        (objects(OutcomeKind::NotInForce), "not in force"),
    ];
    for (n, what) in findings {
        if n > 0 {
            parts.push(format!("{} {what}", count(n, "object", "objects")));
        }
    }
    if errors > 0 {
        parts.push(count(errors, "error", "errors"));
    }
    let hint = if parts.len() > 2 {
        format!(": see `{more}`")
    } else {
        String::new()
    };
    format!("\n{}\n{}{hint}\n", clean(&profile), clean(&parts.join(", ")))
}

/// The first words of a default, which name it.
fn short(default: &str) -> String {
    let named = default.split_once(": ").map_or(default, |(name, _)| name);
    named
        .trim_end_matches(" where no PeerAuthentication says otherwise")
        .to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use admin::verbs::{NodeState, ObjectState};

    use super::*;

    pub(crate) fn row(namespace: &str, name: &str) -> PodRow {
        let in_mesh = namespace == "full";
        PodRow {
            namespace: namespace.to_owned(),
            name: format!("{name}-0"),
            workload: name.to_owned(),
            service_account: name.to_owned(),
            ip: Some("10.77.0.2".parse().unwrap()),
            ip6: Some("fd77::2".parse().unwrap()),
            identity: in_mesh.then(|| format!("spiffe://cluster.local/ns/full/sa/{name}")),
            in_mesh,
            mtls: in_mesh.then(|| "STRICT".to_owned()),
            ready: true,
            netns: format!("/run/netns/mw-default-{name}"),
            policies: in_mesh.then(|| "1 policy".to_owned()),
            node: "node-0".to_owned(),
            phase: "Running".to_owned(),
            restarts: 0,
            message: String::new(),
        }
    }

    pub(crate) fn status() -> Status {
        Status {
            profile: "secure".to_owned(),
            defaults: [
                "mTLS STRICT where no PeerAuthentication says otherwise",
                "deny until an ALLOW allows",
                "REGISTRY_ONLY: unknown destinations are refused",
                "paths NONE",
                "ambiguous paths are refused",
                "TLS 1.3",
            ]
            .map(str::to_owned)
            .to_vec(),
            nodes: vec![NodeState {
                node: "node-0".to_owned(),
                connected: true,
                published: 7,
                acknowledged: 7,
                refused: None,
            }],
            objects: Vec::new(),
            problems: Vec::new(),
            not_acted_on: Vec::new(),
            revocation_lists: Vec::new(),
        }
    }

    pub(crate) fn state(name: &str, result: OutcomeKind, why: &[&str]) -> ObjectState {
        ObjectState {
            kind: "AuthorizationPolicy".to_owned(),
            namespace: "full".to_owned(),
            name: name.to_owned(),
            result,
            why: why.iter().map(|why| (*why).to_owned()).collect(),
            nodes: 2,
            acknowledged: 2,
            targets: vec!["full/httpbin-0".to_owned()],
            shadowed_by: Vec::new(),
            origin: "policies.yaml:3:1".to_owned(),
        }
    }

    #[test]
    fn pods_are_shown_with_what_is_in_force_for_them() {
        let mut broken = row("legacy", "sleep");
        (broken.ready, broken.phase) = (false, "CrashLoopBackOff".to_owned());
        broken.message = "the program ended\nwith \u{1b}[31m1".to_owned();
        let rows = [row("full", "httpbin"), broken];
        let wanted = "NAMESPACE  NAME       READY  STATUS            RESTARTS  NODE    IP         IP6      MTLS             POLICIES  IDENTITY\n\
                      full       httpbin-0  yes    Running           0         node-0  10.77.0.2  fd77::2  STRICT           1 policy  spiffe://cluster.local/ns/full/sa/httpbin\n\
                      legacy     sleep-0    no     CrashLoopBackOff  0         node-0  10.77.0.2  fd77::2  not in the mesh  -         -\n";
        assert_eq!(table(&rows, false).render(false), wanted);
        assert_eq!(
            messages(&rows),
            "legacy/sleep-0: the program ended\\nwith \\u{1b}[31m1\n"
        );
        assert!(
            table(&rows, true)
                .render(false)
                .contains("/run/netns/mw-default-sleep")
        );
    }

    #[test]
    fn the_profile_and_the_state_have_a_line_each() {
        let rows = [row("full", "httpbin")];
        let quiet = summary(&status(), &rows, "meshward status");
        assert_eq!(
            quiet,
            "\nprofile secure: mTLS STRICT, deny until an ALLOW allows, REGISTRY_ONLY, paths NONE, ambiguous paths are refused\n\
             1 of 1 pod ready, 1 of 1 node connected\n"
        );
        let mut status = status();
        status.objects.push(state("a", OutcomeKind::Rejected, &[]));
        let loud = summary(&status, &rows, "meshward status");
        assert!(
            loud.ends_with("1 of 1 node connected, 1 object rejected: see `meshward status`\n"),
            "{loud}"
        );
    }
}
