//! What comes in, from the captured socket to the application and back.

mod bytes;
mod eval;
mod exchange;
mod external;
mod hbone;
mod http;
mod limits;
mod tokens;
mod turns;
mod why;
mod world;
