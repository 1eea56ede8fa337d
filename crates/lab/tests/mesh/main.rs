//! Whole meshes, as root and not: real namespaces, real processes, the real CA, and a control plane and proxies that only
//! say what they are asked for here.
//!
//! This program stands for the one that people start: called with the words of a part it is that part.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod cases;
mod fakes;
mod mesh;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rest = || words.get(1..).unwrap_or_default().to_vec();
    let code = match words.first().map(String::as_str) {
        Some("workload") => {
            let (program, args) = words[1..].split_first().expect("a program");
            u8::try_from(workloads::run(program, args.to_vec())).unwrap_or(255)
        }
        Some(part @ ("ca" | "control" | "proxy")) => fakes::run(part, std::path::Path::new(&words[2])),
        Some("up") => lab::up(mesh::parse(&rest())),
        Some("ask") => mesh::ask_and_print(&rest()),
        Some("down") => lab::down(&cli::Down {
            name: words[1].clone(),
            all: false,
        }),
        _ => return cases::run(&words),
    };
    ExitCode::from(code)
}
