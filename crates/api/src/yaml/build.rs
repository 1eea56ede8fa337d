//! Parser events to trees.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StrInput};

use super::{Data, Document, Key, MAX_DEPTH, MAX_NODES, Node, scalar};
use crate::problem::Span;
use crate::report::Report;

/// What to do about too much nesting.
const FLATTER: &str = "write it flatter: nothing that is read here nests so deep";

/// Reads all documents of a text. A document with broken syntax is reported and left out; reading goes on
/// at the next `---`.
pub(crate) fn documents(text: &str, report: &mut Report<'_>) -> Vec<Document> {
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder {
        parser,
        report,
        text,
        anchors: HashMap::new(),
        nodes: 0,
        fault: None,
    };
    let mut out = Vec::new();
    loop {
        match builder.document() {
            Ok(Some(document)) => out.push(document),
            Ok(None) => return out,
            Err(Stop::File) => return out,
            Err(Stop::Document) => match builder.parser.proceed_next_document() {
                Ok(true) => {}
                Ok(false) | Err(_) => return out,
            },
        }
    }
}

/// Why reading stopped; reported already.
enum Stop {
    /// The next document may be fine.
    Document,
    /// There is no point in going on.
    File,
}

struct Anchored {
    node: Node,
    size: usize,
    height: usize,
}

struct Builder<'t, 'r, 's> {
    parser: Parser<'t, StrInput<'t>>,
    report: &'r mut Report<'s>,
    text: &'t str,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    fault: Option<String>,
}

