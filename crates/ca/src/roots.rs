//! The roots of a mesh, the one that signs and the one beside it, kept in a directory or in memory.
//!
//! What is to be done is written down first, whole, and only then done: a CA that is ended at any point finds its way by
//! what is written. A key is in a file of its own, removed as soon as nothing is to be signed by it any more.

mod directory;
pub(crate) mod state;

use std::sync::{Arc, Mutex, PoisonError};

use identity::pki::{self, Fingerprint};
use model::TrustDomain;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::config::{CaError, Config};
use crate::plugged::Files;
use crate::root::Root;

use directory::Directory;
use state::{Stage, State};

/// The roots; read by whoever signs, changed by a rotation alone.
pub(crate) struct Roots {
    directory: Option<Directory>,
    trust_domain: TrustDomain,
    held: watch::Sender<Arc<Held>>,
    /// Whoever changes them holds this.
    changing: Mutex<()>,
    /// Whether they were there before this process was.
    found: bool,
    /// Whether somebody else made them, who alone can replace them.
    plugged: bool,
}

/// The roots at one time.
pub(crate) struct Held {
    pub(crate) state: State,
    pub(crate) signing: Arc<Root>,
    /// While distributing: the root that will sign.
    next: Option<Arc<Root>>,
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roots")
            .field("stage", &self.now().state.stage)
            .finish_non_exhaustive()
    }
}

impl Roots {
    /// The roots of the configuration's directory, made there if it is empty; in memory where there is none.
    ///
    /// # Errors
    /// As [`Root::load_or_generate`]; or what is written of a rotation cannot be used.
    pub(crate) fn open(config: &Config, now: OffsetDateTime) -> Result<Self, CaError> {
        let longest = i64::try_from(config.leaf_lifetime_s).unwrap_or(i64::MAX);
        let steady = |root: Root| Held {
            state: State::steady(root.pem().to_owned(), longest, now.unix_timestamp()),
            signing: Arc::new(root),
            next: None,
        };
        let (directory, held, found) = match (&config.cacerts, &config.dir) {
            (Some(dir), _) => {
                let root = Root::plugged(&Files::of(dir)?, &config.trust_domain, now)?;
                (None, steady(root), false)
            }
            (None, Some(dir)) => {
                let (directory, held, found) = Directory::open(dir, &config.trust_domain, longest, now)?;
                (Some(directory), held, found)
            }
            (None, None) => (None, steady(Root::generate(&config.trust_domain, now)?), false),
        };
        Ok(Self {
            directory,
            trust_domain: config.trust_domain.clone(),
            held: watch::Sender::new(Arc::new(held)),
            changing: Mutex::new(()),
            found,
            plugged: config.cacerts.is_some(),
        })
    }

    /// One root, in memory.
    #[cfg(test)]
    pub(crate) fn of(root: Root) -> Self {
        let state = State::steady(root.pem().to_owned(), 3600, 0);
        Self {
            directory: None,
            trust_domain: TrustDomain::default(),
            held: watch::Sender::new(Arc::new(Held {
                state,
                signing: Arc::new(root),
                next: None,
            })),
            changing: Mutex::new(()),
            found: false,
            plugged: false,
        }
    }

    /// As they are now.
    pub(crate) fn now(&self) -> Arc<Held> {
        Arc::clone(&self.held.borrow())
    }

    /// As they are, and each change.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Held>> {
        self.held.subscribe()
    }

    /// The root that signs.
    pub(crate) fn signing(&self) -> Arc<Root> {
        Arc::clone(&self.held.borrow().signing)
    }

    /// Whether they are of a CA that was plugged in: then nothing is rotated here.
    pub(crate) fn is_plugged(&self) -> bool {
        self.plugged
    }

    /// Takes what a plugged-in CA has become.
    pub(crate) fn plug(&self, root: Root, now: OffsetDateTime) {
        let longest = self.now().state.longest_leaf_s;
        self.held.send_replace(Arc::new(Held {
            state: State::steady(root.pem().to_owned(), longest, now.unix_timestamp()),
            signing: Arc::new(root),
            next: None,
        }));
    }

    /// What everybody is to believe, PEM: the roots, the one that signs first, and the revocation lists beside them.
    pub(crate) fn bundle(&self) -> String {
        let held = self.now();
        format!("{}{}", held.state.bundle(), held.signing.lists())
    }

    /// Whether certificates may have been issued of which this process knows nothing.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Begins a rotation: a new root is to be trusted beside the one that signs. `false` where one is under way.
    ///
    /// # Errors
    /// The new root cannot be made or written; then everything is as it was.
    pub(crate) fn begin(&self, now: OffsetDateTime) -> Result<bool, CaError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.now();
        if held.state.stage != Stage::Steady {
            return Ok(false);
        }
        let next = Root::generate(&self.trust_domain, now)?;
        if let Some(directory) = &self.directory {
            directory.write_key(&next)?;
        }
        let state = held.state.begun(next.pem().to_owned(), now.unix_timestamp());
        self.put(state, Arc::clone(&held.signing), Some(Arc::new(next)))?;
        tracing::info!(
            signing = %held.signing.fingerprint(),
            "a rotation of the root begins: a new root is distributed, the old one signs"
        );
        Ok(true)
    }

    /// Takes the next step, where there is one: from now on the new root signs, or the old one is not trusted any more.
    ///
    /// # Errors
    /// It cannot be written down; then everything is as it was.
    pub(crate) fn step(&self, now: OffsetDateTime) -> Result<(), CaError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.now();
        match (held.state.stage, &held.next) {
            (Stage::Distributing, Some(next)) => {
                let state = held.state.switched(now.unix_timestamp());
                self.put(state, Arc::clone(next), None)?;
                tracing::info!(signing = %next.fingerprint(), "the new root signs, the old one is trusted");
            }
            (Stage::Renewing, _) => {
                let old = held
                    .state
                    .other()
                    .and_then(|pem| fingerprint(pem))
                    .map(|f| f.to_string());
                let state = held.state.ended(old.unwrap_or_default(), now.unix_timestamp());
                self.put(state, Arc::clone(&held.signing), None)?;
                tracing::info!(signing = %held.signing.fingerprint(), "the old root is withdrawn");
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the state down, and has it.
    fn put(&self, state: State, signing: Arc<Root>, next: Option<Arc<Root>>) -> Result<(), CaError> {
        if let Some(directory) = &self.directory {
            // A key that was written for a state that cannot be is of no use.
            directory
                .write(&state)
                .inspect_err(|_| directory.tidy(&self.now().state))?;
            directory.tidy(&state);
        }
        self.held.send_replace(Arc::new(Held { state, signing, next }));
        Ok(())
    }
}

/// The fingerprint of a root, PEM.
pub(crate) fn fingerprint(pem: &str) -> Option<Fingerprint> {
    let all = pki::certificates(pem).ok()?;
    all.first().map(|der| Fingerprint::of(der))
}

#[cfg(test)]
mod tests;
