//! `eval`: requests as lines of JSON, one decision a line.

use std::io::{ErrorKind, Read};
use std::path::Path;

use admin::Failure;
use tokio::sync::mpsc;

use super::args::{Eval, Files};
use super::load;
use crate::out::{Done, Out};
use crate::text::harmless;

/// The longest request that is read, in bytes.
const MAX_LINE: usize = 1024 * 1024;
/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many pieces of answers wait to be printed.
const WAITING: usize = 4;

pub(crate) async fn eval(asked: &Eval, out: &mut Out) -> Done {
    let stdin = Path::new("-");
    if asked.requests == stdin && asked.files.iter().any(|file| file == stdin) {
        let message = "standard input can be read once: give the requests as a file";
        return Err(Failure::usage(message).into());
    }
    let files = Files {
        files: asked.files.clone(),
        recursive: asked.recursive,
        profile: asked.profile,
    };
    let world = load::world(&files, out).await?;
    let eval = analysis::Eval::new(world, asked.custom.providers()).at(super::can_i::now());
    let path = asked.requests.clone();
    let (send, mut answers) = mpsc::channel(WAITING);
    let work = tokio::task::spawn_blocking(move || {
        if path.as_os_str() == "-" {
            return answer(std::io::stdin().lock(), "<stdin>", eval, &send);
        }
        let shown = path.display().to_string();
        match std::fs::File::open(&path) {
            Ok(file) => answer(file, &shown, eval, &send),
            Err(error) => Err(Failure::input(format!("cannot read `{shown}`: {error}"))),
        }
    });
    while let Some(piece) = answers.recv().await {
        out.write(&piece)?;
    }
    out.flush()?;
    let tally = work
        .await
        .map_err(|error| Failure::undecided(error.to_string()))??;
    if tally.broken > 0 {
        out.error(&format!(
            "{} of the lines cannot be read; the others are answered",
            tally.broken
        ));
    }
    Ok(match (tally.broken, tally.unknown) {
        (0, 0) => 0,
        (0, _) => admin::Exit::Undecided.code(),
        _ => admin::Exit::Input.code(),
    })
}

/// Reads lines, answers them, and hands the answers over in order. What it keeps does not grow with the input.
fn answer(
    mut from: impl Read,
    shown: &str,
    mut eval: analysis::Eval,
    send: &mpsc::Sender<Vec<u8>>,
) -> Result<analysis::Tally, Failure> {
    let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK);
    // Whether what comes is the rest of a line that was too long.
    let mut skipping = false;
    loop {
        let read = some(&mut from, &mut buffer)
            .map_err(|error| Failure::input(format!("cannot read `{shown}`: {error}")))?;
        if skipping {
            let rest = buffer.iter().position(|b| *b == b'\n');
            buffer.drain(..rest.map_or(buffer.len(), |at| at + 1));
            skipping = rest.is_none();
        }
        let end = match read {
            0 => buffer.len(),
            _ => buffer.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1),
        };
        let mut out = Vec::with_capacity(CHUNK * 2);
        eval.lines(buffer.get(..end).unwrap_or_default(), &mut out);
        buffer.drain(..end);
        if buffer.len() > MAX_LINE {
            eval.too_long(MAX_LINE, &mut out);
            buffer.clear();
            skipping = true;
        }
        let gone = !out.is_empty() && send.blocking_send(clean(out)).is_err();
        if gone || read == 0 {
            return Ok(eval.tally());
        }
    }
}

/// Reads what there is, so that whoever asks line by line is answered line by line.
fn some(from: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let before = buffer.len();
    buffer.resize(before + CHUNK, 0);
    let read = loop {
        match from.read(buffer.get_mut(before..).unwrap_or_default()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => break done,
        }
    };
    buffer.truncate(before + *read.as_ref().unwrap_or(&0));
    read
}

/// In the answers nothing that a terminal would obey.
fn clean(out: Vec<u8>) -> Vec<u8> {
    if out.is_ascii() && !out.contains(&0x7f) {
        return out;
    }
    match String::from_utf8(out) {
        Ok(text) => harmless(&text).into_bytes(),
        // Answers are JSON: this cannot be.
        Err(error) => error.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of a few.
    struct Dripping<'b>(&'b [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn answers(text: &[u8], piece: usize) -> (Vec<serde_json::Value>, analysis::Tally) {
        let world =
            analysis::Offline::assuming(Vec::new(), Vec::new(), compiler::Options::default()).unwrap();
        let eval = analysis::Eval::new(world, analysis::Providers::new());
        let (send, mut answers) = mpsc::channel(10_000);
        let tally = answer(Dripping(text, piece), "x", eval, &send).unwrap();
        drop(send);
        let mut out = Vec::new();
        while let Some(piece) = answers.blocking_recv() {
            out.extend(piece);
        }
        let lines = out.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        (
            lines.map(|line| serde_json::from_slice(line).unwrap()).collect(),
            tally,
        )
    }

    #[test]
    fn lines_are_answered_however_they_come_and_the_last_needs_no_end() {
        let text = b"{\"id\":1,\"to\":{\"namespace\":\"a\",\"workload\":\"x\",\"port\":1}}\n\n{\"id\":2}\n{\"id\":3,\"to\":{\"namespace\":\"a\",\"workload\":\"x\",\"port\":1}}";
        for piece in [1, 7, 100_000] {
            let (answers, tally) = answers(text, piece);
            let ids: Vec<_> = answers.iter().map(|a| a["id"].as_u64().unwrap()).collect();
            assert_eq!(ids, [1, 2, 3], "{piece}");
            assert_eq!((tally.unknown, tally.broken), (2, 1), "{piece}");
            assert_eq!(
                answers[1]["error"], "line 3 column 8: missing field `to`",
                "{piece}"
            );
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error_of_its_own_and_the_next_is_answered() {
        let mut text = vec![b'x'; MAX_LINE * 3];
        text.extend_from_slice(b"\n{\"id\":2}\n");
        let (answers, tally) = answers(&text, 100_000);
        assert_eq!(answers.len(), 2);
        assert_eq!(tally.broken, 2);
        assert!(
            answers[0]["error"]
                .as_str()
                .unwrap()
                .contains("line 1: longer than"),
            "{answers:?}"
        );
        assert_eq!(answers[1]["id"], 2);
    }
}
