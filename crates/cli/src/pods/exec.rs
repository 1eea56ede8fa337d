//! `exec`: a command in a pod, with our own standard input, output and error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};

use admin::Failure;
use admin::verbs::{self, Exited};
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::{Line, Raw};
use crate::args::Exec;
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};

pub(crate) async fn exec(mesh: &Mesh, asked: &Exec, out: &mut Out) -> Done {
    let terminal = asked.tty && io::stdin().is_terminal();
    if asked.tty && !terminal {
        out.warn("standard input is no terminal, so the command gets none");
    }
    let body = |tty: bool| verbs::Exec {
        namespace: asked.namespace.clone(),
        target: asked.target.clone(),
        container: asked.container.clone(),
        command: asked.command.clone(),
        tty,
        env: if tty { variables() } else { BTreeMap::new() },
    };
    let exited = if terminal {
        let (input, output) = (copy(io::stdin())?, copy(io::stdout())?);
        in_terminal(mesh, &body(true), input, output).await?
    } else {
        let passed_on = asked.stdin || asked.tty;
        let input = if passed_on { copy(io::stdin())? } else { nothing()? };
        let fds = vec![input, copy(io::stdout())?, copy(io::stderr())?];
        let answer = mesh.up("exec", &body(false), fds).await?;
        // Dropping the answer hangs up, which ends the command: so does every signal that ends us.
        last(answer).await?
    };
    Ok(code(exited))
}

/// Runs the command on a terminal of its own, relayed to the one at hand.
pub(crate) async fn in_terminal(
    mesh: &Mesh,
    body: &verbs::Exec,
    input: OwnedFd,
    output: OwnedFd,
) -> Result<Exited, Stop> {
    let failed =
        |error: io::Error| Stop::from(Failure::undecided(format!("cannot open a terminal: {error}")));
    let (line, far) = Line::open(input.as_fd()).map_err(failed)?;
    let copies = (far.try_clone(), far.try_clone());
    let fds = vec![copies.0.map_err(failed)?, copies.1.map_err(failed)?, far];
    let answer = mesh.up("exec", body, fds).await?;
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    // From here on every way out, the dropping of this future included, gives the terminal back as it was.
    let raw = Raw::enter(input.try_clone().map_err(failed)?).map_err(failed)?;
    let relay = line
        .relay(input.try_clone().map_err(failed)?, output)
        .map_err(failed)?;
    let mut ended = std::pin::pin!(last(answer));
    let exited = loop {
        tokio::select! {
            exited = &mut ended => break exited,
            _ = resized.recv() => line.resize(input.as_fd()),
        }
    };
    let carried = relay.finish().await;
    drop(raw);
    carried.map_err(failed)?;
    exited
}

fn code(exited: Exited) -> u8 {
    u8::try_from(exited.code).unwrap_or(255)
}

fn variables() -> BTreeMap<String, String> {
    let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
    BTreeMap::from([("TERM".to_owned(), term)])
}

fn copy(of: impl std::os::fd::AsFd) -> Result<OwnedFd, Stop> {
    Ok(of.as_fd().try_clone_to_owned()?)
}

fn nothing() -> Result<OwnedFd, Stop> {
    Ok(std::fs::File::open("/dev/null")?.into())
}
