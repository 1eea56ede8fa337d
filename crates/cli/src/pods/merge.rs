//! Lines of several logs in the order of their times. Pure.

use std::collections::VecDeque;

/// A line and when it was, RFC 3339 in UTC with a fixed number of digits, so that texts compare as times do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stamped<T> {
    pub(crate) time: String,
    pub(crate) line: T,
}

/// Lines that wait for others.
#[derive(Debug)]
pub(crate) struct Merge<T> {
    waiting: VecDeque<Stamped<T>>,
    /// How many of the first batch are kept; all where `None`.
    tail: Option<usize>,
}

impl<T> Merge<T> {
    /// Of the first batch only the last `tail` are given.
    pub(crate) fn new(tail: Option<usize>) -> Self {
        Self {
            waiting: VecDeque::new(),
            tail,
        }
    }

    pub(crate) fn push(&mut self, line: Stamped<T>) {
        self.waiting.push_back(line);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All that wait, in the order of their times; those of one time as they came.
    pub(crate) fn take(&mut self) -> Vec<T> {
        let mut batch: Vec<_> = std::mem::take(&mut self.waiting).into();
        batch.sort_by(|a, b| a.time.cmp(&b.time));
        let skip = self
            .tail
            .take()
            .map_or(0, |tail| batch.len().saturating_sub(tail));
        batch.into_iter().skip(skip).map(|stamped| stamped.line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(merge: &mut Merge<&'static str>, time: &str, line: &'static str) {
        merge.push(Stamped {
            time: time.to_owned(),
            line,
        });
    }

    #[test]
    fn lines_come_in_the_order_of_their_times() {
        let mut merge = Merge::new(None);
        for (time, line) in [("03", "c"), ("01", "a"), ("03", "d"), ("02", "b")] {
            push(&mut merge, time, line);
        }
        assert_eq!(merge.take(), ["a", "b", "c", "d"]);
        assert_eq!(merge.take(), [""; 0]);
    }

    #[test]
    fn the_tail_is_of_what_there_was_and_not_of_what_comes() {
        let mut merge = Merge::new(Some(1));
        push(&mut merge, "02", "b");
        push(&mut merge, "01", "a");
        assert_eq!(merge.take(), ["b"]);
        push(&mut merge, "03", "c");
        push(&mut merge, "04", "d");
        assert_eq!(merge.take(), ["c", "d"]);
    }
}
