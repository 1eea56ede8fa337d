//! `logs`: what a container printed, line by line.

use admin::verbs::Logs;
use admin::{Call, Failure};

use crate::pod::Pod;
use crate::process::logbook::Logbook;

/// The longest line that is sent whole; a longer one is cut into several.
const MAX_LINE: usize = 64 * 1024;

/// Sends the lines; with `follow` until the caller hangs up or the pod is gone.
pub(super) async fn answer(pod: &Pod, wanted: &Logs, call: &mut Call) -> Result<(), Failure> {
    let container = wanted.container.as_deref();
    if let Some(name) = container.filter(|name| !pod.container_names().contains(name)) {
        return Err(Failure::no(format!(
            "pod `{}` has no container `{name}`; it has `{}`",
            pod.shown(),
            pod.container_names().join("`, `")
        )));
    }
    let Some(book) = pod.log(container) else {
        let why = pod.state.borrow().why();
        return Err(Failure::no(format!(
            "pod `{}` has printed nothing yet: {why}",
            pod.shown()
        )));
    };
    let mut total = book.total();
    let mut lines = Lines::default();
    let end = *total.borrow_and_update();
    let mut from = start(&book, wanted.tail, end)?;
    loop {
        let (bytes, next) = read(&book, from)?;
        if bytes.is_empty() {
            if !wanted.follow {
                break;
            }
            tokio::select! {
                changed = total.changed() => if changed.is_err() { break },
                () = call.items.closed() => return Ok(()),
            }
            continue;
        }
        from = next;
        for line in lines.push(&bytes) {
            if call.items.send(&line).await.is_err() {
                return Ok(());
            }
        }
    }
    if let Some(line) = lines.rest() {
        let _ = call.items.send(&line).await;
    }
    Ok(())
}

fn read(book: &Logbook, from: u64) -> Result<(Vec<u8>, u64), Failure> {
    book.read(from)
        .map_err(|error| Failure::undecided(format!("cannot read the log: {error}")))
}

/// Where the last lines begin.
fn start(book: &Logbook, tail: Option<usize>, end: u64) -> Result<u64, Failure> {
    let Some(tail) = tail else {
        return Ok(0);
    };
    let mut starts = std::collections::VecDeque::new();
    let (mut from, mut at_start) = (0, true);
    while from < end {
        let (bytes, next) = read(book, from)?;
        if bytes.is_empty() {
            break;
        }
        let first = next.saturating_sub(u64::try_from(bytes.len()).unwrap_or_default());
        for (place, byte) in (first..end).zip(&bytes) {
            if at_start {
                starts.push_back(place);
                if starts.len() > tail {
                    starts.pop_front();
                }
            }
            at_start = *byte == b'\n';
        }
        from = next;
    }
    Ok(starts.front().copied().unwrap_or(end))
}

/// Bytes to lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
            if *byte == b'\n' || self.partial.len() >= MAX_LINE {
                out.push(String::from_utf8_lossy(&self.partial).into_owned());
                self.partial.clear();
            }
        }
        out
    }

    fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let book = Logbook::new(dir.path().join("a.log")).unwrap();
        book.write(b"one\ntwo\nthree\nfo");
        let end = *book.total().borrow();
        for (tail, expect) in [
            (Some(1), "fo"),
            (Some(2), "three\nfo"),
            (Some(0), ""),
            (Some(9), "one\ntwo\nthree\nfo"),
            (None, "one\ntwo\nthree\nfo"),
        ] {
            let from = start(&book, tail, end).unwrap();
            let (bytes, _) = book.read(from).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), expect, "{tail:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; MAX_LINE + 1]).len(), 1);
        assert_eq!(lines.push(b"y\n"), ["xy"]);
        assert_eq!(lines.rest(), None);
    }
}
