//! What comes in, from the captured socket to the application and back.

mod bytes;
mod exchange;
mod http;
mod limits;
mod tokens;
mod world;
