//! The table that everybody has (RFC 7541, appendix A).

use http::{HeaderName, HeaderValue, header};

use super::Name;

/// How many entries it has.
pub(super) const STATIC: usize = 61;

static TABLE: [(Name, HeaderValue); STATIC] = [
    (Name::Authority, HeaderValue::from_static("")),
    (Name::Method, HeaderValue::from_static("GET")),
    (Name::Method, HeaderValue::from_static("POST")),
    (Name::Path, HeaderValue::from_static("/")),
    (Name::Path, HeaderValue::from_static("/index.html")),
    (Name::Scheme, HeaderValue::from_static("http")),
    (Name::Scheme, HeaderValue::from_static("https")),
    (Name::Status, HeaderValue::from_static("200")),
    (Name::Status, HeaderValue::from_static("204")),
    (Name::Status, HeaderValue::from_static("206")),
    (Name::Status, HeaderValue::from_static("304")),
    (Name::Status, HeaderValue::from_static("400")),
    (Name::Status, HeaderValue::from_static("404")),
    (Name::Status, HeaderValue::from_static("500")),
    (Name::Field(header::ACCEPT_CHARSET), HeaderValue::from_static("")),
    (
        Name::Field(header::ACCEPT_ENCODING),
        HeaderValue::from_static("gzip, deflate"),
    ),
    (Name::Field(header::ACCEPT_LANGUAGE), HeaderValue::from_static("")),
    (Name::Field(header::ACCEPT_RANGES), HeaderValue::from_static("")),
    (Name::Field(header::ACCEPT), HeaderValue::from_static("")),
    (
        Name::Field(header::ACCESS_CONTROL_ALLOW_ORIGIN),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::AGE), HeaderValue::from_static("")),
    (Name::Field(header::ALLOW), HeaderValue::from_static("")),
    (Name::Field(header::AUTHORIZATION), HeaderValue::from_static("")),
    (Name::Field(header::CACHE_CONTROL), HeaderValue::from_static("")),
    (
        Name::Field(header::CONTENT_DISPOSITION),
        HeaderValue::from_static(""),
    ),
    (
        Name::Field(header::CONTENT_ENCODING),
        HeaderValue::from_static(""),
    ),
    (
        Name::Field(header::CONTENT_LANGUAGE),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::CONTENT_LENGTH), HeaderValue::from_static("")),
    (
        Name::Field(header::CONTENT_LOCATION),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::CONTENT_RANGE), HeaderValue::from_static("")),
    (Name::Field(header::CONTENT_TYPE), HeaderValue::from_static("")),
    (Name::Field(header::COOKIE), HeaderValue::from_static("")),
    (Name::Field(header::DATE), HeaderValue::from_static("")),
    (Name::Field(header::ETAG), HeaderValue::from_static("")),
    (Name::Field(header::EXPECT), HeaderValue::from_static("")),
    (Name::Field(header::EXPIRES), HeaderValue::from_static("")),
    (Name::Field(header::FROM), HeaderValue::from_static("")),
    (Name::Field(header::HOST), HeaderValue::from_static("")),
    (Name::Field(header::IF_MATCH), HeaderValue::from_static("")),
    (
        Name::Field(header::IF_MODIFIED_SINCE),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::IF_NONE_MATCH), HeaderValue::from_static("")),
    (Name::Field(header::IF_RANGE), HeaderValue::from_static("")),
    (
        Name::Field(header::IF_UNMODIFIED_SINCE),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::LAST_MODIFIED), HeaderValue::from_static("")),
    (Name::Field(header::LINK), HeaderValue::from_static("")),
    (Name::Field(header::LOCATION), HeaderValue::from_static("")),
    (Name::Field(header::MAX_FORWARDS), HeaderValue::from_static("")),
    (
        Name::Field(header::PROXY_AUTHENTICATE),
        HeaderValue::from_static(""),
    ),
    (
        Name::Field(header::PROXY_AUTHORIZATION),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::RANGE), HeaderValue::from_static("")),
    (Name::Field(header::REFERER), HeaderValue::from_static("")),
    (Name::Field(header::REFRESH), HeaderValue::from_static("")),
    (Name::Field(header::RETRY_AFTER), HeaderValue::from_static("")),
    (Name::Field(header::SERVER), HeaderValue::from_static("")),
    (Name::Field(header::SET_COOKIE), HeaderValue::from_static("")),
    (
        Name::Field(header::STRICT_TRANSPORT_SECURITY),
        HeaderValue::from_static(""),
    ),
    (
        Name::Field(header::TRANSFER_ENCODING),
        HeaderValue::from_static(""),
    ),
    (Name::Field(header::USER_AGENT), HeaderValue::from_static("")),
    (Name::Field(header::VARY), HeaderValue::from_static("")),
    (Name::Field(header::VIA), HeaderValue::from_static("")),
    (
        Name::Field(header::WWW_AUTHENTICATE),
        HeaderValue::from_static(""),
    ),
];

/// The entry with this number, from 1 on.
pub(super) fn entry(index: usize) -> Option<&'static (Name, HeaderValue)> {
    TABLE.get(index.checked_sub(1)?)
}

/// The number of an entry of this name, 0 where there is none.
pub(super) fn number(name: &HeaderName) -> u8 {
    let same = |(entry, _): &(Name, HeaderValue)| matches!(entry, Name::Field(known) if known == name);
    let at = TABLE.iter().position(same).map_or(0, |at| at + 1);
    u8::try_from(at).unwrap_or_default()
}
