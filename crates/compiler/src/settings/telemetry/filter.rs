//! Filters of access logs: an expression of CEL, as far as it is acted on. That it is CEL at all has been seen to when it was read.

use snapshot::{ATTRIBUTES, Attribute, AttributeKind, Comparison, Datum, LogFilter, TextTest};

/// How deep an expression may nest.
const MAX_DEPTH: usize = 32;

/// Reads an expression.
///
/// # Errors
/// What of it is not acted on, in words.
pub(super) fn read(text: &str) -> Result<LogFilter, String> {
    let tokens = tokens(text)?;
    let mut reader = Reader {
        tokens: &tokens,
        depth: 0,
    };
    let filter = reader.any()?;
    match reader.tokens.first() {
        None => Ok(filter),
        Some(token) => Err(format!("`{token}` is not acted on there")),
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Number(i64),
    Text(String),
    /// `response.code`, `has`, `true`.
    Name(String),
    Sign(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Name(name) => f.write_str(name),
            Self::Sign(sign) => f.write_str(sign),
        }
    }
}

const SIGNS: [&str; 14] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut rest = text.trim_start();
    let mut out = Vec::new();
    while let Some(first) = rest.chars().next() {
        let taken = if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            out.push(Token::Sign(sign));
            sign.len()
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let digits = rest.get(..end).unwrap_or_default();
            let after = rest.get(end..).unwrap_or_default().chars().next();
            let whole = after.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '.');
            let number = digits.parse().ok().filter(|_| whole);
            out.push(Token::Number(
                number.ok_or_else(|| format!("`{rest}` is no whole number"))?,
            ));
            end
        } else if matches!(first, '\'' | '"') {
            let inner = rest.get(1..).unwrap_or_default();
            let end = inner.find(first).ok_or("a text does not end")?;
            let text = inner.get(..end).unwrap_or_default();
            if text.contains('\\') || (text.is_empty() && inner.starts_with(&format!("{first}{first}"))) {
                return Err("escapes in texts are not acted on".to_owned());
            }
            out.push(Token::Text(text.to_owned()));
            end + 2
        } else if first.is_ascii_alphabetic() || first == '_' {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            out.push(Token::Name(rest.get(..end).unwrap_or_default().to_owned()));
            end
        } else {
            return Err(format!("`{first}` is not acted on"));
        };
        rest = rest.get(taken..).unwrap_or_default().trim_start();
    }
    Ok(out)
}

struct Reader<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self) -> Result<Token, String> {
        let (first, rest) = self.tokens.split_first().ok_or("it ends too early")?;
        self.tokens = rest;
        Ok(first.clone())
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = matches!(self.tokens.first(), Some(Token::Sign(own)) if *own == sign);
        if there {
            let _ = self.take();
        }
        there
    }

    fn need(&mut self, sign: &str) -> Result<(), String> {
        match self.eat(sign) {
            true => Ok(()),
            false => Err(format!(
                "`{sign}` is missing, or what stands there is not acted on"
            )),
        }
    }

    fn any(&mut self) -> Result<LogFilter, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it nests deeper than {MAX_DEPTH}"));
        }
        let mut parts = vec![self.all()?];
        while self.eat("||") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(one_or(parts, LogFilter::Any))
    }

    fn all(&mut self) -> Result<LogFilter, String> {
        let mut parts = vec![self.relation()?];
        while self.eat("&&") {
            parts.push(self.relation()?);
        }
        Ok(one_or(parts, LogFilter::All))
    }

    fn relation(&mut self) -> Result<LogFilter, String> {
        if self.eat("!") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(format!("it nests deeper than {MAX_DEPTH}"));
            }
            let negated = self.negatable()?;
            self.depth -= 1;
            return Ok(LogFilter::Not(Box::new(negated)));
        }
        self.operand()
    }

    /// What `!` may stand before: it binds closer than a comparison.
    fn negatable(&mut self) -> Result<LogFilter, String> {
        if self.eat("!") {
            return Err("`!!` is not acted on".to_owned());
        }
        let before = self.tokens;
        let operand = self.operand()?;
        match (before.first(), &operand) {
            (Some(Token::Sign("(")), _) => Ok(operand),
            (_, LogFilter::Compare(..) | LogFilter::In(..)) => Err("`!` before a comparison".to_owned()),
            _ => Ok(operand),
        }
    }

    fn operand(&mut self) -> Result<LogFilter, String> {
        match self.take()? {
            Token::Sign("(") => {
                let inner = self.any()?;
                self.need(")")?;
                Ok(inner)
            }
            Token::Name(name) if name == "true" || name == "false" => Ok(LogFilter::Constant(name == "true")),
            Token::Name(name) if name == "has" => {
                self.need("(")?;
                let attribute = self.attribute()?;
                self.need(")")?;
                Ok(LogFilter::Has(attribute))
            }
            Token::Name(name) => self.of_name(&name),
            literal @ (Token::Number(_) | Token::Text(_)) => {
                let how = self.comparison().ok_or("a value alone says nothing")?;
                let attribute = self.attribute()?;
                compare(attribute, flipped(how), datum(literal)?)
            }
            Token::Sign(sign) => Err(format!("`{sign}` is not acted on there")),
        }
    }

    fn attribute(&mut self) -> Result<Attribute, String> {
        match self.take()? {
            Token::Name(name) => attribute(&name).ok_or_else(|| format!("`{name}` is not known here")),
            other => Err(format!("`{other}` is no attribute")),
        }
    }

    /// What begins with a name: an attribute, or something asked of its text.
    fn of_name(&mut self, name: &str) -> Result<LogFilter, String> {
        let unknown = || format!("`{name}` is not known here");
        if self.eat("(") {
            let (of, test) = name.rsplit_once('.').ok_or_else(unknown)?;
            let test = match test {
                "startsWith" => TextTest::StartsWith,
                "endsWith" => TextTest::EndsWith,
                "contains" => TextTest::Contains,
                _ => return Err(unknown()),
            };
            let of = attribute(of).ok_or_else(unknown)?;
            let Token::Text(text) = self.take()? else {
                return Err(format!("`{name}` wants a text"));
            };
            self.need(")")?;
            return match of.kind() {
                AttributeKind::Text => Ok(LogFilter::Text(of, test, text)),
                _ => Err(format!("`{name}` is asked of what is no text")),
            };
        }
        let of = attribute(name).ok_or_else(unknown)?;
        if matches!(self.tokens.first(), Some(Token::Name(word)) if word == "in") {
            self.take()?;
            self.need("[")?;
            let mut list = Vec::new();
            while !self.eat("]") {
                let value = self.take()?;
                list.push(typed(of, datum(value)?)?);
                if !self.eat(",") {
                    self.need("]")?;
                    break;
                }
            }
            return Ok(LogFilter::In(of, list));
        }
        match self.comparison() {
            Some(how) => {
                let value = self.take()?;
                compare(of, how, datum(value)?)
            }
            None if of.kind() == AttributeKind::Flag => Ok(LogFilter::Is(of)),
            None => Err(format!("`{name}` alone is neither true nor false")),
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let all = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        all.into_iter()
            .find(|(sign, _)| self.eat(sign))
            .map(|(_, how)| how)
    }
}

