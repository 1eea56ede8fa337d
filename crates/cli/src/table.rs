//! Tables as `kubectl` draws them: two spaces between columns, upper-case heads, no wrapping.

use anstyle::{AnsiColor, Style};

use crate::text::clean;

/// What a cell says beside its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
}

impl Mood {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }

    /// The text in its colour.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        if !colour || self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// A cell: one line, cleaned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    text: String,
    mood: Mood,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>, mood: Mood) -> Self {
        let text = text.as_ref();
        Self {
            text: if text.is_empty() {
                "-".to_owned()
            } else {
                clean(text).into_owned()
            },
            mood,
        }
    }

    /// Nothing at all, not even the sign for it: for the lines that go on below a row.
    pub(crate) fn blank() -> Self {
        Self {
            text: String::new(),
            mood: Mood::Plain,
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Mood::Plain)
    }
}

/// Rows under heads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<'h>(heads: impl IntoIterator<Item = &'h str>) -> Self {
        Self {
            heads: heads.into_iter().map(str::to_owned).collect(),
            rows: Vec::new(),
        }
    }

    /// Rows under nothing.
    pub(crate) fn bare() -> Self {
        Self::new([])
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each with its break; trailing spaces are left out.
    pub(crate) fn render(&self, colour: bool) -> String {
        let heads: Vec<Cell> = self.heads.iter().map(Cell::from).collect();
        let lines = || {
            (!heads.is_empty())
                .then_some(&heads)
                .into_iter()
                .chain(&self.rows)
        };
        let columns = lines().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(Cell::width).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut out = String::new();
        for line in lines() {
            let last = line.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate().take(last + 1) {
                out.push_str(&cell.mood.paint(&cell.text, colour));
                if column < last {
                    let gap = width.saturating_sub(cell.width()) + 2;
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(vec!["a-long-name".into(), Cell::new("rejected", Mood::Bad)]);
        table.row(vec![Cell::blank(), "\u{1b}[2J".into()]);
        table.row(vec!["é".into(), "".into()]);
        table
    }

    #[test]
    fn columns_stand_under_their_heads_and_nothing_is_obeyed() {
        let wanted = "NAME         STATE\na-long-name  rejected\n             \\u{1b}[2J\né            -\n";
        assert_eq!(table().render(false), wanted);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let shown = table().render(true);
        assert!(
            shown.contains("a-long-name  \u{1b}[31mrejected\u{1b}[0m\n"),
            "{shown:?}"
        );
    }
}
