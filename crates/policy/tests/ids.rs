//! Every row of the semantics that speaks of decisions is named by a test, or said to belong elsewhere.
//!
//! Rows are named as `AZ-057` or `R15`, and in names of tests as `az_057` or `r15`. A range in a test's name does not
//! count, nor does a comment: a row that fails must be told by its own id.
//!
//! `MESHWARD_SEMANTICS` names the document, else it is looked for beside the conformance sets. Where it is, its own rows
//! are those that count.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test may panic, and reads the sources of tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use regex::Regex;

type Id = (&'static str, u16);

const WANTED: &[(&str, RangeInclusive<u16>)] = &[
    ("AZ", 1..=140),
    ("SM", 1..=44),
    ("RP", 1..=16),
    ("PT", 1..=39),
    ("TD", 1..=15),
    ("N", 1..=396),
    ("JW", 1..=57),
    ("R", 4..=4),
    ("R", 6..=11),
    ("R", 15..=18),
    ("R", 22..=26),
    ("R", 32..=34),
    ("R", 40..=46),
    ("R", 49..=50),
    ("O", 1..=18),
];

/// Rows that a loop makes: the test, and the rows.
const COMPUTED: &[(&str, &str, RangeInclusive<u16>)] = &[("N", "fn n_133_to_388_every_escape()", 133..=388)];

/// Rows that are of other parts, and why no decision of this crate can show them.
const ELSEWHERE: &[(&[Id], &str)] = &[
    (
        &[("AZ", 69)],
        "a gateway's PASSTHROUGH server: there are no gateways; on a connection the rows of 2.11 hold",
    ),
    (
        &[("AZ", 133)],
        "tokens are verified before anything is decided: see 4.6",
    ),
    (
        &[("O", 10), ("O", 11), ("O", 12), ("O", 13)],
        "VirtualService and DestinationRule subsets: not acted on yet",
    ),
    (&[("R", 41)], "names of gateways' servers: there are no gateways"),
    (
        &[("R", 46)],
        "rewriting routes: there are none; each callee's proxy decides what it receives",
    ),
];

/// The sources in which tests may name rows.
const SOURCES: &[&str] = &[
    "policy",
    "api",
    "jwt",
    "compiler",
    "snapshot",
    "http",
    "control",
    "proxy",
    "analysis",
    "telemetry",
    "meshward",
    "extauthz",
    "identity",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of tests below a crate: files of tests, and of others what stands behind `#[cfg(test)]`.
fn tests(dir: &Path, out: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            tests(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("policy/tests/ids.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let whole = path.components().any(|c| c.as_os_str() == "tests") || path.ends_with("tests.rs");
            let part = if whole {
                text.as_str()
            } else {
                text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
            };
            out.push_str(part);
        }
    }
}

/// Without comments, but for those that document a test.
fn without_comments(text: &str) -> String {
    let kept = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.starts_with("//") || (line.starts_with("///") && !line.starts_with("////"))
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Every id in a text, ranges such as `PT-01..08` and `AZ-040..AZ-056` with all that is in them.
fn ids(text: &str) -> BTreeSet<(String, u16)> {
    let id = Regex::new(
        r"(?-u)\b(AZ|SM|RP|PT|TD|N|JW|O)-(\d{2,3})(?:\.\.(?:(?:AZ|SM|RP|PT|TD|N|JW|O)-)?(\d{2,3}))?\b|\bR(\d{1,2})\b",
    )
    .unwrap();
    let mut found = BTreeSet::new();
    for hit in id.captures_iter(text) {
        let of = |at: usize| hit.get(at).map(|m| m.as_str());
        let first: u16 = of(2).or_else(|| of(4)).unwrap().parse().unwrap();
        let last = of(3).map_or(first, |last| last.parse().unwrap());
        let kind = of(1).unwrap_or("R");
        found.extend((first..=last).map(|row| (kind.to_owned(), row)));
    }
    found
}

fn cited(text: &str) -> BTreeSet<(String, u16)> {
    let name = Regex::new(r"(?-u)\bfn (\w+)").unwrap();
    let mut found = ids(text);
    for hit in name.captures_iter(text) {
        let words: Vec<&str> = hit[1].split('_').collect();
        let mut kind = "";
        for (at, word) in words.iter().enumerate() {
            let range = words.get(at + 1) == Some(&"to") || (at > 0 && words[at - 1] == "to");
            let (of, number) = match word.strip_prefix('r') {
                Some(digits) => ("R", digits),
                None => (kind, *word),
            };
            match number.parse() {
                Ok(row) if !range && !of.is_empty() => drop(found.insert((of.to_uppercase(), row))),
                Ok(_) => {}
                Err(_) => {
                    kind = *["az", "sm", "rp", "pt", "td", "n", "jw", "o"]
                        .iter()
                        .find(|k| *k == word)
                        .unwrap_or(&kind)
                }
            }
        }
    }
    found
}

/// The rows of sections 2, 3, 4, 13, 14 and 15 of the document; `None` after saying that it is not there.
fn written() -> Option<BTreeSet<(String, u16)>> {
    let beside = || Some(testkit::conformance::directory()?.join("../design/semantics.md"));
    let path = std::env::var_os("MESHWARD_SEMANTICS")
        .map(PathBuf::from)
        .or_else(beside)?;
    let Ok(text) = fs::read_to_string(&path) else {
        println!(
            "skipped: the rows of the semantics: no document at {} (set MESHWARD_SEMANTICS)",
            path.display()
        );
        return None;
    };
    let heading = Regex::new(r"(?m)^## (\d+)\.").unwrap();
    let starts: Vec<(usize, u16)> = heading
        .captures_iter(&text)
        .map(|hit| (hit.get(0).unwrap().start(), hit[1].parse().unwrap()))
        .collect();
    let mut rows = BTreeSet::new();
    for (at, (start, section)) in starts.iter().enumerate() {
        let end = starts.get(at + 1).map_or(text.len(), |next| next.0);
        if [2, 3, 4, 13, 14, 15].contains(section) {
            // Elsewhere than in its own table, an `R` is a reference.
            let own = |(kind, _): &(String, u16)| kind != "R" || *section == 13;
            rows.extend(ids(&text[*start..end]).into_iter().filter(own));
        }
    }
    Some(rows)
}

#[test]
fn every_row_is_named_by_a_test_or_belongs_elsewhere() {
    let mut text = String::new();
    for name in SOURCES {
        tests(&root().join("crates").join(name), &mut text);
    }
    let text = without_comments(&text);
    let mut named = cited(&text);
    for (kind, test, rows) in COMPUTED {
        assert!(text.contains(test), "there is no test `{test}`");
        named.extend(rows.clone().map(|row| ((*kind).to_owned(), row)));
    }
    let elsewhere: BTreeSet<Id> = ELSEWHERE
        .iter()
        .flat_map(|(ids, _)| ids.iter().copied())
        .collect();
    let mut missing = Vec::new();
    let mut needless = Vec::new();
    for (kind, rows) in WANTED {
        for row in rows.clone() {
            let show = || {
                if *kind == "R" {
                    format!("R{row}")
                } else {
                    format!("{kind}-{row:03}")
                }
            };
            let is_named = named.contains(&((*kind).to_owned(), row));
            match (is_named, elsewhere.contains(&(*kind, row))) {
                (false, false) => missing.push(show()),
                (true, true) => needless.push(show()),
                _ => {}
            }
        }
    }
    assert!(missing.is_empty(), "no test names {}", missing.join(", "));
    assert!(
        needless.is_empty(),
        "a test names {}: take it out of ELSEWHERE",
        needless.join(", ")
    );
}

/// Rows of section 13 that are of other parts of a mesh: gateways, capture, origination, installation.
const NO_DECISIONS: &[RangeInclusive<u16>] = &[1..=3, 5..=5, 12..=14, 19..=21, 27..=31, 35..=39, 47..=48];

#[test]
fn the_rows_are_those_of_the_document() {
    let Some(mut written) = written() else { return };
    written.retain(|(kind, row)| kind != "R" || !NO_DECISIONS.iter().any(|rows| rows.contains(row)));
    let wanted: BTreeSet<(String, u16)> = WANTED
        .iter()
        .flat_map(|(kind, rows)| rows.clone().map(|row| ((*kind).to_owned(), row)))
        .collect();
    let new: Vec<_> = written.difference(&wanted).collect();
    let gone: Vec<_> = wanted.difference(&written).collect();
    assert!(new.is_empty(), "the document has rows that nobody wants: {new:?}");
    assert!(gone.is_empty(), "the document has no such rows: {gone:?}");
    println!(
        "semantics: {} rows, each named by a test or of another part",
        wanted.len()
    );
}

#[test]
fn a_range_of_the_document_is_all_its_rows_and_a_comment_names_none() {
    let found: Vec<String> = ids("PT-01..03 (AZ-040..AZ-041) R7")
        .iter()
        .map(|(kind, row)| format!("{kind}{row}"))
        .collect();
    assert_eq!(found, ["AZ40", "AZ41", "PT1", "PT2", "PT3", "R7"]);
    let text = "//! AZ-001\n  // AZ-002\n/// AZ-003\nfn a() { \"AZ-004\" }";
    let found = cited(&without_comments(text));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_range_in_the_name_of_a_test_names_no_row() {
    let found = cited("fn az_057_to_067() { \"AZ-058\" } fn r17_x() {} fn az_030_r44_y() {} R9 N-012 SM-1");
    let rows: Vec<String> = found.iter().map(|(kind, row)| format!("{kind}{row}")).collect();
    assert_eq!(rows, ["AZ30", "AZ58", "N12", "R9", "R17", "R44"]);
}
