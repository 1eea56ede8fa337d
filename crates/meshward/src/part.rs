//! A part of a mesh as a process of its own.

use std::future::Future;
use std::path::Path;
use std::thread::available_parallelism;

use cli::Part;
use proxy::standalone;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The variable that says what of a part's own log is kept, as in `info,proxy=debug`.
const LOG_VARIABLE: &str = "MESHWARD_LOG";

/// Exit code: it could not be done.
const FAILED: u8 = 2;
/// Exit code: the configuration is broken.
const BROKEN: u8 = 65;

/// The most threads that carry traffic, whatever the machine has: a node's proxy leaves room for its workloads.
const MAX_THREADS: usize = 2;

/// Is the part until it is told to stop. Returns the exit code.
pub(crate) fn run(part: Part, config: &Path) -> u8 {
    log(LevelFilter::INFO);
    if let Err(error) = seal() {
        return fail(&format!("cannot keep keys in memory: {error}"));
    }
    match part {
        Part::Ca => serve(
            config,
            ca_config,
            |_| Builder::new_current_thread(),
            |config| async {
                let stop = stopped().map_err(|error| error.to_string())?;
                ca::run(config, stop).await.map_err(|error| error.to_string())
            },
        ),
        Part::Control => serve(config, control::Config::read, |_| few("control"), control::run),
        Part::Proxy => serve(config, proxy::Config::read, |_| few("proxy"), proxy::run),
        Part::Standalone => serve(
            config,
            standalone::Standalone::read,
            |config| threads("proxy", config.threads),
            standalone::run,
        ),
    }
}

/// Keeps keys and tokens in memory: no core is ever written of this process, and no other process of its user reads it.
fn seal() -> nix::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)
}

/// Starts our own log: on standard error, one event a line, from `default` upward where the variable does not say.
pub(crate) fn log(default: LevelFilter) {
    let filter = EnvFilter::builder()
        .with_env_var(LOG_VARIABLE)
        .with_default_directive(default.into());
    // A directive that is not understood is left out, and said so by the filter itself.
    let filter = filter.from_env_lossy();
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .init();
}

/// Says what failed, and gives the exit code.
pub(crate) fn fail(why: &str) -> u8 {
    // Nobody may be left to read it.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {why}\n"));
    FAILED
}

fn serve<C, E: std::fmt::Display, F: Future<Output = Result<(), String>>>(
    path: &Path,
    read: impl FnOnce(&Path) -> Result<C, E>,
    runtime: impl FnOnce(&C) -> Builder,
    run: impl FnOnce(C) -> F,
) -> u8 {
    let config = match read(path) {
        Ok(config) => config,
        Err(error) => {
            let _ = fail(&error.to_string());
            return BROKEN;
        }
    };
    let runtime: Runtime = match runtime(&config).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let ended = runtime.block_on(run(config));
    // What still blocks a thread does not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => 0,
        Err(why) => fail(&why),
    }
}

/// A runtime of few named threads.
fn few(name: &'static str) -> Builder {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    threads(name, cores.min(MAX_THREADS))
}

/// A runtime of so many named threads.
fn threads(name: &'static str, count: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(count).thread_name(name);
    builder
}

fn ca_config(path: &Path) -> Result<ca::Config, String> {
    let broken = |why: String| format!("configuration `{}`: {why}", path.display());
    let text = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))
}

/// Ends at SIGTERM or SIGINT.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.json");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_configuration_that_is_none_names_its_file_and_is_bad_input() {
        let (_dir, path) = config("{\"listen\": []}");
        let why = ca_config(&path).unwrap_err();
        assert!(
            why.contains("part.json") && why.contains("missing field"),
            "{why}"
        );
        let ran = |_| async { Ok(()) };
        assert_eq!(
            serve(&path, ca_config, |_| Builder::new_current_thread(), ran),
            BROKEN
        );
    }

    #[test]
    fn a_part_leaves_no_core() {
        use nix::sys::resource::{Resource, getrlimit};
        seal().unwrap();
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
    }

    #[test]
    fn a_part_ends_as_it_says() {
        let (_dir, path) = config("{}");
        let read = |_: &Path| Ok::<_, String>(());
        let with = |ended: Result<(), String>| serve(&path, read, |()| few("test"), |()| async { ended });
        assert_eq!(with(Ok(())), 0);
        assert_eq!(with(Err("no port".to_owned())), FAILED);
    }
}
