//! A whole mesh on one machine: nodes, pods, processes, tokens, clean-up.

#![warn(missing_docs)]

/// Starts a mesh and stays in front until it is to end; with `detach` returns when all is ready. Returns the exit code.
pub fn up(_up: cli::Up) -> u8 {
    2
}

/// Ends a mesh, or clears the remains of one. Returns the exit code.
pub fn down(_down: &cli::Down) -> u8 {
    2
}
