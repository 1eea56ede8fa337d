//! Objects: taken, taken away, shown.

pub(crate) mod change;
pub(crate) mod get;
pub(crate) mod outcome;
