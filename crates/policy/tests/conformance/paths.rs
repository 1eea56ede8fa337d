//! Request targets and what became of them.

use std::path::Path;

use policy::path::{Mode, merge_slashes, normalize, without_query};
use serde_json::Value;

use crate::Tally;

pub(crate) fn case(_: &Path, case: &Value, tally: &mut Tally) {
    let text = |key: &str| case[key].as_str().unwrap();
    let (name, input, expect) = (text("id"), text("input"), text("expected"));
    let mode = match text("mode") {
        "NONE" => Mode::None,
        "BASE" | "DEFAULT" | "fn:canonical_path" => Mode::Base,
        "MERGE_SLASHES" => Mode::MergeSlashes,
        "DECODE_AND_MERGE_SLASHES" => Mode::DecodeAndMergeSlashes,
        "fn:merge_slashes" => {
            let (path, query) = input.split_at(input.find('?').unwrap_or(input.len()));
            let merged = merge_slashes(path.as_bytes()).into_owned();
            tally.check(name, &(String::from_utf8(merged).unwrap() + query), &expect);
            return;
        }
        "fn:remove_query_and_fragment" => {
            tally.check(name, &without_query(input), &expect);
            return;
        }
        _ => {
            tally.skip("of a function that does not exist here");
            return;
        }
    };
    if text("mode").starts_with("fn:") {
        tally.check(name, &normalized(input, mode), &expect);
        return;
    }
    match target(input) {
        Some(target) => tally.check(name, &normalized(target, mode), &expect),
        // The codec's refusal, which is not this crate's: only that both refuse is known.
        None if expect == "reject" => tally.skip("refused by the HTTP codec before"),
        None => tally.check(name, &"reject", &expect),
    }
}

fn normalized(input: &str, mode: Mode) -> String {
    normalize(input.as_bytes(), mode).map_or_else(|_| "reject".to_owned(), |path| path.into_owned())
}

/// The origin form that a codec makes of a target; `None` where it refuses.
fn target(input: &str) -> Option<&str> {
    if !input.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    if let Some(rest) = input
        .strip_prefix("http://")
        .or_else(|| input.strip_prefix("https://"))
    {
        return Some(rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"));
    }
    input.starts_with('/').then_some(input)
}
