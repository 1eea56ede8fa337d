//! The command line: words, tables, JSON. What starts a mesh or a part of one is handed back to the program.

#![warn(missing_docs)]

mod args;
mod ask;
mod files;
mod inspect;
mod lint;
mod mesh;
mod objects;
mod out;
mod pods;
mod table;
mod text;
mod yaml;

use std::path::PathBuf;
use std::pin::Pin;

use model::Profile;

use crate::args::Asked;
use crate::ask::args::What;
use crate::mesh::Mesh;
use crate::out::Out;

/// The most nodes that `up --nodes` takes: as many as the network plan has room for.
pub const MAX_NODES: u8 = 64;

/// What the program is to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Start a mesh on this machine.
    Up(Up),
    /// End one, or clear the remains of one.
    Down(Down),
    /// Soak a mesh of its own.
    Soak(Soak),
    /// Replay the survey against a mesh of its own.
    Survey(Survey),
    /// Be a part of a mesh, by its configuration file.
    Part(Part, PathBuf),
    /// Be a built-in workload program.
    Workload(String, Vec<String>),
    /// Ask a running mesh, or work offline; [`run`] does it all.
    Ask(Ask),
}

/// A part of a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The certificate authority.
    Ca,
    /// The control plane.
    Control,
    /// A node's proxy.
    Proxy,
    /// A proxy from files alone.
    Standalone,
}

/// `meshward up`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Up {
    /// The mesh's name.
    pub name: String,
    /// Files, directories, or `-`.
    pub sources: Vec<PathBuf>,
    /// `-R`.
    pub recursive: bool,
    /// `--nodes`, 2 by default, 1 to `capture::plan::MAX_NODES`.
    pub nodes: u8,
    /// `--profile`.
    pub profile: Profile,
    /// `--detach`.
    pub detach: bool,
    /// `--wait`, milliseconds, 60 s by default: how long until all must be ready.
    pub wait_ms: u64,
    /// `--local-tls`.
    pub local_tls: bool,
    /// `--log-format`: whether the access log is JSON (else text).
    pub json_log: bool,
    /// `--image NAME=COMMAND`, in order.
    pub images: Vec<(String, String)>,
    /// `-o json`: the table at the end as JSON.
    pub json: bool,
    /// `--leaf-lifetime`, seconds; 0 leaves it to the CA (an hour).
    pub leaf_lifetime_s: u64,
    /// `--jwks-allow`: networks that keys of token issuers are fetched from although they would be refused.
    pub jwks_allow: Vec<model::Cidr>,
    /// `--dns-upstream`: servers that are asked about names outside the cluster.
    pub dns_upstreams: Vec<std::net::SocketAddr>,
    /// `--metrics-allow`: networks that may read metrics and health.
    pub metrics_allow: Vec<model::Cidr>,
    /// `--cacerts`: the directory of a CA that signs instead of one that is made (Istio's secret `cacerts`).
    pub cacerts: Option<PathBuf>,
    /// `--quiet`: no progress lines.
    pub quiet: bool,
}

/// `meshward down`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Down {
    /// The mesh's name.
    pub name: String,
    /// `--all`: every mesh of this user.
    pub all: bool,
}

/// `meshward lab soak`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Soak {
    /// `--for`, milliseconds, 3 min by default.
    pub for_ms: u64,
    /// `--rate`, 10 by default.
    pub rate: u32,
    /// `--services`, 1000 by default.
    pub services: u32,
    /// `--plot`.
    pub plot: Option<PathBuf>,
    /// `-o json`.
    pub json: bool,
}

/// `meshward lab survey`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// `--profile`.
    pub profile: Profile,
    /// `-o json`.
    pub json: bool,
    /// `--only`: only attempts whose id contains it; all where empty.
    pub only: String,
}

/// Everything else.
#[derive(Clone, Debug)]
pub struct Ask {
    name: String,
    colour: args::Colour,
    asked: Asked,
}

