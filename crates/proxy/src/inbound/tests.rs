//! What comes in, from the captured socket to the application and back.

mod bytes;
mod http;
mod world;
