//! The commands that explain: what would be decided, what was, and by which rule.

pub(crate) mod args;
pub(crate) mod can_i;
pub(crate) mod eval;
mod load;
pub(crate) mod path;
pub(crate) mod policy;
mod target;
pub(crate) mod why;
