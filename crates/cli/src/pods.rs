//! Pods: listed, entered, listened to.

pub(crate) mod exec;
pub(crate) mod logs;
mod merge;
pub(crate) mod ps;
mod terminal;
