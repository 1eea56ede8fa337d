//! Header compression (RFC 7541). What is written uses the tables, and no Huffman code: to decode that costs whoever reads
//! more than the bytes it saves on the wire of a mesh.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub use decoder::{Block, Decoder, Field};
pub use encoder::Encoder;

use http::HeaderName;

/// The name of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`.
    Authority,
    /// `:path`.
    Path,
    /// `:status`.
    Status,
    /// `:protocol` (RFC 8441).
    Protocol,
    /// A field of the message.
    Field(HeaderName),
    /// No name, or its value is none: whoever sends it sends a malformed message.
    Malformed,
}

impl Name {
    /// Reads a name. Upper case makes it malformed (RFC 9113, 8.2.1).
    fn read(bytes: &[u8]) -> Self {
        match bytes {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            _ => HeaderName::from_lowercase(bytes).map_or(Self::Malformed, Self::Field),
        }
    }

    /// Its length in bytes, as lists and tables are measured.
    fn length(&self) -> usize {
        match self {
            Self::Method | Self::Scheme | Self::Status => 7,
            Self::Authority => 10,
            Self::Path => 5,
            Self::Protocol => 9,
            Self::Field(name) => name.as_str().len(),
            Self::Malformed => 0,
        }
    }
}

/// Bytes that an entry counts besides its name and value (RFC 7541, 4.1).
const OVERHEAD: usize = 32;

/// Writes an integer with a prefix of `bits` bits; `first` holds the bits before it (RFC 7541, 5.1).
fn put_integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(first | u8::try_from(value).unwrap_or_default());
        return;
    }
    out.push(first | u8::try_from(most).unwrap_or_default());
    let mut rest = value - most;
    while rest >= 128 {
        out.push(u8::try_from(rest & 127).unwrap_or_default() | 128);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

/// Writes a string as it is.
fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_integer(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
