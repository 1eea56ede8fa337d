//! One head, whole: what it says about where the message ends, or what is wrong with it.

use model::split_authority;

use super::line::control;
use crate::Fault;
use crate::limits::{MAX_FIELDS, MAX_TARGET};

/// The methods that Envoy's HTTP/1 codec knows (O-07). Case matters.
pub(crate) const METHODS: &[&str] = &[
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "M-SEARCH",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// Bytes that may be somewhere, one bit each.
struct Bytes([u64; 4]);

/// RFC 9110, 5.6.2.
const TOKEN: Bytes = Bytes::alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// Of an authority, besides what else is demanded of it.
const HOST: Bytes = Bytes::alphanumeric_and(b"-._~%!$&'()*+,;=:[]");

impl Bytes {
    #[expect(
        clippy::indexing_slicing,
        clippy::as_conversions,
        reason = "done while compiling, where an index out of bounds is an error"
    )]
    const fn alphanumeric_and(more: &[u8]) -> Self {
        let mut bits = [0_u64; 4];
        let mut byte = 0_u8;
        while byte < 128 {
            if byte.is_ascii_alphanumeric() {
                bits[(byte >> 6) as usize] |= 1 << (byte & 63);
            }
            byte += 1;
        }
        let mut at = 0;
        while at < more.len() {
            bits[(more[at] >> 6) as usize] |= 1 << (more[at] & 63);
            at += 1;
        }
        Self(bits)
    }

    fn has(&self, byte: u8) -> bool {
        let word = self.0.get(usize::from(byte >> 6));
        word.is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }
}

/// What a head says about the bytes that follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) framing: Framing,
    /// Whether it asks for another protocol.
    pub(super) upgrade: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What has been seen of the fields that matter.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

impl Head {
    /// Reads a head that ends with its empty line and has no bare CR or LF.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let body = bytes.strip_suffix(b"\r\n\r\n").ok_or(Fault::RequestLine)?;
        let mut lines = Lines(Some(body));
        let request = request_line(lines.next().ok_or(Fault::RequestLine)?)?;
        let mut seen = Seen::default();
        for (index, line) in lines.enumerate() {
            if index >= MAX_FIELDS {
                return Err(Fault::TooManyFields);
            }
            let (name, value) = field(line)?;
            seen.take(name, value)?;
        }
        seen.judge(&request)
    }
}

/// A trailer field: it may say nothing about framing or routing.
pub(super) fn trailer(line: &[u8]) -> Result<(), Fault> {
    let (name, _) = field(line).map_err(|_| Fault::Trailers)?;
    let forbidden: [&[u8]; 6] = [
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"connection",
        b"authorization",
        b"x-forwarded-client-cert",
    ];
    if forbidden.iter().any(|f| name.eq_ignore_ascii_case(f)) {
        return Err(Fault::Trailers);
    }
    Ok(())
}

/// Whether a value is an authority whose host can be one.
pub(crate) fn valid_host(value: &[u8]) -> bool {
    let plausible = |b: &u8| HOST.has(*b);
    let text = std::str::from_utf8(value).unwrap_or_default();
    value.iter().all(plausible) && split_authority(text).is_some()
}

struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let mut at = 0;
        loop {
            let Some(more) = control(rest.get(at..).unwrap_or_default(), b'\t') else {
                return Some(rest);
            };
            at += more;
            if rest.get(at..at + 2) == Some(b"\r\n") {
                self.0 = rest.get(at + 2..);
                return rest.get(..at);
            }
            at += 1;
        }
    }
}

struct RequestLine<'a> {
    /// The authority of an absolute target.
    authority: Option<&'a [u8]>,
    http10: bool,
    connect: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Fault> {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::RequestLine);
    };
    if !METHODS.iter().any(|known| known.as_bytes() == method) {
        return Err(Fault::Method);
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Fault::HttpVersion),
    };
    if target.len() > MAX_TARGET {
        return Err(Fault::TargetTooLong);
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Fault::Target);
    }
    let connect = method == b"CONNECT";
    let authority = match target {
        _ if connect && valid_host(target) => Some(target),
        _ if connect => return Err(Fault::Target),
        [b'/', ..] => None,
        b"*" if method == b"OPTIONS" => None,
        _ => Some(absolute(target)?),
    };
    Ok(RequestLine {
        authority,
        http10,
        connect,
    })
}

