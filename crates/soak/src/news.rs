//! What the clients of the load say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

/// A request that was answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Done(pub(crate) String, pub(crate) u64, pub(crate) u64);

/// One that was not: kind, milliseconds of Unix time, why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Failed(pub(crate) String, pub(crate) u64, pub(crate) String);

/// All that was said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Kind, milliseconds of Unix time at the end, microseconds.
    pub(crate) done: Vec<Done>,
    pub(crate) failed: Vec<Failed>,
    /// By client, since it began.
    totals: Vec<Totals>,
}

#[derive(Clone, Debug, Default)]
struct Totals {
    resent: u64,
    counted: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
struct Line {
    done: Vec<Done>,
    failed: Vec<Failed>,
    resent: u64,
    counted: BTreeMap<String, (u64, u64)>,
}

/// Where it is gathered.
#[derive(Clone, Debug, Default)]
pub(crate) struct News(Arc<Mutex<Said>>);

/// The place of one client.
pub(crate) struct OfClient(News, usize);

impl News {
    /// A place for one more client.
    pub(crate) fn of_client(&self) -> OfClient {
        let mut said = self.said();
        said.totals.push(Totals::default());
        OfClient(self.clone(), said.totals.len() - 1)
    }

    /// All that was said.
    pub(crate) fn taken(&self) -> Said {
        self.said().clone()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfClient {
    /// Takes a line.
    ///
    /// # Errors
    /// It is none of a load's.
    pub(crate) fn take(&self, line: &str) -> Result<(), String> {
        let line: Line =
            serde_json::from_str(line).map_err(|error| format!("the load says `{line}`: {error}"))?;
        let mut said = self.0.said();
        said.done.extend(line.done);
        said.failed.extend(line.failed);
        if let Some(totals) = said.totals.get_mut(self.1) {
            *totals = Totals {
                resent: line.resent,
                counted: line.counted,
            };
        }
        Ok(())
    }
}

impl Said {
    /// How often a request was sent again that a server had not looked at.
    pub(crate) fn resent(&self) -> u64 {
        self.totals.iter().map(|totals| totals.resent).sum()
    }

    /// What servers have counted and nobody has got an answer to, by pod and kind.
    pub(crate) fn unanswered(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (who, (answers, highest)) in self.totals.iter().flat_map(|totals| &totals.counted) {
            let of = all.entry(who).or_default();
            *of = (of.0 + answers, of.1.max(*highest));
        }
        let missing = all.into_iter().filter_map(|(who, (answers, highest))| {
            let missing = highest.saturating_sub(answers);
            (missing > 0).then(|| (who.to_owned(), missing))
        });
        missing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_client_was_answered_is_found_over_all_of_them() {
        let news = News::default();
        let clients = [news.of_client(), news.of_client()];
        let line = |answers, highest| {
            format!(
                r#"{{"done":[["http1",1,2]],"failed":[["tcp",3,"why"]],"resent":1,"counted":{{"p http1":[{answers},{highest}]}}}}"#
            )
        };
        clients[0].take(&line(1, 1)).unwrap();
        clients[0].take(&line(2, 4)).unwrap();
        clients[1].take(&line(2, 5)).unwrap();
        let said = news.taken();
        assert_eq!((said.done.len(), said.failed.len(), said.resent()), (3, 3, 2));
        assert_eq!(said.unanswered(), BTreeMap::from([("p http1".to_owned(), 1)]));
        assert!(clients[0].take("{}").is_err());
    }
}