impl<'t> Builder<'t, '_, '_> {
    fn next(&mut self) -> Result<Option<(Event<'t>, granit_parser::Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(next)) => Ok(Some(next)),
            Some(Err(error)) => {
                self.syntax(&error);
                Err(Stop::Document)
            }
        }
    }

    /// The next document; documents that hold nothing are passed over.
    fn document(&mut self) -> Result<Option<Document>, Stop> {
        self.anchors.clear();
        self.fault = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamEnd => return Ok(None),
                event if event.is_node() => {
                    let root = self.node(event, span, 0)?;
                    if root.is_null() {
                        continue;
                    }
                    return Ok(Some(Document {
                        root,
                        fault: self.fault.take(),
                    }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn node(&mut self, event: Event<'t>, at: granit_parser::Span, depth: usize) -> Result<Node, Stop> {
        let span = self.span(&at);
        if depth > MAX_DEPTH {
            self.report
                .error(
                    "MW0009",
                    span,
                    format!("maps and lists nest more than {MAX_DEPTH} deep"),
                )
                .remedy(FLATTER);
            return Err(Stop::Document);
        }
        self.count(1, span)?;
        let before = self.nodes;
        let anchor = event.anchor_id();
        let node = match event {
            Event::Scalar(text, style, _, tag) => {
                let kept = style != ScalarStyle::Plain && tag.is_none();
                let data = match tag.as_ref().and_then(|tag| tag.core_suffix()) {
                    Some("int" | "float" | "bool" | "null") => scalar::resolve(&text),
                    Some(_) => Data::Text(text.into_owned()),
                    None if kept || tag.is_some() => Data::Text(text.into_owned()),
                    None => scalar::resolve(&text),
                };
                Node { span, data }
            }
            Event::SequenceStart(..) => self.list(span, depth)?,
            Event::MappingStart(..) => self.map(span, depth)?,
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => Node {
                span,
                data: Data::Null,
            },
        };
        if let Some(id) = anchor.filter(|id| *id > 0) {
            let size = self.nodes - before + 1;
            let height = height(&node);
            self.count(size, span)?;
            self.anchors.insert(
                id,
                Anchored {
                    node: node.clone(),
                    size,
                    height,
                },
            );
        }
        Ok(node)
    }

    fn list(&mut self, mut span: Span, depth: usize) -> Result<Node, Stop> {
        let mut items = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let begin = at.start.byte_offset();
            let item = self.node(event, at, depth + 1)?;
            items.push(match begin.and_then(|begin| self.ends_in_colon(&item, begin)) {
                Some(text) => Node {
                    span: item.span,
                    data: Data::Text(text),
                },
                None => item,
            });
        }
        span.length = span.length.max(1);
        Ok(Node {
            span,
            data: Data::List(items),
        })
    }

    /// `[1.2.3.4, 2001:db8::]`: YAML 1.2 reads the last as a key without a value; `kubectl` reads the address.
    fn ends_in_colon(&self, item: &Node, begin: usize) -> Option<String> {
        let Data::Map(entries) = &item.data else {
            return None;
        };
        let [(key, value)] = entries.as_slice() else {
            return None;
        };
        let rest = self.text.get(begin..)?.strip_prefix(key.text.as_str())?;
        let text = value.is_null() && rest.strip_prefix(':')?.starts_with([',', ']']);
        text.then(|| format!("{}:", key.text))
    }

    fn map(&mut self, mut span: Span, depth: usize) -> Result<Node, Stop> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut merged: Vec<Node> = Vec::new();
        while let Some((event, at)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = self.node(event, at, depth + 1)?;
            let Some((event, at)) = self.next()? else { break };
            let value = self.node(event, at, depth + 1)?;
            let Some(text) = key_text(&key) else {
                self.report.error(
                    "MW0010",
                    key.span,
                    format!("a key must be text, and this is {}", key.what()),
                );
                return Err(Stop::Document);
            };
            if merge {
                merged.push(value);
            } else if seen.insert(text.clone()) {
                entries.push((Key { text, span: key.span }, value));
            } else {
                self.duplicate(&text, key.span, &entries);
            }
        }
        for source in merged {
            self.merge(source, &mut entries, &mut seen);
        }
        if let Some((key, _)) = entries.first()
            && (key.span.line, key.span.column) == (span.line, span.column)
        {
            span.length = key.span.length;
        }
        span.length = span.length.max(1);
        Ok(Node {
            span,
            data: Data::Map(entries),
        })
    }

    fn merge(&mut self, source: Node, entries: &mut Vec<(Key, Node)>, seen: &mut HashSet<String>) {
        match source.data {
            Data::Map(from) => {
                for (key, value) in from {
                    if seen.insert(key.text.clone()) {
                        entries.push((key, value));
                    }
                }
            }
            Data::List(items) => {
                for item in items {
                    match item.data {
                        Data::Map(_) => self.merge(item, entries, seen),
                        _ => self.bad_merge(item.span),
                    }
                }
            }
            _ => self.bad_merge(source.span),
        }
    }

    fn bad_merge(&mut self, span: Span) {
        let message = "`<<` takes a map or a list of maps";
        self.fault.get_or_insert_with(|| message.to_owned());
        self.report.error("MW0010", span, message);
    }

    fn duplicate(&mut self, text: &str, span: Span, entries: &[(Key, Node)]) {
        let first = entries.iter().find(|(key, _)| key.text == text);
        let line = first.map_or(0, |(key, _)| key.span.line);
        let message = format!("key `{text}` is written twice in the same map, first on line {line}");
        self.fault.get_or_insert_with(|| message.clone());
        self.report
            .error("MW0007", span, message)
            .value(text)
            .remedy("keep one of the two: which one would win is not defined");
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, Stop> {
        let Some(anchored) = self.anchors.get(&id) else {
            self.report
                .error(
                    "MW0011",
                    span,
                    "an alias stands inside the very node that it names",
                )
                .remedy("write the value out");
            return Err(Stop::Document);
        };
        let (size, height) = (anchored.size, anchored.height);
        if depth + height > MAX_DEPTH {
            self.report
                .error(
                    "MW0009",
                    span,
                    format!("maps and lists nest more than {MAX_DEPTH} deep once this alias is expanded"),
                )
                .remedy(FLATTER);
            return Err(Stop::Document);
        }
        self.count(size, span)?;
        Ok(self.anchors.get(&id).map_or(
            Node {
                span,
                data: Data::Null,
            },
            |anchored| anchored.node.clone(),
        ))
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        self.report
            .error(
                "MW0008",
                span,
                format!("the file has more than {MAX_NODES} values once its aliases are expanded"),
            )
            .remedy("write the values out, or split the file");
        Err(Stop::File)
    }

    fn span(&self, at: &granit_parser::Span) -> Span {
        let written = at.slice(self.text).unwrap_or_default();
        let first = written.split(['\n', '\r']).next().unwrap_or_default();
        let length = first.chars().count();
        Span {
            line: small(at.start.line()),
            column: small(at.start.col() + 1),
            length: small(length),
        }
    }

    fn syntax(&mut self, error: &ScanError) {
        let mark = error.marker();
        let mut span = Span {
            line: small(mark.line()),
            column: small(mark.col() + 1),
            length: 1,
        };
        let mut tab = false;
        let (code, message, remedy) = match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart => {
                tab = true;
                (
                    "MW0003",
                    "a tab is used for indentation, and YAML takes only spaces there".to_owned(),
                    Some("replace each tab by spaces"),
                )
            }
            ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => (
                "MW0004",
                "a quote is opened here and never closed".to_owned(),
                Some("close the quote"),
            ),
            ErrorKind::UnclosedFlowCollection { open } => (
                "MW0004",
                format!("`{open}` is opened here and never closed"),
                Some("close the bracket"),
            ),
            ErrorKind::ExpectedFlowMappingSeparator | ErrorKind::UnexpectedEofFlowMapping => (
                "MW0004",
                "a `{` above this is not closed, or `,` is missing between its entries".to_owned(),
                Some("close it with `}`"),
            ),
            ErrorKind::ExpectedFlowSequenceSeparator | ErrorKind::UnexpectedEofFlowSequence => (
                "MW0004",
                "a `[` above this is not closed, or `,` is missing between its entries".to_owned(),
                Some("close it with `]`"),
            ),
            ErrorKind::RecursionLimitExceeded => (
                "MW0009",
                format!("maps and lists nest more than {MAX_DEPTH} deep"),
                Some(FLATTER),
            ),
            ErrorKind::UnknownAnchor => (
                "MW0011",
                "an alias names an anchor that is not defined above it".to_owned(),
                Some("if no alias is meant, put the value in quotes"),
            ),
            _ => (
                "MW0002",
                format!("this is not YAML: {}", error.info()),
                Some("compare the indentation, quotes and brackets with the lines above"),
            ),
        };
        if span.line == 0 {
            span.line = 1;
        }
        if let Some(column) = first_tab(self.text, span.line).filter(|_| tab) {
            span.column = column;
        }
        let mut draft = self.report.error(code, span, message);
        if let Some(remedy) = remedy {
            draft = draft.remedy(remedy);
        }
        let _ = draft;
    }
}

fn key_text(key: &Node) -> Option<String> {
    match &key.data {
        Data::Text(text) => Some(text.clone()),
        Data::Bool(value, _) => Some(value.to_string()),
        Data::Number(value, _) => Some(value.to_string()),
        Data::Null => Some("null".to_owned()),
        Data::List(_) | Data::Map(_) => None,
    }
}

fn height(node: &Node) -> usize {
    let children: usize = match &node.data {
        Data::List(items) => items.iter().map(height).max().unwrap_or(0),
        Data::Map(entries) => entries.iter().map(|(_, value)| height(value)).max().unwrap_or(0),
        _ => return 0,
    };
    children + 1
}

fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The column of the first tab among the blanks that a line begins with.
fn first_tab(text: &str, line: u32) -> Option<u32> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let mut blanks = text.lines().nth(index)?.chars().take_while(|c| c.is_whitespace());
    blanks.position(|c| c == '\t').map(|at| small(at + 1))
}
