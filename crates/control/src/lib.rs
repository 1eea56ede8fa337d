//! The control plane: watches a source, holds the world, compiles, publishes, reports status.
//!
//! A change goes one way: `source` sees it, or `verbs` brings it; `plane`, the one writer, lays the layers (`layers`),
//! freezes the `world`, compiles and publishes it and shows the result as a `view`, from which every answer is read.
//! `keys` fetches what tokens are verified by. `standing` joins it with what the proxies say. `state` is what a restart must find again.
//!
//! # Files, and what is done by hand
//!
//! The newest change wins. An object that was applied is in force in place of the files' object of the same kind,
//! namespace and name until the text of *that object* in the files changes; editing another object of the same file
//! ends nothing. An object of a file that was deleted by hand is hidden in the same way; taking it out of the file and
//! writing it anew brings it back. An object that was applied outlives the file's. All this outlives a restart, and so
//! does the age of each object: where the oldest of several decides, it stays the oldest.
//!
//! # What is broken
//!
//! A file with an error keeps the objects that it held before, all of them, also over a restart. Security objects are
//! the exception: one that is invalid is in force as what denies. A file that was never good gives its sound objects,
//! or none where it cannot be read to its end.

#![warn(missing_docs)]

mod config;
mod keys;
mod layers;
mod plane;
mod run;
mod source;
mod standing;
mod state;
mod tls;
mod verbs;
mod view;
mod world;

pub use config::{Config, ConfigError, Fetching, NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE, Source};
pub use run::run;

#[cfg(test)]
mod tests;
