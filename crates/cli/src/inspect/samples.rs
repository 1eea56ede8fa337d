//! Samples of OpenMetrics text, as far as the command line asks for them. Pure.

use std::collections::BTreeMap;

/// One line: a name, its labels, its value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sample<'t> {
    pub(crate) name: &'t str,
    pub(crate) labels: BTreeMap<&'t str, String>,
    pub(crate) value: f64,
}

impl Sample<'_> {
    /// The value of a label; empty where it has none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The samples of a text; a line that is none is passed over.
pub(crate) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp or an exemplar may follow.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        rest = rest.strip_prefix(',').unwrap_or(rest);
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        rest = loop {
            match characters.next()? {
                (at, '"') => break quoted.get(at + 1..)?,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        found.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_labels_and_a_number() {
        let text = "# HELP a b\nup 1\na_total{x=\"1\",y=\"q\\\"u\\\\o\\nte,}\"} 2.5\nbroken{x=\"1\nnone{} x\nb{} 3 # {t=\"1\"} 4\n";
        let found: Vec<_> = samples(text).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[0].name, found[0].value), ("up", 1.0));
        assert_eq!(found[1].label("y"), "q\"u\\o\nte,}");
        assert_eq!(found[1].label("z"), "");
        assert_eq!((found[2].name, found[2].value), ("b", 3.0));
    }
}
