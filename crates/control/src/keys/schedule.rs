//! When keys are fetched, and what is known of them meanwhile. Pure: the time is an argument, and so is chance.

use std::sync::Arc;
use std::time::Duration;

use jwt::Jwks;

/// After a success: when they are fetched again, where nothing else is said.
pub(super) const REFRESH: Duration = Duration::from_secs(20 * 60);
/// After the first failure of a refresh; doubled with each further one.
const RETRY: Duration = Duration::from_secs(60);
/// The same, where there are no keys at all: tokens are refused until there are.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const MAX_RETRY: Duration = Duration::from_secs(60 * 60);
/// How long keys are used without having been seen at their source again; then tokens fail.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Pauses are shortened by up to this share, so that many sources do not come at once: one in so many.
const JITTER: u32 = 10;

/// One source. Times are since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    /// The last good set, and when it was seen at the source.
    good: Option<(String, Duration)>,
    failing: Option<Failing>,
    next: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Failing {
    why: String,
    since: Duration,
    times: u32,
}

impl State {
    /// One that is due at once; `good` are keys from before a restart.
    pub(super) fn new(good: Option<(String, Duration)>) -> Self {
        Self {
            good,
            ..Self::default()
        }
    }

    /// When it is to be fetched.
    pub(super) fn due(&self) -> Duration {
        self.next
    }

    /// Whether it is to be fetched. No pause is longer than the longest: a clock that was set back ends it.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next <= now || self.next - now > MAX_RETRY
    }

    /// When its keys become too old.
    pub(super) fn expires(&self) -> Option<Duration> {
        self.good.as_ref().map(|(_, seen)| *seen + MAX_AGE)
    }

    /// The last good set, and when it was seen.
    pub(super) fn good(&self) -> Option<&(String, Duration)> {
        self.good.as_ref()
    }

    /// A fetch ended. `refresh` is the pause after a success, `chance` from 0 to 1000. A failure leaves the keys that there are (R8).
    pub(super) fn fetched(
        &mut self,
        outcome: Result<String, String>,
        refresh: Duration,
        now: Duration,
        chance: u32,
    ) {
        let pause = match outcome {
            Ok(keys) => {
                self.good = Some((keys, now));
                self.failing = None;
                refresh
            }
            Err(why) => {
                let (since, times) = match &self.failing {
                    Some(failing) => (failing.since, failing.times.saturating_add(1)),
                    None => (now, 1),
                };
                self.failing = Some(Failing { why, since, times });
                let first = if self.good.is_some() { RETRY } else { RETRY_FIRST };
                let doubled = first.saturating_mul(2_u32.saturating_pow(times - 1));
                doubled.min(MAX_RETRY)
            }
        };
        self.next = now + pause.saturating_sub(pause / JITTER * chance.min(1000) / 1000);
    }

    /// What is told to the world; `None` before anything is known.
    pub(super) fn told(&self, source: &str, now: Duration) -> Option<Arc<Jwks>> {
        let fresh = |(_, seen): &&(String, Duration)| now < *seen + MAX_AGE;
        let keys = self.good.as_ref().filter(fresh);
        let failing = self.failing.as_ref();
        if keys.is_none() && failing.is_none() && self.good.is_none() {
            return None;
        }
        let why = failing.map(|failing| format!("since {} {}", stamp(failing.since), failing.why));
        let age = self.good.as_ref().map(|(_, seen)| stamp(*seen));
        let why = match (keys, why, age) {
            (Some(_), Some(why), Some(seen)) => Some(format!("{why}; last seen there at {seen}")),
            (None, why, Some(seen)) => {
                let old = format!("those of {seen} are too old to be used");
                Some(why.map_or_else(|| old.clone(), |why| format!("{why}; {old}")))
            }
            (_, why, _) => why,
        };
        Some(Arc::new(Jwks {
            source: source.to_owned(),
            keys: keys.map(|(keys, _)| keys.clone()),
            why,
        }))
    }
}

/// RFC 3339, to the second.
fn stamp(at: Duration) -> String {
    use time::format_description::well_known::Rfc3339;
    let seconds = i64::try_from(at.as_secs()).unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Duration = Duration::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn failed(why: &str) -> Result<String, String> {
        Err(why.to_owned())
    }

    #[test]
    fn refreshed_every_20_minutes_and_after_failures_1_minute_doubled_to_60() {
        let mut state = State::new(None);
        assert_eq!(state.due(), Duration::ZERO, "at once");
        state.fetched(Ok("{}".to_owned()), REFRESH, BEGIN, 0);
        assert_eq!(state.due(), BEGIN + REFRESH);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            state.fetched(failed("no"), REFRESH, BEGIN, 0);
            pauses.push((state.due() - BEGIN).as_secs() / 60);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        state.fetched(Ok("{}".to_owned()), REFRESH, BEGIN, 1000);
        assert_eq!(state.due(), BEGIN + 18 * MINUTE, "jitter only shortens");
        assert!(!state.is_due(BEGIN) && state.is_due(BEGIN + 18 * MINUTE));
        assert!(state.is_due(BEGIN - 60 * MINUTE), "the clock was set back");
    }

    #[test]
    fn without_any_keys_it_is_tried_again_soon() {
        let mut state = State::new(None);
        state.fetched(failed("no"), REFRESH, BEGIN, 0);
        assert_eq!(state.due(), BEGIN + Duration::from_secs(1));
        for _ in 0..40 {
            state.fetched(failed("no"), REFRESH, BEGIN, 0);
        }
        assert_eq!(state.due(), BEGIN + MAX_RETRY);
    }

    #[test]
    fn r8_the_last_good_keys_are_used_until_they_are_too_old() {
        let mut state = State::new(None);
        assert_eq!(state.told("s", BEGIN), None);
        state.fetched(Ok("{}".to_owned()), REFRESH, BEGIN, 0);
        state.fetched(failed("HTML"), REFRESH, BEGIN + MINUTE, 0);
        let told = state.told("s", BEGIN + MINUTE).unwrap();
        assert_eq!(told.keys.as_deref(), Some("{}"));
        assert_eq!(
            told.why.as_deref(),
            Some("since 2027-01-15T08:01:00Z HTML; last seen there at 2027-01-15T08:00:00Z")
        );
        let first = told.why.clone();
        state.fetched(failed("HTML"), REFRESH, BEGIN + 2 * MINUTE, 0);
        assert_eq!(
            state.told("s", BEGIN + 2 * MINUTE).unwrap().why,
            first,
            "no change in what is told"
        );
        let old = state.told("s", state.expires().unwrap()).unwrap();
        assert_eq!(old.keys, None);
        assert!(
            old.why.as_deref().unwrap().ends_with("are too old to be used"),
            "{old:?}"
        );
        state.fetched(Ok("{}".to_owned()), REFRESH, BEGIN + MAX_AGE, 0);
        let back = state.told("s", BEGIN + MAX_AGE).unwrap();
        assert_eq!((back.keys.as_deref(), back.why.as_deref()), (Some("{}"), None));
    }

    #[test]
    fn keys_from_before_a_restart_are_used_and_fetched_anew_at_once() {
        let state = State::new(Some(("{}".to_owned(), BEGIN)));
        assert_eq!(state.due(), Duration::ZERO);
        assert_eq!(state.told("s", BEGIN).unwrap().keys.as_deref(), Some("{}"));
        assert_eq!(state.told("s", BEGIN + MAX_AGE).unwrap().keys, None);
    }
}
