//! Questions about a world, answered by the very functions that a proxy runs: the compiler makes the snapshot, the
//! snapshot's index finds the workload, [`policy::authorize_with`] decides. Nothing is decided here a second time.

#![warn(missing_docs)]

mod answer;
mod decide;
mod draft;
mod effective;
mod eval;
mod facts;
mod known;
mod lint;
mod question;
mod token;
mod world;

pub use answer::{Answer, ByPolicy, Decision, NearMiss, Path, Replica, Step};
pub use effective::{Effective, Otherwise, PolicyInForce, PortInForce, RuleInForce};
pub use eval::{Eval, Tally};
pub use known::{Known, Unknown};
pub use question::{Caller, Custom, Headers, Labels, Providers, Question, Speaks, Target, Text};
pub use world::{MAX_LABELLED, Offline};

#[cfg(test)]
mod tests;
