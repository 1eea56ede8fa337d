//! What comes in, from the captured socket to the application and back.

mod bytes;
mod exchange;
mod external;
mod http;
mod limits;
mod world;