/// Reads the words. Prints help, the version or what is wrong with them itself.
///
/// # Errors
/// The exit code: 0 after help, 64 for words that are not understood.
pub fn parse(words: Vec<std::ffi::OsString>) -> Result<Command, u8> {
    args::parse(words).map_err(|error| {
        // A reader that is gone needs no help.
        let _ = error.print();
        if error.use_stderr() { out::USAGE } else { 0 }
    })
}

/// Does what was asked; returns the exit code.
///
/// The future is boxed so that the code of all that it does is made with this crate, and not once more with the caller.
pub fn run(ask: Ask) -> Pin<Box<dyn Future<Output = u8>>> {
    Box::pin(answered(ask))
}

async fn answered(ask: Ask) -> u8 {
    let mut out = Out::standard(ask.colour);
    let done = tokio::select! {
        done = answer(ask, &mut out) => done,
        code = interrupted() => Ok(code),
    };
    out.finish(done)
}

/// Prints the table of `ps` for the mesh, as `meshward up` does when all is ready. Returns the exit code.
pub async fn ps(mesh: &str, json: bool) -> u8 {
    let mut out = Out::standard(args::Colour::Auto);
    let asked = args::Ps {
        json,
        ..args::Ps::default()
    };
    let done = match Mesh::named(mesh) {
        Ok(mesh) => pods::ps::ps(&mesh, &asked, &mut out).await,
        Err(stop) => Err(stop),
    };
    out.finish(done)
}

async fn answer(ask: Ask, out: &mut Out) -> out::Done {
    asked(&Mesh::named(&ask.name)?, &ask.asked, out).await
}

async fn asked(mesh: &Mesh, asked: &Asked, out: &mut Out) -> out::Done {
    match asked {
        Asked::Ps(asked) => pods::ps::ps(mesh, asked, out).await,
        Asked::Exec(asked) => pods::exec::exec(mesh, asked, out).await,
        Asked::Logs(asked) => pods::logs::logs(mesh, asked, out).await,
        Asked::Apply(asked) => objects::change::apply(mesh, asked, out).await,
        Asked::Delete(asked) => objects::change::delete(mesh, asked, out).await,
        Asked::Get(asked) => objects::get::get(mesh, asked, out).await,
        Asked::Status(asked) => inspect::status::status(mesh, asked, out).await,
        Asked::Info(asked) => inspect::info::info(mesh, *asked, out).await,
        Asked::Ports(asked) => inspect::info::ports(mesh, *asked, out).await,
        Asked::Proxies(asked) => inspect::proxies::proxies(mesh, asked, out).await,
        Asked::Restart(asked) => inspect::restart::restart(mesh, asked, out).await,
        Asked::Metrics(asked) => inspect::proxies::metrics(mesh, asked, out).await,
        Asked::Top(asked) => inspect::top::top(mesh, asked, out).await,
        Asked::Dump(asked) => inspect::dump::dump(mesh, asked, out).await,
        Asked::CanI(asked) => ask::can_i::can_i(mesh, asked, out).await,
        Asked::Why(asked) => ask::why::why(mesh, asked, out).await,
        Asked::Explain(asked) => match &asked.what {
            What::Path(asked) => ask::path::path(asked, out),
            What::Policy(asked) => ask::policy::policy(mesh, asked, out).await,
        },
        Asked::Eval(asked) => ask::eval::eval(asked, out).await,
        Asked::Lint(asked) => lint::lint(asked, out).await,
        Asked::Ca(asked) => inspect::ca::ca(mesh, asked, out).await,
        Asked::Version(asked) => inspect::info::version(*asked, out),
    }
}

/// Returns the exit code that goes with the first signal that ends us.
async fn interrupted() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)) = signals else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => out::INTERRUPTED,
        _ = terminate.recv() => 128 + 15,
        _ = hang_up.recv() => 128 + 1,
    }
}

#[cfg(test)]
mod tests;
