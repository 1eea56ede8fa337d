//! Tokens that callers put into the target of a request, kept out of logs.
//!
//! Istio takes a token from the query parameter `access_token` and from those that `fromParams` names (semantics 4.3). A
//! caller's proxy does not know the second: what looks like a token is none of a log's business, whatever its name.

use std::borrow::Cow;

/// What stands in a token's place.
const REDACTED: &str = "REDACTED";

/// Query parameters whose values are secrets, in lower case: RFC 6750 and RFC 6749, OpenID Connect, and what signed
/// addresses are made with.
const SECRET: [&str; 16] = [
    "access_token",
    "id_token",
    "refresh_token",
    "token",
    "jwt",
    "assertion",
    "client_assertion",
    "client_secret",
    "code",
    "password",
    "api_key",
    "apikey",
    "sig",
    "signature",
    "x-amz-signature",
    "x-goog-signature",
];

/// The target with the values of secret parameters, and whatever looks like a JWT, taken out.
pub(crate) fn target(target: &str) -> Cow<'_, str> {
    if is_plain(target.as_bytes()) {
        return Cow::Borrowed(target);
    }
    let (path, query) = match target.split_once('?') {
        None => (target, None),
        Some((path, query)) => (path, Some(query)),
    };
    let secret_path = path.split(['/', ';', '=']).any(looks_like_a_token);
    let secret_query = query.is_some_and(|query| parameters(query).any(|(_, p)| is_secret(p)));
    if !secret_path && !secret_query {
        return Cow::Borrowed(target);
    }
    let mut out = String::with_capacity(target.len());
    for part in path.split_inclusive(['/', ';', '=']) {
        let bare = part.strip_suffix(['/', ';', '=']).unwrap_or(part);
        match looks_like_a_token(bare) {
            true => {
                out.push_str(REDACTED);
                out.push_str(part.strip_prefix(bare).unwrap_or_default());
            }
            false => out.push_str(part),
        }
    }
    let Some(query) = query else {
        return Cow::Owned(out);
    };
    out.push('?');
    for (delimiter, parameter) in parameters(query) {
        out.push_str(delimiter);
        match parameter.split_once('=') {
            Some((name, _)) if is_secret(parameter) => {
                out.push_str(name);
                out.push('=');
                out.push_str(REDACTED);
            }
            None if is_secret(parameter) => out.push_str(REDACTED),
            _ => out.push_str(parameter),
        }
    }
    Cow::Owned(out)
}

/// Whether nothing of it needs a closer look: there is no query, nothing is encoded, and no token begins. Most paths are so.
fn is_plain(target: &[u8]) -> bool {
    let mut last = [0; 2];
    for byte in target {
        match (last, byte) {
            (_, b'?' | b'%') | ([b'e', b'y'], b'J') => return false,
            ([_, before], _) => last = [before, *byte],
        }
    }
    true
}

/// The parameters of a query, each with what stands before it.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(("", query));
    std::iter::from_fn(move || {
        let (delimiter, text) = rest.take()?;
        match text.find(['&', ';']) {
            None => Some((delimiter, text)),
            Some(at) => {
                let (parameter, after) = text.split_at_checked(at)?;
                let (next, after) = after.split_at_checked(1)?;
                rest = Some((next, after));
                Some((delimiter, parameter))
            }
        }
    })
}

fn is_secret(parameter: &str) -> bool {
    match parameter.split_once('=') {
        None => looks_like_a_token(parameter),
        Some((name, value)) => {
            let name = decoded(name).to_ascii_lowercase();
            (!value.is_empty() && SECRET.contains(&name.as_str())) || looks_like_a_token(value)
        }
    }
}

/// A JWS in compact form begins with a JSON object in base64url, and has two dots.
fn looks_like_a_token(text: &str) -> bool {
    if text.len() < 10 {
        return false;
    }
    let text = decoded(text);
    let text = text.rsplit([' ', '+']).next().unwrap_or_default();
    text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() >= 2
}

/// Percent-encoding undone, as far as it is well formed; bytes that are no text become signs for that.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| {
        let digit = char::from(*byte?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let (bytes, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (Some(high), Some(low)) if *byte == b'%' => {
                out.push(high * 16 + low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_no_trace_and_all_else_stays() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
        for (given, expect) in [
            ("/a?b=1".to_owned(), "/a?b=1".to_owned()),
            ("/a?access_token=abc".into(), "/a?access_token=REDACTED".into()),
            (
                "/a?x=1&access_token=abc&y=2".into(),
                "/a?x=1&access_token=REDACTED&y=2".into(),
            ),
            (
                "/a?x=1;Access%5FToken=abc;y".into(),
                "/a?x=1;Access%5FToken=REDACTED;y".into(),
            ),
            (format!("/a?mine={jwt}"), "/a?mine=REDACTED".into()),
            (
                format!("/a?mine={}", jwt.replace('.', "%2E")),
                "/a?mine=REDACTED".into(),
            ),
            (format!("/a?mine=Bearer%20{jwt}"), "/a?mine=REDACTED".into()),
            (format!("/a?{jwt}"), "/a?REDACTED".into()),
            (format!("/reset/{jwt}/x?y"), "/reset/REDACTED/x?y".into()),
            ("/a?access_token=".into(), "/a?access_token=".into()),
            ("/a?access_token".into(), "/a?access_token".into()),
            (
                "/a?access_token=a=b&access_token=c".into(),
                "/a?access_token=REDACTED&access_token=REDACTED".into(),
            ),
            ("/a??".into(), "/a??".into()),
            ("*".into(), "*".into()),
            ("/a?%=%&%4".into(), "/a?%=%&%4".into()),
        ] {
            assert_eq!(target(&given), expect, "{given}");
        }
    }

    #[test]
    fn only_what_may_hold_a_secret_is_looked_at_closely() {
        for (given, plain) in [
            ("/", true),
            ("/api/v1/eye/Jey;x=1", true),
            ("/a?b", false),
            ("/a%20b", false),
            ("/eyJ", false),
            ("/eeyJ", false),
            ("/eyeyJ", false),
        ] {
            assert_eq!(is_plain(given.as_bytes()), plain, "{given}");
        }
    }
}
