//! The one task that has certificates issued and renewed.
//!
//! Renewal goes by the wall clock, since certificates do; the task wakes at least every [`MAX_NAP`], so that a machine
//! that has slept, or whose clock was set, is noticed. Attempts after a failure go by the monotonic clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use model::SpiffeId;
use rustls::pki_types::UnixTime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::{Current, Published, Shared};
use crate::authority::{CertificateAuthority, TokenFile};
use crate::error::IssueError;
use crate::pki::{self, Fingerprint};
use crate::tls::PeerIdentity;
use crate::verify::Purpose;

/// The most identities of one store.
const MAX_IDENTITIES: usize = 4096;
/// The most callers that wait for one identity.
const MAX_WAITING: usize = 1024;
/// Exchanges with the CA at one time.
const MAX_ISSUING: usize = 8;
/// The longest chain that is taken from the CA.
const MAX_CHAIN: usize = 8;
/// The first pause after a failure, doubled with each further one, and the longest while there is a certificate.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause of an identity without a valid certificate: a CA that is back serves it within this.
const MAX_PAUSE_WITHOUT: Duration = Duration::from_secs(5);
/// The longest pause as a part of the time that the certificate is still good for.
const PAUSES_LEFT: u32 = 8;
/// Within how long certificates are renewed once the CA signs by another root.
const SIGNER_SPREAD: Duration = Duration::from_secs(5);
/// The longest time without a look at the wall clock.
const MAX_NAP: Duration = Duration::from_secs(60);
/// How far jitter moves a renewal, as a part of the time to it; and a pause.
const RENEWAL_JITTER: f64 = 0.02;
const PAUSE_JITTER: f64 = 0.25;

pub(super) enum Command {
    Ensure {
        id: SpiffeId,
        token: TokenFile,
        answer: Answer,
    },
    Forget {
        id: SpiffeId,
    },
    /// The CA signs by another root than before: the first that is trusted.
    Signer,
    /// A certificate that others see to.
    Given {
        id: SpiffeId,
        current: Box<Current>,
        taken: Answer,
    },
}

type Attempt = Result<Current, IssueError>;
type Answer = oneshot::Sender<Result<(), IssueError>>;

pub(super) struct Owner {
    authority: Arc<dyn CertificateAuthority>,
    shared: Arc<Shared>,
    entries: BTreeMap<SpiffeId, Entry>,
    issuing: JoinSet<Attempt>,
}

struct Entry {
    token: TokenFile,
    next: Next,
    failures: u32,
    /// When the last attempt ended.
    ended: Option<Instant>,
    /// Whether the CA began to sign by another root while an attempt was under way: it may have come too early.
    overtaken: bool,
    waiting: Vec<Answer>,
}

/// What is to come for an identity.
enum Next {
    /// An attempt, at this time.
    Attempt(Instant),
    /// The outcome of an attempt.
    Outcome(Id),
    /// Renewal, at this wall-clock time.
    Renewal(Duration),
}

impl Owner {
    pub(super) fn new(authority: Arc<dyn CertificateAuthority>, shared: Arc<Shared>) -> Self {
        Self {
            authority,
            shared,
            entries: BTreeMap::new(),
            issuing: JoinSet::new(),
        }
    }

