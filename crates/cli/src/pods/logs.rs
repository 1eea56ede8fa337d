//! `logs`: what a pod printed, and the access log of all nodes.

use admin::verbs::{self, Access, AccessLine};
use admin::{Answer, Failure};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};

use super::merge::{Merge, Stamped};
use crate::args::Logs;
use crate::mesh::{Mesh, decode, items};
use crate::out::{Done, Out, Stop};
use crate::text::{clean, clean_line};

/// How long a line waits for earlier ones of other nodes.
const WINDOW: Duration = Duration::from_millis(50);
/// How long it is silent after the lines that there are already.
const SILENCE: Duration = Duration::from_millis(100);
/// How long the lines that there are already may take to come; then what came is printed.
const BACKLOG: Duration = Duration::from_secs(2);
/// How many lines wait for earlier ones; then they are printed whatever else may come.
const MAX_WAITING: usize = 100_000;
/// How many lines wait to be printed; a proxy whose lines are not taken waits in turn.
const QUEUE: usize = 1024;

pub(crate) async fn logs(mesh: &Mesh, asked: &Logs, out: &mut Out) -> Done {
    match &asked.target {
        Some(target) if !asked.access && !asked.denied => printed(mesh, asked, target, out).await,
        _ => access(mesh, asked, out).await,
    }
}

/// What a pod printed.
async fn printed(mesh: &Mesh, asked: &Logs, target: &str, out: &mut Out) -> Done {
    let body = verbs::Logs {
        namespace: asked.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        target: target.to_owned(),
        container: asked.container.clone(),
        follow: asked.follow,
        tail: asked.tail,
    };
    let mut answer = mesh.up("logs", &body, Vec::new()).await?;
    if asked.output.is_some() && !asked.follow {
        let lines: Vec<String> = items(answer).await?;
        out.json(&lines)?;
        return Ok(0);
    }
    while let Some(item) = answer.item().await {
        let line: String = decode(item)?;
        match asked.output {
            Some(_) => out.json_line(&line)?,
            None => out.print(&format!("{}\n", clean_line(line.trim_end_matches(['\r', '\n']))))?,
        }
    }
    answer.finish().await?;
    Ok(0)
}

/// The access log.
async fn access(mesh: &Mesh, asked: &Logs, out: &mut Out) -> Done {
    let body = Access {
        follow: asked.follow,
        denied: asked.denied,
        namespace: asked.namespace.clone(),
        workload: asked.target.as_deref().map(unqualified),
    };
    let nodes = mesh.nodes(None).await?;
    let (send, lines) = mpsc::channel(QUEUE);
    let mut open = 0;
    for node in &nodes {
        // A node whose proxy is gone does not hide what the others have to say.
        match mesh.proxy(node, "access", &body).await {
            Ok(answer) => {
                open += 1;
                tokio::spawn(pump(node.clone(), answer, send.clone()));
            }
            Err(Stop::Failed(failure)) => out.warn(&failure.message),
            Err(Stop::Gone) => return Err(Stop::Gone),
        }
    }
    drop(send);
    let missing = open < nodes.len();
    let merged = if asked.follow {
        follow(lines, asked, out).await?
    } else {
        whole(lines, asked, out).await?
    };
    Ok(if missing || merged == Ended::Early { 2 } else { 0 })
}

/// Whether every node said all that it had to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Well,
    Early,
}

/// `deploy/NAME` is the workload NAME.
fn unqualified(target: &str) -> String {
    target.rsplit('/').next().unwrap_or(target).to_owned()
}

/// A line, or why there are no more.
type Line = Result<AccessLine, Stop>;

/// Passes lines on until there are no more, or nobody wants them; then the proxy sees us hang up.
async fn pump(node: String, mut answer: Answer, send: mpsc::Sender<Line>) {
    loop {
        let item = tokio::select! {
            item = answer.item() => item,
            () = send.closed() => return,
        };
        let Some(item) = item else { break };
        let line = decode(item);
        let broken = line.is_err();
        if send.send(line).await.is_err() || broken {
            return;
        }
    }
    if let Err(failure) = answer.finish().await {
        let failure = Failure::new(failure.exit, format!("node {node}: {}", failure.message));
        let _ = send.send(Err(failure.into())).await;
    }
}

fn stamped(line: AccessLine) -> Stamped<AccessLine> {
    let time = line.event.get("time").and_then(Value::as_str).unwrap_or_default();
    Stamped {
        time: time.to_owned(),
        line,
    }
}

async fn whole(mut lines: mpsc::Receiver<Line>, asked: &Logs, out: &mut Out) -> Result<Ended, Stop> {
    let mut merge = Merge::new(asked.tail);
    let mut ended = Ended::Well;
    while let Some(line) = lines.recv().await {
        match line {
            Ok(line) => merge.push(stamped(line)),
            Err(Stop::Failed(failure)) => {
                out.error(&failure.message);
                ended = Ended::Early;
            }
            Err(stop) => return Err(stop),
        }
    }
    let sorted = merge.take();
    if asked.output.is_some() {
        let events: Vec<Value> = sorted.into_iter().map(|line| line.event).collect();
        out.json(&events)?;
    } else {
        print(sorted, false, out)?;
    }
    Ok(ended)
}

/// First what there is already, then each line after a short wait for earlier ones of other nodes.
async fn follow(mut lines: mpsc::Receiver<Line>, asked: &Logs, out: &mut Out) -> Result<Ended, Stop> {
    let json = asked.output.is_some();
    let mut merge = Merge::new(asked.tail);
    let mut ended = Ended::Well;
    // The backlog comes in one burst: it is complete when nothing more has come for a while.
    let backlog_until = Instant::now() + BACKLOG;
    let mut backlog = true;
    let mut flush_at = Some(Instant::now() + SILENCE);
    loop {
        let next = tokio::select! {
            next = lines.recv() => next,
            () = sleep_until(flush_at.unwrap_or(backlog_until)), if flush_at.is_some() => {
                print(merge.take(), json, out)?;
                (flush_at, backlog) = (None, false);
                continue;
            }
        };
        match next {
            Some(Ok(line)) => {
                merge.push(stamped(line));
                let now = Instant::now();
                flush_at = Some(match flush_at {
                    _ if merge.len() >= MAX_WAITING => now,
                    _ if backlog => (now + SILENCE).min(backlog_until),
                    Some(at) => at,
                    None => now + WINDOW,
                });
            }
            Some(Err(Stop::Failed(failure))) => {
                out.error(&failure.message);
                ended = Ended::Early;
            }
            Some(Err(stop)) => return Err(stop),
            None => {
                print(merge.take(), json, out)?;
                return Ok(ended);
            }
        }
    }
}

fn print(lines: Vec<AccessLine>, json: bool, out: &mut Out) -> Result<(), Stop> {
    let mut text = String::new();
    for line in lines {
        if json {
            text.push_str(&crate::text::json_line(&line.event)?);
        } else {
            text.push_str(&clean(&line.text));
        }
        text.push('\n');
    }
    if text.is_empty() { Ok(()) } else { out.print(&text) }
}
