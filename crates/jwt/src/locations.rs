//! Where in a request tokens stand, and how they are taken out of it (semantics 4.1, 4.3).

use crate::fault::Fault;
use crate::request::RequestView;
use crate::spec::RuleSpec;
use crate::token::looks_like_one;

/// The most tokens of one request.
pub const MAX_TOKENS: usize = 8;

/// A place that some rules read.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) place: Place,
    /// Indices of the rules that read it, in their order.
    pub(crate) rules: Vec<usize>,
}

/// A place. Ordered as Envoy looks at them: headers by name and prefix, parameters by name, cookies by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// `key` is name and prefix in one, for the order; the name is in lower case.
    Header {
        key: String,
        name: String,
        prefix: String,
    },
    Param(String),
    Cookie(String),
}

/// A token, or what stands where one ought to.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index of the location.
    pub(crate) location: usize,
    pub(crate) text: Result<String, Fault>,
}

/// The places that rules read, sorted.
#[derive(Debug, Default)]
pub(crate) struct Locations {
    all: Vec<Location>,
    strict: bool,
}

impl Locations {
    /// The places of the rules; the default ones for a rule that names none.
    pub(crate) fn of<'r>(rules: impl Iterator<Item = &'r RuleSpec>, strict: bool) -> Self {
        let mut all: Vec<Location> = Vec::new();
        let mut add = |place: Place, rule: usize| match all.iter_mut().find(|l| l.place == place) {
            Some(known) if known.rules.contains(&rule) => {}
            Some(known) => known.rules.push(rule),
            None => all.push(Location {
                place,
                rules: vec![rule],
            }),
        };
        let header = |name: &str, prefix: &str| {
            let name = name.to_ascii_lowercase();
            Place::Header {
                key: format!("{name}{prefix}"),
                name,
                prefix: prefix.to_owned(),
            }
        };
        for (index, rule) in rules.enumerate() {
            for from in &rule.from_headers {
                add(header(&from.name, &from.prefix), index);
            }
            for name in &rule.from_params {
                add(Place::Param(name.clone()), index);
            }
            for name in &rule.from_cookies {
                add(Place::Cookie(name.clone()), index);
            }
            if rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty() {
                add(header("authorization", "Bearer "), index);
                add(Place::Param("access_token".to_owned()), index);
            }
        }
        all.sort_by(|a, b| a.place.cmp(&b.place));
        Self { all, strict }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Location> {
        self.all.get(index)
    }

    /// All tokens of a request, in the order of the places.
    ///
    /// # Errors
    /// There are more than [`MAX_TOKENS`].
    pub(crate) fn find(&self, request: &dyn RequestView) -> Result<Vec<Found>, Fault> {
        let mut found = Vec::new();
        for (location, Location { place, .. }) in self.all.iter().enumerate() {
            let mut push = |text| {
                found.push(Found { location, text });
                found.len() > MAX_TOKENS
            };
            match place {
                Place::Header { name, prefix, .. } => {
                    request.header(name, &mut |line| {
                        let line = String::from_utf8_lossy(line);
                        let text = if prefix.is_empty() {
                            Some(Ok(&*line))
                        } else if self.strict {
                            after_prefix(name, &line, prefix)
                        } else {
                            after_prefix_anywhere(&line, prefix).map(Ok)
                        };
                        text.is_some_and(|text| push(text.map(str::to_owned)))
                    });
                }
                Place::Param(name) => {
                    let query = request.path().split_once('?').map_or("", |(_, query)| query);
                    let values = pairs(query).filter(|(key, _)| is_name(key, name));
                    for (_, value) in values.take(self.most()) {
                        if push(Ok(unescape(value))) {
                            break;
                        }
                    }
                }
                Place::Cookie(name) => {
                    let mut left = self.most();
                    request.header("cookie", &mut |line| {
                        let line = String::from_utf8_lossy(line);
                        let values = cookies(&line).filter(|(key, _)| key == name);
                        values.take(left).any(|(_, value)| {
                            left -= 1;
                            push(Ok(value.to_owned()))
                        })
                    });
                }
            }
        }
        if found.len() > MAX_TOKENS {
            return Err(Fault::TooMany);
        }
        Ok(found)
    }

    /// How many parameters or cookies of one name count: Istio looks at the first; the application may look at another.
    fn most(&self) -> usize {
        if self.strict { usize::MAX } else { 1 }
    }
}

/// What follows the prefix, in strict mode. The prefix is at the start, in any case; where it is there and no token
/// follows, or it is hidden behind something, the value is at fault and not absent (R24, R40, JW-37, JW-38).
fn after_prefix<'l>(name: &str, line: &'l str, prefix: &str) -> Option<Result<&'l str, Fault>> {
    let line = line.trim_matches([' ', '\t']);
    let scheme = prefix.trim_end_matches([' ', '\t']);
    if let Some(rest) = strip(line, prefix) {
        return Some(Ok(rest.trim_start_matches(' ')));
    }
    let word = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !scheme.is_empty() && strip(line, scheme).is_some_and(|rest| !word(rest)) {
        return Some(Err(Fault::Format));
    }
    let begins = |rest: &str| {
        strip(rest, prefix).is_some()
            || (!scheme.is_empty() && strip(rest, scheme).is_some_and(|rest| !word(rest)))
    };
    let hidden = line.char_indices().any(|(at, c)| {
        let rest = line.get(at + c.len_utf8()..).unwrap_or_default();
        !c.is_ascii_alphanumeric() && begins(rest)
    });
    // Authorization has other schemes, and their credentials are not ours to judge.
    let bare = name != "authorization" && looks_like_one(line);
    (hidden || bare).then_some(Err(Fault::Format))
}

