//! Chores of the project: `cargo xtask tidy` holds the house together, `cargo xtask check` is what every commit passes.

mod limits;
mod picture;
mod proto;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        Some("tidy") => tidy::run(&root()).map_err(|problems| problems.join("\n")),
        Some("proto") => proto::write(&root()),
        Some("check") => check(),
        Some("picture") => picture(),
        _ => Err("usage: cargo xtask tidy | check | proto | picture <TRANSCRIPT >SVG".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// What every commit passes: format, lints, structure, tests, documentation.
fn check() -> Result<(), String> {
    const STEPS: &[&[&str]] = &[
        &["fmt", "--all", "--check"],
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
        &["xtask", "tidy"],
        &["test", "--workspace", "--locked"],
        &["doc", "--workspace", "--no-deps", "--locked"],
    ];
    for step in STEPS {
        eprintln!("cargo {}", step.join(" "));
        let status = Command::new(env!("CARGO"))
            .args(*step)
            .env("RUSTDOCFLAGS", "-D warnings")
            .current_dir(root())
            .status()
            .map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("`cargo {}` failed", step.join(" ")));
        }
    }
    Ok(())
}

/// Reads a transcript from standard input and writes its picture to standard output.
fn picture() -> Result<(), String> {
    let transcript = std::io::read_to_string(std::io::stdin()).map_err(|e| e.to_string())?;
    print!("{}", picture::svg(&transcript));
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
