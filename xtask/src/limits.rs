//! The table of docs/limits.md that says by which test each limit is reached: each test is there, and each limit is told of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the table begins.
const HEADING: &str = "## Reached by tests";

/// What is amiss with the table.
pub(crate) fn check(root: &Path) -> Vec<String> {
    let text = fs::read_to_string(root.join("docs/limits.md")).unwrap_or_default();
    let mut tests = BTreeSet::new();
    for directory in ["crates", "xtask", "fuzz"] {
        find(&root.join(directory), &mut tests);
    }
    amiss(&text, &tests)
}

fn amiss(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let Some((before, table)) = text.split_once(HEADING) else {
        return vec![format!("docs/limits.md: no section `{HEADING}`")];
    };
    let table = table.split("\n## ").next().unwrap_or_default();
    let told: BTreeSet<&str> = before
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(quoted)
        .collect();
    let mut problems = Vec::new();
    let mut rows = 0;
    for row in table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
    {
        rows += 1;
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let (Some(first), Some(last)) = (cells.first(), cells.last()) else {
            continue;
        };
        for limit in quoted(first).filter(|limit| !told.contains(limit)) {
            problems.push(format!("docs/limits.md: the limit `{limit}` has no row above"));
        }
        if quoted(last).next().is_none() {
            problems.push(format!("docs/limits.md: no test reaches {}", first.trim()));
        }
        for test in quoted(last).filter(|test| !tests.contains(*test)) {
            problems.push(format!("docs/limits.md: there is no test `{test}`"));
        }
    }
    if rows == 0 {
        problems.push("docs/limits.md: no limit is said to be reached".to_owned());
    }
    problems
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of all functions that are tests.
fn find(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                let name = line
                    .strip_prefix("async fn ")
                    .or_else(|| line.strip_prefix("fn "));
                if let Some(name) = name.and_then(|rest| rest.split('(').next())
                    && std::mem::take(&mut is_test)
                {
                    tests.insert(name.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_without_a_row_and_a_test_that_is_not_there_are_found() {
        let tests = BTreeSet::from(["it_is_reached".to_owned()]);
        let text = |limit: &str, test: &str| {
            format!("| `MAX` | 1 |\n\n{HEADING}\n\n| limit | test |\n|---|---|\n| `{limit}` | {test} |\n")
        };
        assert_eq!(amiss(&text("MAX", "`it_is_reached`"), &tests), [""; 0]);
        assert_eq!(amiss(&text("LEAST", "`it_is_reached`"), &tests).len(), 1);
        assert_eq!(amiss(&text("MAX", "`it_was`"), &tests).len(), 1);
        assert_eq!(amiss(&text("MAX", "none"), &tests).len(), 1);
        assert_eq!(amiss("| `MAX` | 1 |", &tests).len(), 1);
    }
}
