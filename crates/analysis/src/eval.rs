//! One decision a line: requests as lines of JSON come in, answers go out in the same order.

use serde_json::Value;

use crate::answer::{Answer, Decision};
use crate::question::{Providers, Question};
use crate::world::Offline;

/// How many lines are looked through at once for targets that are given by labels alone; below `MAX_LABELLED`.
const BATCH: usize = 1_000;

/// What a line with such a target holds.
const LABELS: &[u8] = b"labels\"";

/// How many lines came out how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Requests that are carried.
    pub allowed: u64,
    /// Requests that are refused.
    pub denied: u64,
    /// Requests of which it is not known.
    pub unknown: u64,
    /// Lines that could not be read; they are not among the unknown.
    pub broken: u64,
}

/// Answers lines. What it keeps does not grow with them.
#[derive(Debug)]
pub struct Eval {
    world: Offline,
    providers: Providers,
    now: Option<u64>,
    line: u64,
    tally: Tally,
}

impl Eval {
    /// Of a world, with what external authorizers are taken to say.
    pub fn new(world: Offline, providers: Providers) -> Self {
        Self {
            world,
            providers,
            now: None,
            line: 0,
            tally: Tally::default(),
        }
    }

    /// When tokens are shown, in seconds since 1970, where a line does not say.
    #[must_use]
    pub fn at(mut self, now: u64) -> Self {
        self.now = Some(now);
        self
    }

    /// How many lines came out how so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Answers whole lines; adds a line to `out` for each that is not empty.
    pub fn lines(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut lines = text.split_inclusive(|b| *b == b'\n');
        if !find(text, LABELS) {
            for line in lines {
                let read = read(line);
                self.answer(line, read, out);
            }
            return;
        }
        loop {
            let batch: Vec<_> = lines
                .by_ref()
                .take(BATCH)
                .map(|line| (line, read(line)))
                .collect();
            if batch.is_empty() {
                return;
            }
            let read = batch.iter().filter_map(|(_, read)| read.as_ref().ok());
            let targets = read.flatten().map(|question| &question.to);
            // Where that fails, each of them is answered with not being known.
            let _ = self.world.prepare(targets);
            for (line, read) in batch {
                self.answer(line, read, out);
            }
        }
    }

    /// Answers a line that is longer than any that is read; only the start of it is at hand.
    pub fn too_long(&mut self, limit: usize, out: &mut Vec<u8>) {
        self.line += 1;
        self.broken(
            None,
            format!("line {}: longer than {limit} bytes", self.line),
            out,
        );
    }

    fn answer(&mut self, line: &[u8], read: Read<'_>, out: &mut Vec<u8>) {
        self.line += 1;
        match read {
            Ok(None) => {}
            Ok(Some(mut question)) => {
                question.time = question.time.or(self.now);
                let answer = self.world.ask(&question, &self.providers, false);
                match answer.decision {
                    Decision::Allow => self.tally.allowed += 1,
                    Decision::Deny => self.tally.denied += 1,
                    Decision::Unknown => self.tally.unknown += 1,
                }
                write(&answer, out);
            }
            Err(broken) => {
                let whole = serde_json::from_slice::<Value>(line).ok();
                let id = whole.and_then(|mut whole| whole.get_mut("id").map(Value::take));
                let why = format!("line {} column {}: {}", self.line, broken.column, broken.why);
                self.broken(id, why, out);
            }
        }
    }

    fn broken(&mut self, id: Option<Value>, why: String, out: &mut Vec<u8>) {
        self.tally.broken += 1;
        let answer = Answer {
            error: Some(why),
            ..Answer::unknown(id, "the line cannot be read")
        };
        write(&answer, out);
    }
}

/// What stands on a line; nothing on an empty one.
type Read<'l> = Result<Option<Question<'l>>, Broken>;

/// Why a line cannot be read.
struct Broken {
    /// From 1.
    column: usize,
    why: String,
}

fn read(line: &[u8]) -> Read<'_> {
    let before = line.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|error| Broken {
        column: before + error.valid_up_to() + 1,
        why: "not UTF-8".to_owned(),
    })?;
    serde_json::from_str(text).map(Some).map_err(|error| {
        let said = error.to_string();
        Broken {
            column: before + error.column(),
            why: said.split(" at line ").next().unwrap_or_default().to_owned(),
        }
    })
}

fn write(answer: &Answer, out: &mut Vec<u8>) {
    // Neither a vector nor an answer, whose keys are strings, can fail.
    let _ = serde_json::to_writer(&mut *out, answer);
    out.push(b'\n');
}

fn find(text: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else { return true };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(word) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}
