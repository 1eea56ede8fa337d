//! Programs that answer for well-known container images on a machine without a registry: httpbin,
//! Istio's echo application, the TCP echo server, an external authorizer, an idle process, a probe that speaks from inside a pod,
//! steady loads that are counted at both ends, garbage, a DNS server, and a witness that tells what comes to a pod.
//!
//! They stand for other people's software, so they share no code with the proxy and speak plainly.

#![warn(missing_docs)]

mod collector;
mod dns;
mod echo;
mod ext_authz;
mod garbage;
mod httpbin;
mod load;
mod probe;
mod record;
mod serve;
mod tcp_echo;
mod traffic;

/// The names of the programs, for messages.
pub const PROGRAMS: &[&str] = &[
    "httpbin",
    "echo",
    "tcp-echo",
    "ext-authz",
    "collector",
    "dns",
    "idle",
    "probe",
    "record",
    "traffic",
    "load",
    "tally",
    "garbage",
];

/// Runs a program until it ends and returns its exit code; 64 for a name or arguments that it does not know.
pub fn run(program: &str, args: Vec<String>) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), 1),
    };
    let result = runtime.block_on(async {
        match program {
            "httpbin" => httpbin::run(&args).await,
            "echo" => echo::run(&args).await,
            "tcp-echo" => tcp_echo::run(&args).await,
            "ext-authz" => ext_authz::run(&args).await,
            "collector" => collector::run(&args).await,
            "dns" => dns::run(&args).await,
            "idle" => idle().await,
            "traffic" => traffic::run(&args).await,
            "probe" => probe::run(&args).await,
            "garbage" => garbage::run(&args).await,
            "load" => load::run(&args).await,
            "tally" => load::tally::run(&args).await,
            "record" => record::run(&args).await,
            other => Err(Exit::usage(format!(
                "`{other}` is not a built-in program: {}",
                PROGRAMS.join(", ")
            ))),
        }
    });
    match result {
        Ok(code) => code,
        Err(exit) => fail(&exit.message, exit.code),
    }
}

/// Why a program ended early.
#[derive(Debug)]
pub(crate) struct Exit {
    message: String,
    code: i32,
}

impl Exit {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 64,
        }
    }
}

impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }
}

fn fail(message: &str, code: i32) -> i32 {
    eprintln!("error: {message}");
    code
}

/// Waits for SIGTERM or SIGINT: as process 1 of a pod nothing else would end it.
async fn idle() -> Result<i32, Exit> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(0)
}

/// The name of this host: the pod's.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|n| n.into_string().ok())
        .unwrap_or_default()
}
