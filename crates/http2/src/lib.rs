//! HTTP/2 without I/O (RFC 9113): bytes go in, and messages and bytes come out. Both sides of a connection.
//!
//! A [`Connection`] is fed with what was read, and says what is to be written; requests, bodies and trailers are polled from
//! it and put into it, stream by stream. It is strict: what is malformed ends its stream, what breaks the protocol ends the
//! connection, and what only makes work has a limit with a name, in [`limits`]. It has no clock: the time is an argument.

#![warn(missing_docs)]

mod code;
mod connection;
mod frame;
pub mod hpack;
pub mod limits;
mod message;
mod stream;
mod wakes;

pub use code::{Code, Gone, StreamError, Violation};
pub use connection::{Accepted, Chunk, Config, Connection, RequestParts, Role};
pub use message::{Excess, RequestHead, ResponseHead};
pub use stream::Key;
pub use wakes::Wakes;