    /// Until the last handle of the store is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            self.start_due();
            let nap = self.until_next();
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(outcome) = self.issuing.join_next_with_id() => self.outcome(outcome),
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ensure { id, token, answer } => self.ensure(id, token, answer),
            Command::Forget { id } => {
                // An attempt that is under way finds nothing when it ends; who waits is told that it was given up.
                self.entries.remove(&id);
                self.publish(&id, None);
            }
            Command::Signer => self.signer(),
            Command::Given { id, current, taken } => {
                let known = self.shared.published.load();
                if known.len() >= MAX_IDENTITIES && !known.contains_key(&id) {
                    let _ = taken.send(Err(IssueError::Limit("identities of one store")));
                    return;
                }
                // Whoever asked the CA before asks it no more.
                self.entries.remove(&id);
                self.publish(&id, Some(Ok(*current)));
                let _ = taken.send(Ok(()));
            }
        }
    }

    /// Brings the renewal of certificates forward that chain to another root than the one that signs now. Once each: a CA
    /// whose bundle begins with a root that it does not sign by is not asked in a loop.
    fn signer(&mut self) {
        let signing = self.shared.trust.load().roots.first().copied();
        let published = self.shared.published.load_full();
        let options = &self.shared.options;
        let wall = options.clock.now();
        for (id, entry) in &mut self.entries {
            match &mut entry.next {
                Next::Renewal(at) => {
                    let current = published.get(id).and_then(|p| p.current.as_ref());
                    if current.is_some_and(|c| c.root != signing) {
                        *at = (*at).min(wall + soon((options.jitter)()));
                    }
                }
                Next::Outcome(_) => entry.overtaken = true,
                Next::Attempt(_) => {}
            }
        }
    }

    fn ensure(&mut self, id: SpiffeId, token: TokenFile, answer: Answer) {
        let full = self.entries.len() >= MAX_IDENTITIES;
        let ready = self.is_ready(&id);
        let now = Instant::now();
        let entry = match self.entries.entry(id) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => {
                let _ = answer.send(Err(IssueError::Limit("identities of one store")));
                return;
            }
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry::new(token.clone(), now))
            }
        };
        entry.token = token;
        if ready {
            let _ = answer.send(Ok(()));
            return;
        }
        entry.waiting.retain(|a| !a.is_closed());
        if entry.waiting.len() >= MAX_WAITING {
            let _ = answer.send(Err(IssueError::Limit("callers that wait for one identity")));
            return;
        }
        entry.waiting.push(answer);
        if !matches!(entry.next, Next::Outcome(_)) {
            // Asking brings the next attempt forward, but asking in a loop does not make a storm of them.
            let soonest = entry.ended.map_or(now, |ended| ended + MIN_PAUSE);
            entry.next = match entry.next {
                Next::Attempt(at) => Next::Attempt(at.min(soonest)),
                _ => Next::Attempt(soonest),
            };
        }
    }

    fn is_ready(&self, id: &SpiffeId) -> bool {
        let published = self.shared.published.load();
        let current = published.get(id).and_then(|p| p.current.as_ref());
        current.is_some_and(|c| self.shared.now() < c.facts.not_after)
    }

    fn start_due(&mut self) {
        let (now, wall) = (Instant::now(), self.shared.options.clock.now());
        for (id, entry) in &mut self.entries {
            if self.issuing.len() >= MAX_ISSUING {
                return;
            }
            if entry.next.wait(now, wall).is_some_and(|wait| wait.is_zero()) {
                let attempt = issue(
                    Arc::clone(&self.authority),
                    Arc::clone(&self.shared),
                    id.clone(),
                    entry.token.clone(),
                );
                let task = self.issuing.spawn(attempt);
                entry.next = Next::Outcome(task.id());
            }
        }
    }

    /// How long there is nothing to do.
    fn until_next(&self) -> Duration {
        if self.issuing.len() >= MAX_ISSUING {
            return MAX_NAP;
        }
        let (now, wall) = (Instant::now(), self.shared.options.clock.now());
        let waits = self.entries.values().filter_map(|e| e.next.wait(now, wall));
        waits.min().map_or(MAX_NAP, |wait| wait.min(MAX_NAP))
    }

    fn outcome(&mut self, outcome: Result<(Id, Attempt), JoinError>) {
        let (task, result) = match outcome {
            Ok((task, result)) => (task, result),
            Err(error) => (error.id(), Err(IssueError::Answer(error.to_string()))),
        };
        let found = self
            .entries
            .iter_mut()
            .find(|(_, e)| matches!(&e.next, Next::Outcome(id) if *id == task));
        // Forgotten meanwhile.
        let Some((id, entry)) = found else { return };
        let id = id.clone();
        entry.ended = Some(Instant::now());
        let options = &self.shared.options;
        match result {
            Ok(current) => {
                entry.failures = 0;
                let wall = options.clock.now();
                let mut at = renewal(&current.facts, wall, (options.jitter)());
                let signing = self.shared.trust.load().roots.first().copied();
                if std::mem::take(&mut entry.overtaken) && current.root != signing {
                    at = at.min(wall + soon((options.jitter)()));
                }
                entry.next = Next::Renewal(at);
                let (serial, not_after) = (&current.facts.serial, current.facts.not_after);
                tracing::info!(%id, serial, not_after, "certificate issued");
                let waiting = std::mem::take(&mut entry.waiting);
                self.publish(&id, Some(Ok(current)));
                for answer in waiting {
                    let _ = answer.send(Ok(()));
                }
            }
            Err(error) => {
                let published = self.shared.published.load();
                let current = published.get(&id).and_then(|p| p.current.as_ref());
                let left = current.map_or(Duration::ZERO, |c| left(&c.facts, options.clock.now()));
                let pause = pause(entry.failures, left, (options.jitter)());
                tracing::warn!(%id, %error, retry_in_ms = pause.as_millis(), "no certificate");
                entry.failures = entry.failures.saturating_add(1);
                entry.next = Next::Attempt(Instant::now() + pause);
                if !error.is_outage() {
                    for answer in entry.waiting.drain(..) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
                self.publish(&id, Some(Err(error)));
            }
        }
    }

    /// Publishes a new certificate, a failure beside the certificate there was, or nothing.
    fn publish(&self, id: &SpiffeId, state: Option<Attempt>) {
        let mut next = BTreeMap::clone(&self.shared.published.load());
        match state {
            None => drop(next.remove(id)),
            Some(state) => {
                let published = next.entry(id.clone()).or_default();
                match state {
                    Ok(current) => {
                        *published = Published {
                            current: Some(Arc::new(current)),
                            error: None,
                            failures: 0,
                        }
                    }
                    Err(error) => {
                        published.error = Some(error);
                        published.failures = published.failures.saturating_add(1);
                    }
                }
            }
        }
        self.shared.published.store(Arc::new(next));
    }
}