/// The authority of `http://AUTHORITY[/…]`. User names have no place there.
fn absolute(target: &[u8]) -> Result<&[u8], Fault> {
    let scheme = target.get(..7).filter(|s| s.eq_ignore_ascii_case(b"http://"));
    let rest = scheme.and_then(|_| target.get(7..)).ok_or(Fault::Target)?;
    let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    valid_host(authority).then_some(authority).ok_or(Fault::Target)
}

fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Fault::Folding);
    }
    let end = line.iter().position(|b| !TOKEN.has(*b));
    let (name, rest) = line.split_at(end.ok_or(Fault::FieldName)?);
    let Some((b':', value)) = rest.split_first() else {
        return Err(Fault::FieldName);
    };
    if name.is_empty() {
        return Err(Fault::FieldName);
    }
    if control(value, b'\t').is_some() {
        return Err(Fault::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

impl<'a> Seen<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        // By length first: most fields are none of these.
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                let before = self.host.replace(value);
                if before.is_some() {
                    return Err(Fault::SeveralHosts);
                }
            }
            14 if is(b"content-length") => {
                if self.length.is_some() {
                    return Err(Fault::ContentLength);
                }
                self.length = Some(decimal(value)?);
            }
            17 if is(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferEncoding);
                }
                self.chunked = true;
            }
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => {
                let mut options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                self.connection_upgrade |= options.any(|o| o.eq_ignore_ascii_case(b"upgrade"));
            }
            // No content coding has that name: a careless reader takes it for the transfer coding.
            16 if is(b"content-encoding") && value.split(|b| *b == b',').any(is_chunked) => {
                return Err(Fault::FramingLookalike);
            }
            _ if frames_nearly(name) || hides_framing(value) => return Err(Fault::FramingLookalike),
            _ => {}
        }
        Ok(())
    }

    fn judge(&self, request: &RequestLine<'_>) -> Result<Head, Fault> {
        match (self.host, request.authority) {
            (None, _) if !request.http10 => return Err(Fault::MissingHost),
            (Some(b""), _) => return Err(Fault::MissingHost),
            (Some(host), _) if !valid_host(host) => return Err(Fault::Host),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Fault::HostMismatch);
            }
            _ => {}
        }
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err(Fault::LengthAndEncoding),
            (None, true) if request.http10 => return Err(Fault::EncodingInHttp10),
            (None, true) => Framing::Chunked,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::None,
        };
        if request.connect {
            return Err(Fault::Connect);
        }
        Ok(Head {
            framing,
            upgrade: self.upgrade && self.connection_upgrade && !request.http10,
        })
    }
}

fn decimal(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || value.len() > 19 {
        return Err(Fault::ContentLength);
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
        digit.map(|digit| number * 10 + digit).ok_or(Fault::ContentLength)
    })
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Values in which a reader that ends lines at a byte above ASCII would find a field that frames the message.
fn hides_framing(value: &[u8]) -> bool {
    if value.is_ascii() {
        return false;
    }
    let mut pieces = value.split(|b| !b.is_ascii()).skip(1);
    pieces.any(|piece| {
        piece
            .split(|b| *b == b':')
            .next()
            .is_some_and(|name| piece.contains(&b':') && frames_nearly(name))
    })
}

/// Names that a careless reader takes for those that frame a message (`transfer_encoding`, `x.content-length` not).
fn frames_nearly(name: &[u8]) -> bool {
    let letters = || {
        let plain = name.iter().filter(|b| b.is_ascii_alphanumeric());
        plain.map(u8::to_ascii_lowercase)
    };
    letters().eq(b"transferencoding".iter().copied()) || letters().eq(b"contentlength".iter().copied())
}
