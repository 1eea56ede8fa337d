//! Words, and whole commands against a mesh of scripted answers.

mod commands;
mod fake;
mod terminal;
mod words;
