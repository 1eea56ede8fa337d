//! `http1`: requests that parsers disagree on, as llhttp's own tests and smuggling tools send them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]

use meshward_http::{Fault, Front};
use serde_json::Value;
use testkit::conformance::{self, Tally};

/// How many bytes pass, and the fault that ends it.
fn front(bytes: &[u8]) -> (usize, Option<Fault>) {
    let mut front = Front::default();
    let mut done = 0;
    loop {
        match front.advance(&bytes[done..]) {
            Err(fault) => return (done, Some(fault)),
            Ok(0) => return (done, None),
            Ok(taken) => done += taken,
        }
    }
}

/// One byte a character; the few characters that have none as UTF-8.
fn wire(case: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for c in case["input_latin1"].as_str().unwrap().chars() {
        match u8::try_from(c) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(c.to_string().into_bytes()),
        }
    }
    bytes
}

fn judge(case: &Value, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    match (case["kind"].as_str().unwrap(), case["expected"].as_str().unwrap()) {
        // What a strict parser refuses must be refused, or be waited on for its rest.
        ("request", "error") => {
            let bytes = wire(case);
            let (done, fault) = front(&bytes);
            if fault.is_some() || done < bytes.len() {
                tally.pass();
            } else {
                tally.fail(id, "it passes");
            }
        }
        // A length beside a line that some reader takes for `Transfer-Encoding: chunked`.
        ("te-mutation", _) => {
            let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n".to_vec();
            bytes.extend(wire(case));
            bytes.extend(b"\r\n\r\n1\r\nZ\r\nQ");
            match front(&bytes).1 {
                Some(_) => tally.pass(),
                None => tally.fail(id, "it passes"),
            }
        }
        ("request", _) => {
            tally.not_applicable("requests that a lenient parser takes (refusing more is fine)")
        }
        _ => tally.not_applicable("responses, URLs and lenient modes of another parser"),
    }
}

#[test]
fn http1() {
    let Some(set) = conformance::set("http1") else {
        return;
    };
    let cases = conformance::json(&set.join("cases.json"));
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().unwrap() {
        judge(case, &mut tally);
    }
    tally.finish("http1");
}
