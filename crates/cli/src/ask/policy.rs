//! `explain policy`: what is in force for a workload, merged and in the order in which it is asked.

use std::fmt::Write as _;

use admin::Failure;
use analysis::Effective;

use super::args::Policy;
use super::{load, target};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out};
use crate::table::{Cell, Mood, Table};
use crate::text::clean;

pub(crate) async fn policy(mesh: &Mesh, asked: &Policy, out: &mut Out) -> Done {
    let target = target::within(&asked.namespace, &asked.workload, 0, true).map_err(Failure::usage)?;
    let found: Vec<Effective> = if asked.files.files.is_empty() {
        last(mesh.control("policy", &target).await?).await?
    } else {
        let mut world = load::world(&asked.files, out).await?;
        let undecided = |error: analysis::Unknown| Failure::undecided(error.to_string());
        world.prepare([&target].into_iter()).map_err(undecided)?;
        world
            .effective(&target)
            .map_err(|error| Failure::no(error.to_string()))?
    };
    match asked.output {
        Some(_) => out.json(&found)?,
        None => {
            let texts: Vec<String> = found.iter().map(|one| render(one, out.colour)).collect();
            if found.len() > 1 {
                out.note("the replicas differ; each kind of them follows");
            }
            out.print(&texts.join("\n"))?;
        }
    }
    Ok(0)
}

fn render(found: &Effective, colour: bool) -> String {
    let more = found.count.saturating_sub(found.pods.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let mut out = format!("{}{more}\n", clean(&found.pods.join(", ")));
    if !found.in_mesh {
        let _ = writeln!(out, "  outside the mesh: nothing that comes in is decided");
        return out;
    }
    out.push_str(&transport(found).render(colour));
    out.push_str(&policies(found).render(colour));
    let _ = writeln!(
        out,
        "  otherwise {}: {}",
        found.otherwise.decision, found.otherwise.why
    );
    out
}

/// Mutual TLS, and what each declared port speaks.
fn transport(found: &Effective) -> Table {
    let mut head = Table::bare();
    let by = match &found.mtls_decided_by {
        Some(name) => {
            let (kind, name) = match name.strip_prefix("Guardrail/") {
                Some(name) => ("Guardrail", name),
                None => ("PeerAuthentication", name.as_str()),
            };
            format!(" by {kind} {name}{}", place(&found.mtls_at))
        }
        None => " by default".to_owned(),
    };
    let mode = found.mtls.as_deref().unwrap_or_default();
    head.row(vec!["  mTLS".into(), format!("{mode}{by}").into()]);
    for port in &found.ports {
        let service = port
            .service
            .as_deref()
            .map(|s| format!(", {s}"))
            .unwrap_or_default();
        let protocol = serde_json::to_string(&port.protocol).unwrap_or_default();
        let said = format!(
            "{}: {}, {}{service}",
            port.port,
            port.mtls,
            protocol.trim_matches('"')
        );
        head.row(vec!["  port".into(), said.into()]);
    }
    head
}

/// Each rule on a line.
fn policies(found: &Effective) -> Table {
    let mut table = Table::bare();
    for policy in &found.policies {
        let name = format!("{}/{}", policy.namespace, policy.name);
        let provider = policy
            .provider
            .as_deref()
            .map(|p| format!(" asks {p}"))
            .unwrap_or_default();
        let dry = if policy.dry_run { " (dry run)" } else { "" };
        let action = format!("  {}{provider}{dry}", policy.action);
        if let Some(why) = &policy.invalid {
            let said = format!("denies everything: {why}{}", place(&policy.at));
            table.row(vec![
                action.into(),
                name.into(),
                "".into(),
                Cell::new(said, Mood::Bad),
            ]);
            continue;
        }
        if policy.rules.is_empty() {
            let said = format!("no rules: nothing matches{}", place(&policy.at));
            table.row(vec![action.into(), name.into(), "".into(), said.into()]);
            continue;
        }
        for rule in &policy.rules {
            let said = format!("{}{}", rule.matches, place(&rule.at));
            let number = format!("rule {}", rule.rule);
            table.row(vec![
                action.as_str().into(),
                name.as_str().into(),
                number.into(),
                said.into(),
            ]);
        }
    }
    table
}

fn place(at: &Option<String>) -> String {
    at.as_deref().map(|at| format!(" ({at})")).unwrap_or_default()
}
