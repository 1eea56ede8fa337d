//! A mesh of its own under a steady load, while everything about it changes: leaves, roots, control plane, proxies, endpoints,
//! policies, services. Nothing may fail but what was open at a proxy that is killed.
//!
//! The load is that of two clients on two nodes, and the servers count what they get ([`workloads`](../workloads)): each
//! answer says how many there were before it, so that what came twice, or was not answered, shows.

#![warn(missing_docs)]

mod mesh;
mod news;
mod phase;
mod plot;
mod report;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::Mesh;
use news::News;
use phase::Phase;
use report::Report;

/// The shortest time of a phase: what is done in one has to come to its end there.
const SHORTEST: Duration = Duration::from_secs(4);
/// How long the load goes on before the first phase.
const WARM: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How long all phases take together, milliseconds; at least 4 s each.
    pub for_ms: u64,
    /// Requests of each kind and client a second.
    pub rate: u32,
    /// Services that come at once, with ten endpoints each.
    pub services: usize,
    /// Whether the outcome is printed as JSON.
    pub json: bool,
    /// Where a plot goes, as SVG.
    pub plot: Option<PathBuf>,
}

/// Runs it all. Returns the exit code: 0 where nothing failed that must not, 1 where something did, 2 where it could not be run.
pub fn run(asked: &Asked) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    match runtime.block_on(soak(asked)) {
        Ok(report) => finish(asked, &report),
        Err(why) => fail(&why),
    }
}

fn finish(asked: &Asked, report: &Report) -> u8 {
    let text = if asked.json { report.json() } else { report.table() };
    print(&text);
    if let Some(path) = &asked.plot
        && let Err(error) = std::fs::write(path, plot::svg(report))
    {
        return fail(&format!("cannot write `{}`: {error}", path.display()));
    }
    u8::from(!report.is_good())
}

async fn soak(asked: &Asked) -> Result<Report, String> {
    let mesh = Mesh::start(asked.json).await?;
    let done = tokio::select! {
        done = phases(asked, &mesh) => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    mesh.down().await;
    done
}

async fn phases(asked: &Asked, mesh: &Mesh) -> Result<Report, String> {
    let phases = phase::all();
    let count = u32::try_from(phases.len()).unwrap_or(u32::MAX);
    let each = (Duration::from_millis(asked.for_ms) / count).max(SHORTEST);
    let news = News::default();
    let load = mesh.load(asked.rate, &news).await?;
    tokio::time::sleep(WARM).await;
    let mut passed = Vec::new();
    for phase in phases {
        if !asked.json {
            tell(&format!("{} ...", phase.name));
        }
        passed.push(passing(mesh, &phase, each, asked.services).await);
    }
    load.end().await?;
    Ok(Report::new(passed, news.taken()))
}

/// One phase that has passed.
#[derive(Clone, Debug)]
struct Passed {
    name: &'static str,
    /// Milliseconds of Unix time.
    begin: u64,
    end: u64,
    /// Until when something may fail; 0 where nothing may.
    excused: u64,
    /// What was done, and what could not be.
    did: Vec<String>,
    could_not: Vec<String>,
    /// The largest resident memory of a proxy at its end, KiB.
    rss: u64,
}

async fn passing(mesh: &Mesh, phase: &Phase, lasts: Duration, services: usize) -> Passed {
    let begin = unix_ms();
    let until = tokio::time::Instant::now() + lasts;
    let mut passed = Passed {
        name: phase.name,
        begin,
        end: 0,
        excused: 0,
        did: Vec::new(),
        could_not: Vec::new(),
        rss: 0,
    };
    for outcome in phase.pass(mesh, until, services).await {
        passed.excused = passed.excused.max(outcome.excused);
        passed.did.extend(outcome.did);
        passed.could_not.extend(outcome.could_not);
    }
    tokio::time::sleep_until(until).await;
    passed.rss = mesh.largest_proxy().await;
    passed.end = unix_ms();
    passed
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// Whoever does not read any more still wants the exit code.
fn print(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
}

fn tell(text: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
}

fn fail(why: &str) -> u8 {
    tell(&format!("error: {why}"));
    2
}
