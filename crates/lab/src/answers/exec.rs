//! `exec`: a command in a container, with the caller's own descriptors.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use admin::verbs::{Exec, Exited};
use admin::{Call, Failure};
use capture::process::{Confinement, confine};

use crate::pod::{Live, Pod};
use crate::process::{self, Process, StartError};

/// Runs the command that the caller names; it ends when the caller hangs up.
pub(super) async fn answer(pod: &Pod, wanted: &Exec, call: &mut Call) -> Result<Exited, Failure> {
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(std::mem::take(&mut call.fds)) else {
        return Err(Failure::usage(
            "`exec` wants three descriptors: standard input, output and error",
        ));
    };
    if wanted.command.is_empty() {
        return Err(Failure::usage("no command is named"));
    }
    let live = find(pod, wanted.container.as_deref())?;
    let mut complaints = stderr.try_clone().map(std::fs::File::from).ok();
    let stdio = [stdin, stdout, stderr];
    let mut process = match run(&live, &wanted.command, &wanted.env, stdio, wanted.tty).await {
        Ok(process) => process,
        Err(error @ StartError::Program { .. }) => {
            // As a shell would: the command has failed, not the request.
            if let Some(stderr) = &mut complaints {
                let _ = writeln!(stderr, "error: {error}");
            }
            return Ok(Exited { code: error.code() });
        }
        Err(error) => return Err(Failure::undecided(error.to_string())),
    };
    drop(complaints);
    let code = tokio::select! {
        code = process.ended() => code,
        () = call.items.closed() => {
            process.kill();
            process.ended().await
        }
    };
    Ok(Exited { code })
}

fn find(pod: &Pod, container: Option<&str>) -> Result<Live, Failure> {
    if let Some(live) = pod.container(container) {
        return Ok(live);
    }
    let names = pod.container_names();
    match container.filter(|name| !names.contains(name)) {
        Some(name) => Err(Failure::no(format!(
            "pod `{}` has no container `{name}`; it has `{}`",
            pod.shown(),
            names.join("`, `")
        ))),
        None => {
            let why = pod.state.borrow().why();
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            Err(Failure::no(format!(
                "no process of pod `{}` runs{why}",
                pod.shown()
            )))
        }
    }
}

/// Runs a command whose output nobody wants to see: its exit code, `None` where it did not start or end in time.
pub(crate) async fn quiet(pod: &Pod, container: &str, argv: &[String], limit: Duration) -> Option<i32> {
    let live = pod.container(Some(container))?;
    let null = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map(OwnedFd::from)
            .ok()
    };
    let stdio = [null()?, null()?, null()?];
    let mut process = run(&live, argv, &BTreeMap::new(), stdio, false).await.ok()?;
    let ended = tokio::time::timeout(limit, process.ended()).await;
    if ended.is_err() {
        process.kill();
    }
    ended.ok()
}

async fn run(
    live: &Live,
    argv: &[String],
    more: &BTreeMap<String, String>,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    terminal: bool,
) -> Result<Process, StartError> {
    let (inside, launch) = (
        std::sync::Arc::clone(&live.inside),
        std::sync::Arc::clone(&live.launch),
    );
    let mut env = launch.env.clone();
    env.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    let argv = argv.to_vec();
    let prepare = move || {
        process::enter(&inside)?;
        let mut command = process::command(&argv, &env)?;
        command.current_dir(&launch.dir);
        command
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let how = Confinement {
            terminal,
            own_proc: false,
            rights: Some(launch.rights),
        };
        confine(&mut command, how);
        Ok((command, process::nothing))
    };
    let (process, ()) = process::start(prepare).await?;
    Ok(process)
}
