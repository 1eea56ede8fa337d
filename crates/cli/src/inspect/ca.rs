//! `ca status` and `ca rotate`: how the roots of the mesh stand, and a new one.

use std::time::{Duration, Instant};

use admin::Failure;
use admin::trust::{CaStatus, Holder, RootState};
use clap::{Args, Subcommand};

use crate::args::{Json, wait};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::{clean, count, time};

/// How often it is asked how far a rotation is.
const POLL: Duration = Duration::from_millis(500);
/// Characters of a fingerprint that a table shows.
const SHORT: usize = 16;

/// What is asked of the certificate authority.
#[derive(Clone, Subcommand, Debug)]
pub(crate) enum Ca {
    /// Say which roots there are, who trusts them, and what a rotation waits for
    Status {
        /// The form of what is printed
        #[arg(short, long, value_enum, value_name = "FORMAT")]
        output: Option<Json>,
    },
    /// Replace the root: a new one is trusted everywhere before it signs, and the old one until nobody needs it
    Rotate(Rotate),
}

/// `ca rotate`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Rotate {
    /// Wait until the old root is withdrawn, and say what is waited for
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    wait: Option<u64>,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Json>,
}

pub(crate) async fn ca(mesh: &Mesh, asked: &Ca, out: &mut Out) -> Done {
    match asked {
        Ca::Status { output } => {
            let status = ask(mesh, "status").await?;
            print(&status, *output, out)?;
            Ok(0)
        }
        Ca::Rotate(asked) => rotate(mesh, asked, out).await,
    }
}

async fn ask(mesh: &Mesh, verb: &str) -> Result<CaStatus, Stop> {
    last(mesh.ca(verb).await?).await
}

async fn rotate(mesh: &Mesh, asked: &Rotate, out: &mut Out) -> Done {
    let mut status = ask(mesh, "rotate").await?;
    let since = Instant::now();
    let limit = asked.wait.map(Duration::from_millis);
    let mut told = String::new();
    while let Some(limit) = limit
        && status.stage != "steady"
    {
        let waiting = format!("{}: {}", status.stage, status.waiting_for.join("; "));
        if waiting != told && !status.waiting_for.is_empty() {
            out.note(&waiting);
            told = waiting;
        }
        if since.elapsed() >= limit {
            print(&status, asked.output, out)?;
            let message = format!("the rotation is not over after {}s; it goes on", limit.as_secs());
            return Err(Failure::undecided(message).into());
        }
        tokio::time::sleep(POLL).await;
        // The authority may be starting again: that ends no rotation.
        match ask(mesh, "status").await {
            Ok(newer) => status = newer,
            Err(Stop::Failed(failure)) => told = failure.message,
            Err(gone @ Stop::Gone) => return Err(gone),
        }
    }
    print(&status, asked.output, out)?;
    Ok(0)
}

fn print(status: &CaStatus, output: Option<Json>, out: &mut Out) -> Result<(), Stop> {
    match output {
        Some(Json::Json) => out.json(status),
        None => out.print(&render(status, out.colour)),
    }
}

fn render(status: &CaStatus, colour: bool) -> String {
    let mut text = format!("stage {} since {}\n", clean(&status.stage), time(status.since));
    if let Some(problem) = &status.problem {
        text += &format!("{}\n", Mood::Bad.paint(&clean(problem), colour));
    }
    for table in [
        roots(&status.roots, status.holders.len()),
        holders(status),
        waiting(status),
    ] {
        if !table.is_empty() {
            text.push('\n');
            text += &table.render(colour);
        }
    }
    text
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(SHORT).collect()
}

fn roots(roots: &[RootState], holders: usize) -> Table {
    let mut table = Table::new(["ROOT", "NOT AFTER", "SIGNS", "TRUSTED BY", "CERTIFICATES"]);
    for root in roots {
        let mood = if root.trusted_by == holders {
            Mood::Good
        } else {
            Mood::Warning
        };
        table.row(vec![
            short(&root.fingerprint).into(),
            time(root.not_after).into(),
            if root.signs { "yes" } else { "no" }.into(),
            Cell::new(format!("{}/{holders}", root.trusted_by), mood),
            root.certificates.to_string().into(),
        ]);
    }
    table
}

