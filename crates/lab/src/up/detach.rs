//! `--detach`: the mesh in the background, and a process in front that waits until all is ready.

use std::process::Stdio;
use std::time::Duration;

use admin::RunDir;
use admin::verbs::Info;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{BACKGROUND, own_words};
use crate::show::{self, line};

/// How often it is looked whether all is ready.
const POLL: Duration = Duration::from_millis(20);

/// Starts the mesh in the background and waits for it, at most as long as the user says. Returns the exit code.
pub(super) fn start(up: &cli::Up, run: &RunDir) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(waiting(up, run)),
        Err(error) => {
            line(&format!("error: no runtime: {error}"));
            2
        }
    }
}

async fn waiting(up: &cli::Up, run: &RunDir) -> u8 {
    let mut child = match spawn(up) {
        Ok(child) => child,
        Err(error) => {
            line(&format!("error: cannot start in the background: {error}"));
            return 2;
        }
    };
    let stderr = child.stderr.take();
    let telling = tokio::spawn(async move {
        let Some(stderr) = stderr else { return };
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            line(&text);
        }
    });
    let until = Instant::now() + Duration::from_millis(up.wait_ms);
    let mut missing = vec!["the mesh: it has not begun to answer".to_owned()];
    loop {
        match info(run, child.id()).await {
            Some(info) if info.ready => break,
            Some(info) => missing = info.waiting_for,
            None => {}
        }
        tokio::select! {
            ended = child.wait() => {
                let _ = telling.await;
                let code = ended.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
                return code.unwrap_or(2);
            }
            () = tokio::time::sleep_until(until.min(Instant::now() + POLL)) => {}
        }
        if Instant::now() >= until {
            let limit = Duration::from_millis(up.wait_ms).as_secs_f64();
            line(&format!(
                "error: not ready after {limit:.1}s: {}",
                show::list(&missing)
            ));
            return 2;
        }
    }
    cli::ps(&up.name, up.json).await
}

fn spawn(up: &cli::Up) -> std::io::Result<Child> {
    let reads = up.sources.iter().any(|source| source.as_os_str() == "-");
    Command::new(std::env::current_exe()?)
        .args(own_words())
        .env(BACKGROUND, "1")
        .stdin(if reads { Stdio::inherit() } else { Stdio::null() })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// What the mesh says of itself, where it is the one that was started and not an earlier one.
async fn info(run: &RunDir, pid: Option<u32>) -> Option<Info> {
    let asking = async {
        let answer = admin::call(&run.up_socket(), "info", Value::Null, Vec::new())
            .await
            .ok()?;
        serde_json::from_value::<Info>(answer.finish().await.ok()?).ok()
    };
    let info = tokio::time::timeout(Duration::from_secs(1), asking)
        .await
        .ok()
        .flatten()?;
    (info.processes.get("up").copied() == pid).then_some(info)
}
