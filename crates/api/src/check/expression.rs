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

/// Words that are kept for what may come.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
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
    let quotes = ["\"\"\"", "'''", "\"", "'"];
    let quote = quotes.into_iter().find(|quote| inner.starts_with(quote))?;
    if before > 2 {
        return None;
    }
    let text = inner.strip_prefix(quote)?;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if text.get(at..)?.starts_with(quote) {
            return Some(before + quote.len() + at + quote.len());
        } else if c == '\n' && quote.len() == 1 {
            return None;
        } else {
            escaped = c == '\\' && !raw;
        }
    }
    None
}

/// The length of a number at the beginning: `1`, `1u`, `0x1F`, `1.5e-3`. What follows is another token.
fn number(rest: &str) -> usize {
    let digits = |text: &str, radix: u32| text.chars().take_while(|c| c.is_digit(radix)).count();
    let after = |at: usize| rest.get(at..).unwrap_or_default();
    let hex = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"));
    if let Some(hex) = hex.filter(|hex| digits(hex, 16) > 0) {
        let length = 2 + digits(hex, 16);
        return length + usize::from(after(length).starts_with(['u', 'U']));
    }
    let mut length = digits(rest, 10);
    let fraction = after(length).strip_prefix('.').map_or(0, |text| digits(text, 10));
    if fraction > 0 {
        length += 1 + fraction;
    }
    if let Some(power) = after(length).strip_prefix(['e', 'E']) {
        let sign = usize::from(power.starts_with(['+', '-']));
        let count = digits(power.get(sign..).unwrap_or_default(), 10);
        if count > 0 {
            return length + 1 + sign + count;
        }
    }
    length + usize::from(fraction == 0 && after(length).starts_with(['u', 'U']))
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
        if self.eat("!") {
            while self.eat("!") {}
        } else {
            while self.eat("-") {}
        }
        match self.take()? {
            Token::Literal => {}
            Token::Name(name) if name == "in" || RESERVED.contains(&name) => return None,
            Token::Name(_) => {}
            Token::Sign("(") => {
                self.expression()?;
                self.need(")")?;
            }
            Token::Sign("[") => self.entries("]", false)?,
            Token::Sign("{") => self.entries("}", true)?,
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
                self.arguments()?;
            } else if self.eat("{") {
                self.entries("}", true)?;
            } else {
                return Some(());
            }
        }
    }

    fn name(&mut self) -> Option<()> {
        let named =
            |token| matches!(token, Token::Name(name) if !matches!(name, "in" | "true" | "false" | "null"));
        named(self.take()?).then_some(())
    }

    fn arguments(&mut self) -> Option<()> {
        if self.eat(")") {
            return Some(());
        }
        self.expression()?;
        while self.eat(",") {
            self.expression()?;
        }
        self.need(")")
    }

    /// Of a list or a map; a comma may end them.
    fn entries(&mut self, end: &str, pairs: bool) -> Option<()> {
        while !self.eat(end) {
            if self.eat(",") {
                return self.need(end);
            }
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