fn holders(status: &CaStatus) -> Table {
    let mut table = Table::new(["HOLDER", "TRUSTS", "CERTIFICATES", "STATE"]);
    for holder in &status.holders {
        let Holder {
            name,
            away,
            roots,
            certificates,
            valid,
        } = holder;
        let withdrawn = roots
            .iter()
            .filter(|own| status.roots.iter().all(|root| root.fingerprint != **own));
        let withdrawn = withdrawn.count();
        let missing = status
            .roots
            .iter()
            .filter(|root| !roots.contains(&root.fingerprint))
            .count();
        let state = match away {
            Some(why) => Cell::new(format!("does not answer: {why}"), Mood::Bad),
            None if missing > 0 => Cell::new(
                format!("lacks {}", count(missing, "root", "roots")),
                Mood::Warning,
            ),
            None if withdrawn > 0 => Cell::new("still trusts a root that is withdrawn", Mood::Warning),
            None if valid < certificates => Cell::new("has certificates that have ended", Mood::Bad),
            None => Cell::new("up to date", Mood::Good),
        };
        let roots: Vec<String> = roots.iter().map(|root| short(root)).collect();
        table.row(vec![
            name.as_str().into(),
            roots.join(",").into(),
            format!("{valid}/{certificates}").into(),
            state,
        ]);
    }
    table
}

fn waiting(status: &CaStatus) -> Table {
    let mut table = Table::bare();
    for what in &status.waiting_for {
        table.row(vec!["waiting:".into(), what.into()]);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A rotation in its second stage.
    pub(crate) fn renewing() -> CaStatus {
        let root = |digit: &str, signs, trusted_by, certificates| RootState {
            fingerprint: digit.repeat(64),
            not_after: 1_767_225_600,
            signs,
            trusted_by,
            certificates,
        };
        let holder = |name: &str, away: Option<&str>, roots: &[&str]| Holder {
            name: name.to_owned(),
            away: away.map(str::to_owned),
            roots: roots.iter().map(|digit| digit.repeat(64)).collect(),
            certificates: 2,
            valid: if name == "node-1" { 1 } else { 2 },
        };
        CaStatus {
            stage: "renewing".to_owned(),
            since: 1_767_225_000,
            roots: vec![root("b", true, 2, 3), root("a", false, 2, 1)],
            holders: vec![
                holder("control", Some("no answer within 2 s"), &[]),
                holder("node-0", None, &["b", "a"]),
                holder("node-1", None, &["b", "a"]),
                holder("node-2", None, &["a"]),
                holder("node-3", None, &["a", "b", "c"]),
            ],
            waiting_for: vec!["node-0 has 1 certificates of the old root".to_owned()],
            old_leaves_end: Some(1_767_228_600),
            problem: Some("root bundle `r`: No space left on device".to_owned()),
        }
    }

    #[test]
    fn a_rotation_says_who_has_what_and_what_it_waits_for() {
        let wanted = "stage renewing since 2025-12-31T23:50:00Z
root bundle `r`: No space left on device

ROOT              NOT AFTER             SIGNS  TRUSTED BY  CERTIFICATES
bbbbbbbbbbbbbbbb  2026-01-01T00:00:00Z  yes    2/5         3
aaaaaaaaaaaaaaaa  2026-01-01T00:00:00Z  no     2/5         1

HOLDER   TRUSTS                                              CERTIFICATES  STATE
control  -                                                   2/2           does not answer: no answer within 2 s
node-0   bbbbbbbbbbbbbbbb,aaaaaaaaaaaaaaaa                   2/2           up to date
node-1   bbbbbbbbbbbbbbbb,aaaaaaaaaaaaaaaa                   1/2           has certificates that have ended
node-2   aaaaaaaaaaaaaaaa                                    2/2           lacks 1 root
node-3   aaaaaaaaaaaaaaaa,bbbbbbbbbbbbbbbb,cccccccccccccccc  2/2           still trusts a root that is withdrawn

waiting:  node-0 has 1 certificates of the old root
";
        assert_eq!(render(&renewing(), false), wanted);
    }
}
