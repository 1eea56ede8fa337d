//! Questions about a world, answered by the very functions that a proxy runs: the compiler makes the snapshot, the
//! snapshot's index finds the workload, [`policy::authorize_with`] decides. Nothing is decided here a second time.

#![warn(missing_docs)]

mod answer;
mod decide;
mod question;
mod world;

pub use answer::{Answer, ByPolicy, Decision, NearMiss, Path, Step};
pub use decide::{Custom, Providers};
pub use question::{Caller, Question, Speaks, Target};
pub use world::{Offline, Unknown};

#[cfg(test)]
mod tests;
