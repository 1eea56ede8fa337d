//! `why`: a refusal, explained by the policies that were in force when it was decided.

use std::fmt::Write as _;

use admin::Failure;
use admin::verbs::{self, Refused, RefusedBy};
use serde_json::Value;

use super::args::Why;
use crate::mesh::{Mesh, items};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::clean;

pub(crate) async fn why(mesh: &Mesh, asked: &Why, out: &mut Out) -> Done {
    let what = || asked.what.clone();
    let body = verbs::Why {
        id: if asked.last { None } else { what() },
        namespace: asked.namespace.clone(),
        workload: if asked.last { what() } else { None },
    };
    let mut found: Vec<Refused> = Vec::new();
    let mut silent = 0;
    for node in mesh.nodes(None).await? {
        let answer = match mesh.proxy(&node, "why", &body).await {
            Ok(answer) => items(answer).await,
            Err(stop) => Err(stop),
        };
        match answer {
            Ok(refused) => found.extend::<Vec<Refused>>(refused),
            // A proxy that does not answer does not hide the others.
            Err(Stop::Failed(failure)) => {
                silent += 1;
                out.warn(&failure.message);
            }
            Err(gone @ Stop::Gone) => return Err(gone),
        }
    }
    found.sort_by(|a, b| a.time.cmp(&b.time));
    if asked.last {
        found = found.pop().into_iter().collect();
    }
    if found.is_empty() {
        let message = match &body.id {
            Some(id) => format!(
                "no proxy keeps a refusal `{id}`: it was not refused, or too many were refused since; `{}` has its line",
                mesh.command("logs --denied")
            ),
            None => "nothing was refused of late".to_owned(),
        };
        let failure = if silent > 0 {
            Failure::undecided(message)
        } else {
            Failure::no(message)
        };
        return Err(failure.into());
    }
    match asked.output {
        Some(_) => out.json(&found)?,
        None => {
            let texts: Vec<String> = found.iter().map(|one| render(one, out.colour)).collect();
            out.print(&texts.join("\n"))?;
        }
    }
    Ok(0)
}

fn render(refused: &Refused, colour: bool) -> String {
    let code = match refused.code {
        0 => String::new(),
        code => format!(" ({code})"),
    };
    let what = match &refused.request {
        Some(request) => format!("{} {} of ", request.method, request.received),
        None => "to connect to ".to_owned(),
    };
    let said = format!(
        "{} was refused {what}{}:{}",
        name(&refused.source),
        name(&refused.destination),
        refused.port
    );
    let mut out = format!("{}\n", clean(&said));
    let by = refused
        .policy
        .as_ref()
        .map(|by| format!(", {}", rule(by)))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "because: {}{code}{by}",
        Mood::Bad.paint(&clean(&refused.reason), colour)
    );
    if let Some(near) = &refused.near_miss {
        let _ = writeln!(out, "closest: {} would allow it, were it not for", rule(near));
        for failed in &near.failed {
            let _ = writeln!(out, "  - {}", clean(failed));
        }
    }
    let _ = write!(out, "\n{}", facts(refused).render(colour));
    out
}

fn facts(refused: &Refused) -> Table {
    let mut table = Table::bare();
    let mut row = |what: &str, said: String| table.row(vec![what.into(), Cell::from(said)]);
    row("when", refused.time.clone());
    row("decision", format!("{} on {}", refused.id, refused.node));
    let principal = text(&refused.source, "principal");
    let address = text(&refused.source, "address");
    row(
        "caller",
        match (principal, refused.wire.as_str()) {
            ("", _) => format!("{address}, plaintext: no identity"),
            (id, Some("local")) => format!("{id}, {address}, on the same node"),
            (id, _) => format!("{id}, {address}, mutual TLS"),
        },
    );
    if let Some(sni) = &refused.sni {
        row("sni", sni.clone());
    }
    if let Some(request) = &refused.request {
        row("host", request.authority.clone());
        match request.received == request.normalized {
            true => row("path", format!("{}, as it came", request.received)),
            false => row(
                "path",
                format!("{} becomes {}", request.received, request.normalized),
            ),
        }
        for (name, value) in &request.headers {
            row("header", format!("{name}: {value}"));
        }
    }
    for reading in refused.readings.iter().skip(1) {
        row("may be read as", reading.clone());
    }
    for step in &refused.steps {
        let at = step
            .at
            .as_deref()
            .map(|at| format!(" ({at})"))
            .unwrap_or_default();
        row(&step.stage, format!("{}{at}", step.said));
    }
    table
}

fn rule(by: &RefusedBy) -> String {
    let number = by.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
    let at = match (by.file.as_str(), by.line) {
        ("", _) => String::new(),
        (file, 0) => format!(" at {file}"),
        (file, line) => format!(" at {file}:{line}"),
    };
    let id = policy::PolicyId {
        namespace: by.namespace.clone(),
        name: by.name.clone(),
    };
    let (kind, name) = id.object();
    clean(&format!("{kind} {}/{name}{number}{at}", by.namespace)).into_owned()
}

fn text<'v>(peer: &'v Value, field: &str) -> &'v str {
    peer.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Who it is, as far as it is known.
fn name(peer: &Value) -> String {
    match (text(peer, "namespace"), text(peer, "pod")) {
        ("", _) | (_, "") => text(peer, "address").to_owned(),
        (namespace, pod) => format!("{namespace}/{pod}"),
    }
}
