//! The one program that people start.

fn main() {}
