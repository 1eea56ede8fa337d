//! Every row of the semantics that speaks of decisions is named by a test, or said to belong elsewhere.
//!
//! Rows are named as `AZ-057` or `R15`, and in names of tests as `az_057` or `r15`. A range in a test's name does not
//! count: a row that fails must be told by its own id.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
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
    ("O", 4..=4),
    ("O", 7..=7),
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

fn cited(text: &str) -> BTreeSet<(String, u16)> {
    let id = Regex::new(r"(?-u)\b(AZ|SM|RP|PT|TD|N|JW|O)-(\d{2,3})\b|\bR(\d{1,2})\b").unwrap();
    let name = Regex::new(r"(?-u)\bfn (\w+)").unwrap();
    let mut found = BTreeSet::new();
    for hit in id.captures_iter(text) {
        let of = |at: usize| hit.get(at).map(|m| m.as_str());
        let row = of(2).or_else(|| of(3)).unwrap().parse().unwrap();
        found.insert((of(1).unwrap_or("R").to_owned(), row));
    }
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

#[test]
fn every_row_is_named_by_a_test_or_belongs_elsewhere() {
    let mut text = String::new();
    for name in SOURCES {
        tests(&root().join("crates").join(name), &mut text);
    }
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

#[test]
fn a_range_in_the_name_of_a_test_names_no_row() {
    let found = cited("fn az_057_to_067() { \"AZ-058\" } fn r17_x() {} fn az_030_r44_y() {} R9 N-012 SM-1");
    let rows: Vec<String> = found.iter().map(|(kind, row)| format!("{kind}{row}")).collect();
    assert_eq!(rows, ["AZ30", "AZ58", "N12", "R9", "R17", "R44"]);
}
