//! The one program that people start: a command of the command line, a whole mesh, or one part of it.

mod part;

use std::process::ExitCode;

use cli::Command;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    quiet_panics();
    let command = match cli::parse(std::env::args_os().collect()) {
        Ok(command) => command,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(match command {
        Command::Up(up) => {
            // What it does is told as progress; its log has what went wrong.
            part::log(LevelFilter::WARN);
            lab::up(up)
        }
        Command::Down(down) => lab::down(&down),
        Command::Soak(asked) => soak::run(&soak::Asked {
            for_ms: asked.for_ms,
            rate: asked.rate,
            services: usize::try_from(asked.services).unwrap_or(usize::MAX),
            json: asked.json,
            plot: asked.plot,
        }),
        Command::Survey(asked) => survey::run(&survey::Asked {
            profile: asked.profile,
            json: asked.json,
            only: asked.only,
        }),
        Command::Part(part, config) => part::run(part, &config),
        Command::Workload(program, args) => exit_code(workloads::run(&program, args)),
        Command::Ask(ask) => asked(ask),
    })
}

/// Does what was asked on this thread: most commands are one question and one answer.
fn asked(ask: cli::Ask) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return part::fail(&format!("no runtime: {error}")),
    };
    let code = runtime.block_on(cli::run(ask));
    // A thread may still wait for a terminal that says nothing.
    runtime.shutdown_background();
    code
}

/// Exit codes have eight bits; what does not fit is a failure all the same.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

/// Says where a panic was, and not with what: the message may quote what must not be printed.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        // Nobody may be left to read it, and a hook must not panic.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "error: thread `{thread}` broke at {place}; this is a fault of meshward's, please report it\n"
            ),
        );
    }));
}

#[cfg(test)]
mod tests {
    #[test]
    fn exit_codes_that_do_not_fit_are_failures() {
        for (given, wanted) in [(0, 0), (7, 7), (255, 255), (256, 1), (-1, 1)] {
            assert_eq!(super::exit_code(given), wanted, "{given}");
        }
    }
}
