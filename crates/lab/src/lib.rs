//! A whole mesh on one machine: nodes, pods, processes, tokens, clean-up.
//!
//! It stands for what a Kubernetes cluster would do, and decides nothing about who may talk to whom. What is to run comes
//! from the control plane (`desired`); `plan` says what to do about it, purely; `engine`, the one owner of all pods, does
//! it; each `pod` lives in a task of its own. `parts` keeps the CA, the control plane and the proxies. Whatever is made
//! is found again by its name alone, so that `remains` can take it away, also after everything was killed.

#![warn(missing_docs)]

mod answers;
mod desired;
mod engine;
mod parts;
mod plan;
mod pod;
mod process;
mod program;
mod remains;
mod show;
mod site;
mod up;

/// Starts a mesh and stays in front until it is to end; with `detach` returns when all is ready. Returns the exit code.
///
/// To be called by a process that has no other thread yet: without root it moves into namespaces of its own, and starts
/// the program anew there with the words that it was started with.
pub fn up(up: cli::Up) -> u8 {
    up::up(up)
}

/// Ends a mesh, or clears the remains of one. Returns the exit code.
pub fn down(down: &cli::Down) -> u8 {
    remains::down(down)
}
