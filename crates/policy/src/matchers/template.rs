//! Path templates: `{*}` is one segment, `{**}` any rest (semantics 2.8).

/// Whether a value of `paths` is a template.
pub(crate) fn is_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// Why a value is no template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("`{{` and `}}` stand only in the operators `{{*}}` and `{{**}}`, each a whole segment")]
    Operator,
    #[error("a template has no other wildcard, no `?` and no `#`")]
    Wildcard,
    #[error("behind `{{**}}` only literal segments may stand")]
    Order,
    #[error("a template starts with `/`")]
    Start,
}

#[derive(Debug)]
enum Piece {
    Literal(Box<str>),
    Segment,
}

/// A template, anchored at both ends.
#[derive(Debug)]
pub(crate) struct Template {
    pieces: Box<[Piece]>,
    /// The literal behind `{**}`; `None` where there is no `{**}`.
    rest: Option<Box<str>>,
    /// Which bytes an operator takes.
    operand: fn(u8) -> bool,
}

impl Template {
    /// `every` is whether operators take every byte (R4), or upstream's set.
    ///
    /// # Errors
    /// What is not a template (PT-21 to PT-39).
    pub(crate) fn parse(value: &str, every: bool) -> Result<Self, TemplateError> {
        let mut segments = value.split('/');
        if segments.next() != Some("") {
            return Err(TemplateError::Start);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut open = false;
        for segment in segments {
            literal.push('/');
            match segment {
                "{*}" | "{**}" if open => return Err(TemplateError::Order),
                "{*}" => {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    pieces.push(Piece::Segment);
                }
                "{**}" => {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    open = true;
                }
                _ if segment.contains(['{', '}']) => return Err(TemplateError::Operator),
                _ if segment.contains(['*', '?', '#']) => return Err(TemplateError::Wildcard),
                _ => literal.push_str(segment),
            }
        }
        let rest = if open {
            Some(literal.into())
        } else {
            pieces.push(Piece::Literal(literal.into()));
            None
        };
        Ok(Self {
            pieces: pieces.into(),
            rest,
            operand: if every { |_| true } else { operand },
        })
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut left = path.as_bytes();
        for piece in &self.pieces {
            let length = match piece {
                Piece::Literal(text) if left.starts_with(text.as_bytes()) => text.len(),
                Piece::Literal(_) => return false,
                Piece::Segment => left.iter().position(|b| *b == b'/').unwrap_or(left.len()),
            };
            let Some((taken, tail)) = left.split_at_checked(length) else {
                return false;
            };
            if matches!(piece, Piece::Segment) && !(length > 0 && taken.iter().all(|b| (self.operand)(*b))) {
                return false;
            }
            left = tail;
        }
        match &self.rest {
            None => left.is_empty(),
            Some(literal) => left
                .strip_suffix(literal.as_bytes())
                .is_some_and(|any| any.iter().all(|b| *b == b'/' || (self.operand)(*b))),
        }
    }

    /// The text that everything that matches starts with.
    pub(crate) fn literal_prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }
}

/// The bytes that upstream's operators take; `[`, `]` and `|` are not among them. Envoy 1.40 takes `=` and `*`: seen by
/// `tests/envoy`.
fn operand(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
                | b'='
                | b'*'
        )
}
