//! Where traffic goes: what a host name means, and which of several endpoints takes the next connection.
//!
//! Pure: no clock, and randomness is passed in, so that every choice can be repeated in a test.

#![warn(missing_docs)]

pub mod balance;
pub mod host;
pub mod name;
