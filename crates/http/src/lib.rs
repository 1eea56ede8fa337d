//! Bytes to HTTP messages and back: HTTP/1.1 and HTTP/2 over any stream of bytes, both sides.
//!
//! A message that two readers could frame in two ways is refused before anybody sees it: in front of the HTTP/1
//! codec stands [`Front`], which follows the stream byte by byte and hands on only what it has understood whole.
//! Bodies stream with back-pressure; every limit has a name in [`limits`]. The codec below is nobody's business:
//! what is public here are messages of the `http` crate, [`Body`], and a handler.

#![warn(missing_docs)]

mod body;
mod client;
mod fault;
mod front;
pub mod grpc;
pub mod limits;
pub mod pages;
mod server;
pub mod sniff;
mod tunnel;
mod upgrade;
mod wire;

pub use body::{Ahead, Body, BodyEnd, BodyError, Tap};
pub use client::{ClientError, Sender, Unsent, handshake};
pub use fault::{Broken, Fault};
pub use front::Front;
pub use http::uri::Authority;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use server::{Abort, Handler, Protocol, ServeError, ServeOptions, serve};
pub use sniff::Rewind;
pub use tunnel::{Connect, Tunnel, TunnelError, Tunnels, open_tunnel, serve_tunnels};
pub use upgrade::{Upgrade, UpgradeError, Upgraded, take_upgrade};

/// A request. Its target is always in origin form (or `*`), and its authority is always in `host`, in both versions.
pub type Request = http::Request<Body>;

/// A response.
pub type Response = http::Response<Body>;

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// HTTP/1.1 (and 1.0, where it is wanted).
    Http1,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// `HTTP/1.1` or `HTTP/2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The version of a request as it was read.
pub fn version_of(request: &Request) -> Version {
    if request.version() == http::Version::HTTP_2 {
        Version::Http2
    } else {
        Version::Http1
    }
}
