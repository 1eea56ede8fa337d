//! How much of what is taken, besides what [`crate::Config`] says.

/// Bytes of a frame's payload; the least that the protocol allows, in both directions.
pub const MAX_FRAME: usize = 16 * 1024;
/// Bytes of a header table, in both directions.
pub const HEADER_TABLE: usize = 4096;
/// Bytes of an encoded header block besides those that [`crate::Config::max_head`] allows a decoded one.
pub const BLOCK_SLACK: usize = 32 * 1024;
/// CONTINUATION frames of one header block.
pub const MAX_CONTINUATIONS: usize = 8;
/// Informational heads before a response.
pub const MAX_INFORMATIONAL: u32 = 16;
/// Frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, resets, refused streams, frames of
/// unknown kinds) in excess of those that do. Halved every second, so that some 5000 a second may last.
pub const MAX_IDLE_FRAMES: u32 = 10_000;
/// Bytes of answers (acknowledgements, resets, window updates) that wait because the other side does not read.
pub const MAX_ANSWERS: usize = 16 * 1024;
/// Streams that a client may reset within a second of opening them and before they are answered; beyond, no more than half
/// of all that it opened. Envoy's `overload.premature_reset_total_stream_count` and
/// `overload.premature_reset_min_stream_lifetime_seconds`.
pub const MAX_PREMATURE_RESETS: u64 = 500;
/// What early is, in milliseconds.
pub const PREMATURE: u64 = 1000;
/// Streams that were reset of late, of which frames may still be on their way.
pub const MAX_RESET_KNOWN: usize = 256;
/// Bytes of a value that is put into the encoder's table.
pub(crate) const MAX_INDEXED: usize = 1024;