impl Entry {
    fn new(token: TokenFile, now: Instant) -> Self {
        Self {
            token,
            next: Next::Attempt(now),
            failures: 0,
            ended: None,
            overtaken: false,
            waiting: Vec::new(),
        }
    }
}

impl Next {
    /// How long until something is to be begun; `None` where it has been.
    fn wait(&self, now: Instant, wall: Duration) -> Option<Duration> {
        match self {
            Self::Attempt(at) => Some(at.saturating_duration_since(now)),
            Self::Renewal(at) => Some(at.saturating_sub(wall)),
            Self::Outcome(_) => None,
        }
    }
}

/// Half of the time that is left, a little moved. What is left counts, and not the certificate's own beginning, which
/// lies before its issue.
fn renewal(facts: &pki::Facts, now: Duration, jitter: f64) -> Duration {
    let half = left(facts, now) / 2;
    now + half.mul_f64(1.0 + RENEWAL_JITTER * jitter.clamp(-1.0, 1.0))
}

/// How long the certificate is good for from now.
fn left(facts: &pki::Facts, now: Duration) -> Duration {
    Duration::from_secs(u64::try_from(facts.not_after).unwrap_or(0)).saturating_sub(now)
}

/// Any time within the spread, from now.
fn soon(jitter: f64) -> Duration {
    SIGNER_SPREAD.mul_f64(jitter.abs().min(1.0))
}

/// The pause after a failure, given how long the certificate in use is still good for.
fn pause(failures: u32, left: Duration, jitter: f64) -> Duration {
    let most = if left.is_zero() {
        MAX_PAUSE_WITHOUT
    } else {
        (left / PAUSES_LEFT).clamp(MIN_PAUSE, MAX_PAUSE)
    };
    let doubled = MIN_PAUSE.saturating_mul(1 << failures.min(16)).min(most);
    doubled.mul_f64(1.0 + PAUSE_JITTER * jitter.clamp(-1.0, 1.0))
}

/// One attempt: a new key, a request, and a certificate that is for both the key and the identity.
async fn issue(
    authority: Arc<dyn CertificateAuthority>,
    shared: Arc<Shared>,
    id: SpiffeId,
    token: TokenFile,
) -> Result<Current, IssueError> {
    let request = pki::Request::new(&id).map_err(IssueError::Answer)?;
    let bearer = token.read()?;
    let lifetime = shared.options.lifetime;
    let pem = authority.sign(&request.csr_pem, &bearer, lifetime).await?;
    let mut chain = Vec::new();
    // The roots come last and peers have them: they are not sent.
    let (sent, root) = match pem.split_last() {
        Some((roots, sent)) if !sent.is_empty() => {
            let roots = pki::certificates(roots).map_err(IssueError::Answer)?;
            (sent, roots.first().map(|root| Fingerprint::of(root)))
        }
        _ => (pem.as_slice(), None),
    };
    for text in sent.iter().take(MAX_CHAIN + 1) {
        chain.extend(pki::certificates(text).map_err(IssueError::Answer)?);
    }
    if chain.len() > MAX_CHAIN {
        return Err(IssueError::Answer("the chain is too long".to_owned()));
    }
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or_else(|| IssueError::Answer("no certificate".to_owned()))?;
    let facts = pki::facts(leaf).map_err(|e| IssueError::Answer(e.to_string()))?;
    if facts.id != id {
        return Err(IssueError::Answer(format!("it is for `{}`", facts.id)));
    }
    if facts.not_after <= shared.now() {
        return Err(IssueError::Answer("it has expired already".to_owned()));
    }
    let trust = shared.trust.load_full();
    if !trust.anchors.is_empty() {
        let now = UnixTime::since_unix_epoch(shared.options.clock.now());
        trust
            .anchors
            .verify_identity(leaf, intermediates, now, Purpose::Client)
            .map_err(|e| IssueError::Answer(format!("its chain: {e}")))?;
    }
    let peer = PeerIdentity::local(id, leaf, facts.not_after);
    let certified = request.certify(chain).map_err(IssueError::Answer)?;
    Ok(Current {
        peer,
        certified: Arc::new(certified),
        facts,
        root,
        configs: ArcSwapOption::empty(),
    })
}
