//! Words, and whole commands against a mesh of scripted answers.

mod commands;
mod explain;
mod fake;
mod samples;
mod terminal;
mod words;