fn one_or(mut parts: Vec<LogFilter>, several: fn(Vec<LogFilter>) -> LogFilter) -> LogFilter {
    match (parts.pop(), parts.is_empty()) {
        (Some(one), true) => one,
        (last, _) => {
            parts.extend(last);
            several(parts)
        }
    }
}

fn attribute(name: &str) -> Option<Attribute> {
    let mut all = ATTRIBUTES.iter();
    all.find(|(own, _)| *own == name).map(|(_, attribute)| *attribute)
}

fn datum(token: Token) -> Result<Datum, String> {
    match token {
        Token::Number(number) => Ok(Datum::Number(number)),
        Token::Text(text) => Ok(Datum::Text(text)),
        Token::Name(name) if name == "true" || name == "false" => Ok(Datum::Flag(name == "true")),
        other => Err(format!("`{other}` is no value that is acted on")),
    }
}

fn compare(attribute: Attribute, how: Comparison, with: Datum) -> Result<LogFilter, String> {
    Ok(LogFilter::Compare(attribute, how, typed(attribute, with)?))
}

fn typed(attribute: Attribute, value: Datum) -> Result<Datum, String> {
    match value.kind() == attribute.kind() {
        true => Ok(value),
        false => Err("a value is compared with what is of another type".to_owned()),
    }
}

fn flipped(how: Comparison) -> Comparison {
    match how {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it admits a request that was answered with 404 over mutual TLS.
    fn admits(text: &str) -> bool {
        let filter = read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        filter.admits(&|attribute| match attribute {
            Attribute::ResponseCode => Some(Datum::Number(404)),
            Attribute::RequestUrlPath => Some(Datum::Text("/a/v1beta3".to_owned())),
            Attribute::ConnectionMtls => Some(Datum::Flag(true)),
            _ => None,
        })
    }

    #[test]
    fn what_filters_are_mostly_written_in() {
        for (text, expect) in [
            ("response.code >= 400", true),
            ("400 <= response.code", true),
            ("response.code >= 500", false),
            ("response.code >= 500 || response.code == 404", true),
            ("connection.mtls && request.url_path.contains('v1beta3')", true),
            ("!connection.mtls", false),
            ("!(response.code < 400) && has(response.code)", true),
            ("!has(request.method)", true),
            ("response.code in [403, 404]", true),
            ("response.code != 404 || connection.mtls == true", true),
            ("response.code >= 400 && request.method == \"GET\"", false),
            ("true", true),
            (
                "response.code == 404 && response.code == 1 || connection.mtls",
                true,
            ),
        ] {
            assert_eq!(admits(text), expect, "{text}");
        }
    }

    #[test]
    fn what_is_not_acted_on_is_said() {
        for text in [
            "request.headers['x'] == 'y'",
            "response.code / 100 == 5",
            "response.flags == 0",
            "response.code",
            "response.code == '404'",
            "size(request.path) > 3",
            "request.duration > duration('1s')",
            "response.code ? true : false",
            "!response.code == 404",
            "request.path.matches('a.*')",
            "xds.route_name == 'x'",
            "1.5 < response.code",
            "'a\\'b' == request.path",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"(".repeat(100)).is_err());
        assert!(read(&"!".repeat(100)).is_err());
    }
}
