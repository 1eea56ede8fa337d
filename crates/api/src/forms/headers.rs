//! Names and values of HTTP headers, as routes and tokens are allowed to set them.

use super::Verdict;

const PSEUDO: &[&str] = &[":method", ":scheme", ":authority", ":path", ":status"];
const CLAIMS: &str = "@request.auth.claims";

/// RFC 9110's token: what a header's name is made of.
pub(crate) fn is_token(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(fits)
}

/// Letters, digits, `-` and `_`: the names that tokens' claims may be written to.
pub(crate) fn strict_name(name: &str) -> Verdict {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("`{name}` is not the name of a header"))
}

/// The name of a header in a CORS policy: a token or `*`.
pub(crate) fn cors_name(name: &str) -> Verdict {
    if is_token(name) {
        return Ok(());
    }
    Err(format!("`{name}` is not the name of a header"))
}

/// What a route may match: a header, a pseudo header, or a claim.
pub(crate) fn matched_name(name: &str) -> Verdict {
    if is_claim(name) || PSEUDO.contains(&name) || is_token(name) {
        return Ok(());
    }
    Err(format!("`{name}` is not the name of a header"))
}

/// Whether it is `@request.auth.claims.NAME` or `@request.auth.claims[NAME]`.
pub(crate) fn is_claim(name: &str) -> bool {
    let Some((prefix, rest)) = name.split_at_checked(CLAIMS.len()) else {
        return false;
    };
    prefix.eq_ignore_ascii_case(CLAIMS)
        && (rest.len() > 1 && rest.starts_with('.')
            || rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']'))
}

/// Whether it is the header that names the host.
pub(crate) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// What a route may set; the host only on requests, and only where `authority` is.
pub(crate) fn set_name(name: &str, authority: bool) -> Verdict {
    if name.is_empty() {
        return Err("the name of a header cannot be empty".to_owned());
    }
    if authority && is_authority(name) {
        return Ok(());
    }
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(format!("`{name}` cannot be set or removed here"));
    }
    Ok(())
}

/// A value for a header: no control characters but tabs, and every `%` doubled or part of a `%VARIABLE(..)%`.
pub(crate) fn value(text: &str) -> Verdict {
    if text.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err("a control character cannot be in a header".to_owned());
    }
    let mut bytes = text.bytes().peekable();
    let mut state = State::Literal;
    while let Some(byte) = bytes.next() {
        state = match state {
            State::Literal if byte == b'%' && bytes.peek() == Some(&b'%') => {
                bytes.next();
                State::Literal
            }
            State::Text if byte == b'\\' => match bytes.next() {
                Some(_) => State::Text,
                None => return Err(format!("`{text}` ends in a `\\`")),
            },
            state => state
                .after(byte)
                .ok_or_else(|| format!("the arguments of a variable in `{text}` are not a list of texts"))?,
        };
    }
    if state == State::Literal {
        return Ok(());
    }
    Err(format!(
        "`{text}` has a `%` that opens a variable and is never closed"
    ))
}

/// Where in `literal %VARIABLE(["text", ..])% literal` the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Literal,
    Variable,
    Arguments,
    BeforeText,
    Text,
    AfterText,
    BeforeParenthesis,
    BeforePercent,
}

impl State {
    /// The next state; `None` where the byte cannot stand there.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Literal | Self::Variable, b'%') => {
                if self == Self::Literal {
                    Self::Variable
                } else {
                    Self::Literal
                }
            }
            (Self::Variable, b'(') => Self::Arguments,
            (Self::Arguments, b'[') | (Self::AfterText, b',') => Self::BeforeText,
            (Self::Arguments, byte) if byte != b' ' => Self::Text,
            (Self::BeforeText, b'"') => Self::Text,
            (Self::Text, b')') | (Self::BeforeParenthesis, b')') => Self::BeforePercent,
            (Self::Text, b'"') => Self::AfterText,
            (Self::AfterText, b']') => Self::BeforeParenthesis,
            (Self::BeforePercent, b'%') => Self::Literal,
            (Self::Literal | Self::Variable | Self::Text, _) | (_, b' ') => self,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_is_doubled_or_opens_a_variable() {
        let fine = [
            "",
            "foo",
            "%HOSTNAME%",
            "100%%",
            "prefix %HOSTNAME% suffix",
            "%PER_REQUEST_STATE(key)%",
            "%DOWNSTREAM_PEER_CERT_V_END(%b %d %H:%M:%S %Y %Z)%",
            "%UPSTREAM_METADATA([\"a\", \"b\"])%",
            "a\tb",
        ];
        for text in fine {
            assert_eq!(value(text), Ok(()), "{text}");
        }
        let wrong = [
            "abc%123",
            "%START_TIME%%",
            "%A(\\",
            "%A([\"x\" \"y\"])%",
            "%A([x])%",
            "%A(x",
            "%A(x)y%",
            "a\u{1}b",
        ];
        for text in wrong {
            assert!(value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn claims_are_matched_like_headers() {
        for name in [
            "@request.auth.claims.sub",
            "@Request.Auth.Claims[a][b]",
            ":path",
            "x-a",
            "funky!$#_",
        ] {
            assert_eq!(matched_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "::",
            "illegal\"char",
            "@request.auth.claims",
            "@request.auth.claims[]",
        ] {
            assert!(matched_name(name).is_err(), "{name}");
        }
        assert!(set_name("Host", false).is_err() && set_name("Host", true).is_ok());
    }
}
