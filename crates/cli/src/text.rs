//! Text from elsewhere, made safe for a terminal and for whoever reads it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whether a character could move the cursor, hide text, or turn its direction.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// The text on one line, nothing in it that a terminal would obey.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// As [`clean`], for a line that a program printed: tabs stay.
pub(crate) fn clean_line(line: &str) -> Cow<'_, str> {
    escaped(line, |c| c == '\t')
}

/// As [`clean`], with its lines.
pub(crate) fn clean_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| is_dangerous(c) && !keep(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' if bad(c) => out.extend(c.escape_default()),
            c if bad(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A value as JSON of several lines; in its strings nothing that a terminal would obey.
///
/// # Errors
/// The value has a map whose keys are no strings.
pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(harmless(&serde_json::to_string_pretty(value)?))
}

/// As [`json`], on one line.
///
/// # Errors
/// As [`json`].
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(harmless(&serde_json::to_string(value)?))
}

/// Escapes what JSON may hold as it is. Between strings there are no such characters but line breaks, and inside them
/// a line break never stands as it is.
pub(crate) fn harmless(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_dangerous(c) && c != '\n' {
            // All of them are below U+10000. Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Unix seconds as RFC 3339; the number where it is no time.
pub(crate) fn time(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}

/// `1 pod`, `2 pods`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let cases = [
            ("plain, Ünï ✓", "plain, Ünï ✓"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ];
        for (given, shown) in cases {
            assert_eq!(clean(given), shown);
        }
        assert_eq!(clean_line("a\tb\nc"), "a\tb\\nc");
        assert_eq!(clean_lines("a\tb\nc\u{7}"), "a\tb\nc\\u{7}");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(1_767_225_600), "2026-01-01T00:00:00Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    proptest! {
        #[test]
        fn nothing_dangerous_is_left_and_json_means_the_same(text in any::<String>()) {
            prop_assert!(!clean(&text).contains(is_dangerous));
            let shown = json(&[&text]).unwrap();
            prop_assert!(!shown.contains(|c| is_dangerous(c) && c != '\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), vec![text.clone()]);
            prop_assert!(!json_line(&text).unwrap().contains(is_dangerous));
        }
    }
}
