//! Fields to the heads and trailers of messages (RFC 9113, 8): what is malformed never becomes one.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::hpack::{Field, Name};

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// `:method`.
    pub method: Method,
    /// `:path`; nothing for CONNECT.
    pub path: Option<PathAndQuery>,
    /// `:authority`, as it came.
    pub authority: Option<HeaderValue>,
    /// The other fields.
    pub headers: HeaderMap,
    /// What there is too much of: then the head is not whole, and only good for a refusal.
    pub excess: Option<Excess>,
    /// Whether there is no body.
    pub ended: bool,
}

/// What a head has too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Excess {
    /// Bytes.
    Length,
    /// Fields.
    Fields,
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// `:status`.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// Whether there is no body.
    pub ended: bool,
}

impl RequestHead {
    /// One of which there is too much to read.
    pub(crate) fn excessive(excess: Excess) -> Self {
        Self {
            method: Method::GET,
            path: None,
            authority: None,
            headers: HeaderMap::new(),
            excess: Some(excess),
            ended: false,
        }
    }
}

/// Why a message is malformed (RFC 9113, 8.1.1).
type Malformed = &'static str;

/// Fields of the connection, which HTTP/2 does not have (RFC 9113, 8.2.2).
pub(crate) fn is_of_connection(name: &HeaderName) -> bool {
    // All are of these lengths; most names are not.
    match name.as_str().len() {
        7 => *name == header::UPGRADE,
        10 => *name == header::CONNECTION || name.as_str() == "keep-alive",
        16 => name.as_str() == "proxy-connection",
        17 => *name == header::TRANSFER_ENCODING,
        _ => false,
    }
}

/// What a message's pseudo-header fields may be.
#[derive(Default)]
struct Pseudo {
    method: Option<HeaderValue>,
    scheme: Option<HeaderValue>,
    authority: Option<HeaderValue>,
    path: Option<HeaderValue>,
    status: Option<HeaderValue>,
}

/// The head of a request.
pub(crate) fn request(fields: Vec<Field>) -> Result<RequestHead, Malformed> {
    let (pseudo, headers) = split(fields)?;
    if pseudo.status.is_some() {
        return Err("a request has a status");
    }
    let method = pseudo.method.ok_or("a request has no method")?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "a method is malformed")?;
    let path = if method == Method::CONNECT {
        if pseudo.scheme.is_some() || pseudo.path.is_some() || pseudo.authority.is_none() {
            return Err("CONNECT has a scheme or a path, or no authority");
        }
        None
    } else {
        let scheme = pseudo.scheme.ok_or("a request has no scheme")?;
        if !is_scheme(scheme.as_bytes()) {
            return Err("a scheme is malformed");
        }
        let path = pseudo.path.ok_or("a request has no path")?;
        if path.is_empty() {
            return Err("a path is empty");
        }
        Some(PathAndQuery::try_from(path.as_bytes()).map_err(|_| "a path is malformed")?)
    };
    Ok(RequestHead {
        method,
        path,
        authority: pseudo.authority,
        headers,
        excess: None,
        ended: false,
    })
}

/// The head of a response; one with a status below 200 announces another.
pub(crate) fn response(fields: Vec<Field>) -> Result<ResponseHead, Malformed> {
    let (pseudo, headers) = split(fields)?;
    if [pseudo.method, pseudo.scheme, pseudo.authority, pseudo.path]
        .iter()
        .any(Option::is_some)
    {
        return Err("a response has what only requests have");
    }
    let status = pseudo.status.ok_or("a response has no status")?;
    let status = StatusCode::from_bytes(status.as_bytes()).map_err(|_| "a status is malformed")?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("HTTP/2 does not switch protocols");
    }
    Ok(ResponseHead {
        status,
        headers,
        ended: false,
    })
}

/// Trailers. Those of a request may say nothing about framing, routing or who asks (RFC 9110, 6.5.1).
pub(crate) fn trailers(fields: Vec<Field>, of_request: bool) -> Result<HeaderMap, Malformed> {
    if fields.iter().any(|(name, _)| !matches!(name, Name::Field(_))) {
        return Err("trailers have a pseudo-header field, or a malformed one");
    }
    let (_, headers) = split(fields)?;
    let forbidden = |name: &HeaderName| {
        *name == header::CONTENT_LENGTH
            || (of_request
                && (*name == header::HOST
                    || *name == header::AUTHORIZATION
                    || name.as_str() == "x-forwarded-client-cert"))
    };
    if headers.keys().any(forbidden) {
        return Err("trailers have a field that belongs into a head");
    }
    Ok(headers)
}

/// What `content-length` says.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    if values.next().is_some()
        || digits.is_empty()
        || digits.len() > 19
        || !digits.iter().all(u8::is_ascii_digit)
    {
        return Err("content-length is not one number");
    }
    let number = digits
        .iter()
        .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(Some(number))
}

fn split(fields: Vec<Field>) -> Result<(Pseudo, HeaderMap), Malformed> {
    let mut pseudo = Pseudo::default();
    let mut headers = HeaderMap::with_capacity(fields.len() + 4);
    let mut begun = false;
    for (name, value) in fields {
        let place = match name {
            Name::Field(name) => {
                begun = true;
                field(&mut headers, name, value)?;
                continue;
            }
            Name::Malformed => return Err("a field is malformed"),
            Name::Protocol => return Err("CONNECT for another protocol is not offered"),
            Name::Method => &mut pseudo.method,
            Name::Scheme => &mut pseudo.scheme,
            Name::Authority => &mut pseudo.authority,
            Name::Path => &mut pseudo.path,
            Name::Status => &mut pseudo.status,
        };
        if begun {
            return Err("a pseudo-header field comes after others");
        }
        if place.replace(value).is_some() {
            return Err("a pseudo-header field comes twice");
        }
    }
    Ok((pseudo, headers))
}

fn field(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Malformed> {
    if is_of_connection(&name) {
        return Err("a field belongs to a connection of HTTP/1");
    }
    if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
        return Err("TE asks for more than trailers");
    }
    let white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if white(value.as_bytes().first()) || white(value.as_bytes().last()) {
        return Err("a value begins or ends with white space");
    }
    headers
        .try_append(name, value)
        .map_err(|_| "a message has too many fields")?;
    Ok(())
}

/// RFC 3986, 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    let rest = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(rest)
}
