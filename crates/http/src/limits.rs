//! How much of what is taken. What exceeds a limit is refused with a [`crate::Fault`] that names it.

use std::time::Duration;

/// Bytes of one head, request line included.
pub const MAX_HEAD: usize = 60 * 1024;
/// Header fields of one head.
pub const MAX_FIELDS: usize = 100;
/// Bytes of a request target.
pub const MAX_TARGET: usize = 16 * 1024;
/// Bytes of a chunk's size line, extensions included.
pub const MAX_CHUNK_LINE: usize = 1024;
/// Bytes of all trailers of one message.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// Bytes that a codec may hold of one connection in one direction.
pub const MAX_BUFFER: usize = 64 * 1024;
/// Bytes of a request's body that are kept until its response begins, so that it can be sent again where the server has said
/// that it did not look at it.
pub const MAX_REPLAY: usize = 64 * 1024;
/// And frames that they came in.
pub const MAX_REPLAY_FRAMES: usize = 16;
/// Streams that one HTTP/2 connection may have open.
pub const MAX_STREAMS: u32 = 100;
/// Tunnels that one connection may have open.
pub const MAX_TUNNELS: u32 = 100;
/// Bytes that small DATA frames of all tunnels of a connection may take besides what they carry, while nobody reads them; some
/// 16 000 frames.
pub const MAX_TUNNEL_FRAMES: usize = 4 * 1024 * 1024;
/// Bytes of the head of a request for a tunnel.
pub const MAX_TUNNEL_HEAD: u32 = 16 * 1024;
/// Bytes of one HTTP/2 stream that may be under way before the reader takes them.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of one HTTP/2 connection that a client may have sent and nobody has taken.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// And those that a server may have: all that its streams may, so that one that is read slowly holds up no other.
pub const ANSWERS_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// Streams that a peer may reset before we have looked at them.
pub const MAX_PENDING_RESETS: usize = 50;
/// How long a head may take from its first byte to its last.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may stay without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long an HTTP/1 connection that is to end may stay without the request whose answer says so. Longer than a proxy
/// keeps a connection that it does not use, so that no request meets its end.
pub const LAST_REQUEST: Duration = Duration::from_secs(90);
/// How long the bytes of a client are read and thrown away once the connection is over, so that it gets to see the answer
/// that it was refused with, or which of its requests were not looked at.
pub const LINGER: Duration = Duration::from_secs(1);
/// And how many of them.
pub const LINGER_BYTES: usize = 256 * 1024;
/// How often an HTTP/2 peer is asked whether it is still there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long it may take to say so.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections to pages that are served at once; the next one waits.
pub const MAX_PAGE_CONNECTIONS: usize = 64;
/// How long one of them may last.
pub const PAGE_CONNECTION_LIFE: Duration = Duration::from_secs(60);