fn strip<'l>(line: &'l str, prefix: &str) -> Option<&'l str> {
    let start = line.get(..prefix.len())?;
    start
        .eq_ignore_ascii_case(prefix)
        .then(|| line.get(prefix.len()..))?
}

/// As Envoy reads it: the prefix anywhere, then everything from the first character that a token may have; all of the
/// value where there is none.
fn after_prefix_anywhere<'l>(line: &'l str, prefix: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(prefix)?;
    let start = rest.find(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    Some(start.and_then(|start| rest.get(start..)).unwrap_or(line))
}

/// The parameters of a query as they stand there.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn is_name(key: &str, name: &str) -> bool {
    key == name || (key.contains('%') && unescape(key) == name)
}

fn unescape(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let mut digit = || ahead.next().and_then(|b| char::from(b).to_digit(16));
        match (byte == b'%').then(|| Some((digit()?, digit()?))).flatten() {
            Some((high, low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                bytes = ahead;
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The cookies of a line (RFC 6265, 5.4); quotes around a value are taken off.
fn cookies(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(';').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
        Some((key.trim(), inner.unwrap_or(value)))
    })
}

/// The path without the parameters of these names, however often and in whatever escapes they occur. What is left stays
/// as it is, byte by byte.
pub(crate) fn without_params(path: &str, names: &[&str]) -> String {
    let Some((before, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
            !names.iter().any(|name| is_name(key, name))
        })
        .collect();
    if kept.is_empty() {
        return before.to_owned();
    }
    format!("{before}?{}", kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r24_jw_37_jw_38_in_strict_mode_the_prefix_is_at_the_start_and_in_any_case() {
        let bad = Some(Err(Fault::Format));
        let rows = [
            ("Bearer T", Some(Ok("T"))),
            ("bearer T", Some(Ok("T"))),
            ("BEARER   T", Some(Ok("T"))),
            ("Bearer", bad),
            ("bearer\tT", bad),
            ("Bearer,T", bad),
            ("Basic x, Bearer T", bad),
            ("Basic x,bearer T", bad),
            ("Basic x, Bearer ", bad),
            ("Basic x, Bearer", bad),
            ("Basic dXNlcjpwYXNz", None),
            ("Bearerx T", None),
            ("Basic forbearer T", None),
            ("", None),
            ("eyJh.eyJh.c2ln", None),
        ];
        for (line, text) in rows {
            assert_eq!(after_prefix("authorization", line, "Bearer "), text, "{line}");
        }
        // A token without its prefix, in a place for tokens (R40).
        assert_eq!(after_prefix("x-jwt", "eyJh.eyJh.c2ln", "Tok "), bad);
        assert_eq!(after_prefix("x-jwt", "something", "Tok "), None);
    }

    #[test]
    fn r24_jw_37_jw_38_as_istio_does_the_prefix_is_anywhere_and_in_its_case() {
        let rows = [
            ("Bearer T.x", Some("T.x")),
            ("bearer T", None),
            ("Bearer", None),
            ("Bearer \"T", Some("T")),
            ("Basic x, Bearer T", Some("T")),
            ("Bearer T, x", Some("T, x")),
            ("Bearer $", Some("Bearer $")),
        ];
        for (line, text) in rows {
            assert_eq!(after_prefix_anywhere(line, "Bearer "), text, "{line}");
        }
    }

    #[test]
    fn a_parameter_is_taken_out_and_the_rest_of_the_path_stays() {
        let rows = [
            ("/a?t=x", "/a"),
            ("/a?t", "/a"),
            ("/a?b=%2F&t=x&c", "/a?b=%2F&c"),
            ("/a?%74=x&b=1&t=y", "/a?b=1"),
            ("/a?b=t", "/a?b=t"),
            ("/a", "/a"),
            ("/t=x", "/t=x"),
            ("/a?", "/a?"),
            ("/a?tt=1&T=2", "/a?tt=1&T=2"),
        ];
        for (path, left) in rows {
            assert_eq!(without_params(path, &["t"]), left, "{path}");
        }
    }

    #[test]
    fn escapes_are_decoded_and_broken_ones_stay() {
        let rows = [
            ("a%2eb", "a.b"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%25%34", "%4"),
        ];
        for (text, plain) in rows {
            assert_eq!(unescape(text), plain, "{text}");
        }
    }

    #[test]
    fn jw_46_cookies_are_found_by_name_with_and_without_quotes() {
        let found: Vec<_> = cookies("a=1; t=\"x.y\";t=z ; b; =q").collect();
        assert_eq!(found, [("a", "1"), ("t", "x.y"), ("t", "z"), ("", "q")]);
    }
}
