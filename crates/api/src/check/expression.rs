//! Whether a text is an expression of CEL, by its syntax: what filters of access logs are written in.

use crate::forms::Verdict;

/// The longest expression that is read, in bytes.
const MAX: usize = 16 * 1024;
/// How deep parentheses and operators may nest.
const MAX_DEPTH: usize = 64;

/// Nothing, or why it is none.
pub(super) fn cel(text: &str) -> Verdict {
    if text.len() > MAX {
        return Err(format!("the expression has more than {MAX} bytes"));
    }
    let tokens = tokens(text).ok_or_else(|| format!("`{text}` is not an expression of CEL"))?;
    let mut reader = Reader {
        tokens: &tokens,
        depth: 0,
    };
    if reader.expression().is_some() && reader.tokens.is_empty() {
        return Ok(());
    }
    Err(format!("`{text}` is not an expression of CEL"))
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'t> {
    /// A number, a text, bytes.
    Literal,
    Name(&'t str),
    Sign(&'t str),
}

const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")", "[", "]",
    "{", "}", ",", ".",
];

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut rest = text.trim_start();
    let mut out = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = quoted(rest) {
            out.push(Token::Literal);
            length
        } else if first.is_ascii_digit() {
            out.push(Token::Literal);
            number(rest)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            out.push(Token::Name(rest.get(..length)?));
            length
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
            out.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest.get(length..)?.trim_start();
    }
    Some(out)
}

/// The length of a text in quotes at the beginning, with `r` or `b` before it where there is one.
fn quoted(rest: &str) -> Option<usize> {
    let inner = rest.trim_start_matches(['r', 'R', 'b', 'B']);
    let before = rest.len() - inner.len();
    let raw = rest.get(..before)?.contains(['r', 'R']);
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if before > 2 {
        return None;
    }
    let mut escaped = false;
    for (at, c) in inner.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if !raw => escaped = true,
            c if c == quote => return Some(before + at + 1),
            _ => {}
        }
    }
    None
}

fn number(rest: &str) -> usize {
    let mut last = ' ';
    rest.find(|c: char| {
        let part =
            c.is_ascii_alphanumeric() || c == '.' || matches!(c, '+' | '-') && matches!(last, 'e' | 'E');
        last = c;
        !part
    })
    .unwrap_or(rest.len())
}

struct Reader<'a, 't> {
    tokens: &'a [Token<'t>],
    depth: usize,
}

impl<'t> Reader<'_, 't> {
    fn take(&mut self) -> Option<Token<'t>> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = self.tokens.first() == Some(&Token::Sign(sign));
        if there {
            self.take();
        }
        there
    }

    fn need(&mut self, sign: &str) -> Option<()> {
        self.eat(sign).then_some(())
    }

    /// Operands between operators, and `a ? b : c`. Which operator binds more closely does not matter here.
    fn expression(&mut self) -> Option<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.operand()?;
        while self.operator() {
            self.operand()?;
        }
        if self.eat("?") {
            self.expression()?;
            self.need(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Some(())
    }

    fn operator(&mut self) -> bool {
        let signs = [
            "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%",
        ];
        if self.tokens.first() == Some(&Token::Name("in")) {
            self.take();
            return true;
        }
        signs.iter().any(|sign| self.eat(sign))
    }

    fn operand(&mut self) -> Option<()> {
        while self.eat("!") || self.eat("-") {}
        match self.take()? {
            Token::Literal => {}
            Token::Name("in") => return None,
            Token::Name(_) => {}
            Token::Sign("(") => {
                self.expression()?;
                self.need(")")?;
            }
            Token::Sign("[") => self.list("]", false)?,
            Token::Sign("{") => self.list("}", true)?,
            Token::Sign(".") => {
                self.name()?;
            }
            Token::Sign(_) => return None,
        }
        loop {
            if self.eat(".") {
                self.name()?;
            } else if self.eat("[") {
                self.expression()?;
                self.need("]")?;
            } else if self.eat("(") {
                self.list(")", false)?;
            } else if self.eat("{") {
                self.list("}", true)?;
            } else {
                return Some(());
            }
        }
    }

    fn name(&mut self) -> Option<()> {
        matches!(self.take()?, Token::Name(_)).then_some(())
    }

    fn list(&mut self, end: &str, pairs: bool) -> Option<()> {
        while !self.eat(end) {
            self.expression()?;
            if pairs {
                self.need(":")?;
                self.expression()?;
            }
            if !self.eat(",") {
                return self.need(end);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::cel;

    #[test]
    fn expressions_are_told_from_what_is_none() {
        let fine = [
            "response.code",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "response.code >= 400 || !has(request.headers[\"x\\\"y\"])",
            "a ? b : c",
            "x in [1, 2.5e-3, 0x1F]",
            "size({'a': 1}) == 1u && -1 < y",
        ];
        for text in fine {
            assert_eq!(cel(text), Ok(()), "{text}");
        }
        let wrong = [
            "", ")++++", "a &&", "(a", "a b", "'x", "a.1", "f(,)", "{'a'}", "a ? b", "#",
        ];
        for text in wrong {
            assert!(cel(text).is_err(), "{text}");
        }
        assert!(cel(&"(".repeat(10_000)).is_err());
    }
}
