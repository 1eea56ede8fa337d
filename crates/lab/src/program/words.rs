//! A text as a list of words, as a shell would split it, and nothing else that a shell does.

/// Splits at white space; `'...'`, `"..."` and `\` quote.
///
/// # Errors
/// A quote is not closed, or nothing follows the last `\`.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => quoted(&mut chars, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut chars, '"', word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or("nothing follows the last `\\`")?;
                word.get_or_insert_default().push(next);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Result<(), String> {
    let open = || format!("a `{quote}` is not closed");
    loop {
        match chars.next().ok_or_else(open)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = chars.next().ok_or_else(open)?;
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, expect) in [
            ("", &[][..]),
            ("  a  b ", &["a", "b"]),
            ("a 'b c' d", &["a", "b c", "d"]),
            (r#""a \"b\" \n" c"#, &[r#"a "b" \n"#, "c"]),
            (r"a\ b ''", &["a b", ""]),
            ("sh -c 'echo \"$X\"'", &["sh", "-c", "echo \"$X\""]),
        ] {
            assert_eq!(split(text).unwrap(), expect, "{text}");
        }
        for text in ["'a", "\"a", "a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
