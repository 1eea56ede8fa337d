//! `meshward down`: asks the mesh to end; where it cannot be asked, ends it.

use std::time::{Duration, Instant};

use admin::RunDir;
use rustix::process::Signal;
use serde_json::Value;

use super::{Holder, Lock, LockError, clear, finish};
use crate::show::line;

/// How long a mesh may take to say the next step of its end.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(10);

/// Ends one mesh, or all.
pub(crate) fn down(down: &cli::Down) -> u8 {
    let names = if down.all { all() } else { vec![down.name.clone()] };
    let mut code = 0;
    for name in names {
        if let Err((why, failed)) = one(&name) {
            line(&format!("error: {why}"));
            code = code.max(failed);
        }
    }
    code
}

fn all() -> Vec<String> {
    let entries = std::fs::read_dir(admin::base()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| RunDir::of(name).is_ok())
        .collect();
    names.sort();
    names
}

fn one(name: &str) -> Result<(), (String, u8)> {
    let run = RunDir::of(name).map_err(|error| (error.to_string(), 64))?;
    let there = run.root().exists() || super::namespaces(name).is_ok_and(|names| !names.is_empty());
    if !there {
        line(&format!("there is no mesh `{name}`"));
        return Ok(());
    }
    line(&format!("asking mesh `{name}` to end"));
    let asked = ask(&run);
    let mut lock = match wait(&run, if asked { PATIENCE } else { Duration::ZERO }) {
        Ok(lock) => lock,
        Err(LockError::Io(error)) => return Err((format!("cannot clear mesh `{name}`: {error}"), 2)),
        Err(LockError::Held(holder)) => end(&run, holder).map_err(|why| (why, 2))?,
    };
    clear(name, &run, &mut lock, |step| line(&step)).map_err(|why| (why, 2))?;
    finish(&run, lock);
    line(&format!("mesh `{name}` is down"));
    Ok(())
}

/// Whether the mesh said that it has ended.
fn ask(run: &RunDir) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    runtime.block_on(async {
        let socket = run.up_socket();
        let calling = admin::call(&socket, "down", Value::Null, Vec::new());
        let Ok(Ok(mut answer)) = tokio::time::timeout(PATIENCE, calling).await else {
            return false;
        };
        loop {
            match tokio::time::timeout(PATIENCE, answer.item()).await {
                Ok(Some(step)) => line(step.as_str().unwrap_or_default()),
                Ok(None) => return answer.finish().await.is_ok(),
                Err(_) => return false,
            }
        }
    })
}

fn wait(run: &RunDir, limit: Duration) -> Result<Lock, LockError> {
    let until = Instant::now() + limit;
    loop {
        match Lock::take(run) {
            Err(LockError::Held(_)) if Instant::now() < until => std::thread::sleep(POLL),
            other => return other,
        }
    }
}

/// Ends the process that has the lock and does not answer.
fn end(run: &RunDir, holder: Option<Holder>) -> Result<Lock, String> {
    let holder = holder.ok_or("a process that cannot be told has the mesh, and does not answer")?;
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::KILL, "SIGKILL")] {
        line(&format!(
            "process {} has the mesh and does not answer: {name}",
            holder.pid
        ));
        holder.signal(signal);
        if let Ok(lock) = wait(run, PATIENCE) {
            return Ok(lock);
        }
    }
    Err(format!("process {} does not end", holder.pid))
}
