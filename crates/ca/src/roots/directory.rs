//! The directory of the roots: `rotation.json`, and a file for each key that signs or will sign.
//!
//! The first root of a directory is `ca-key.pem` and `root-cert.pem`; the key of a later one is `root-key-FINGERPRINT.pem`.
//! Which of them count says `rotation.json`, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use identity::pki::Fingerprint;
use model::TrustDomain;
use time::OffsetDateTime;

use super::state::{Stage, State};
use super::{Held, fingerprint};
use crate::config::CaError;
use crate::files;
use crate::root::{CERTIFICATE, KEY, Root, private_dir};

const STATE: &str = "rotation.json";
const KEY_PREFIX: &str = "root-key-";
const KEY_SUFFIX: &str = ".pem";
/// Characters of a fingerprint that name a key's file.
const SHORT: usize = 32;
/// The largest state, bytes.
const MAX_STATE: u64 = 256 * 1024;

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// What it holds, and whether that was there; a root is made where there is nothing. A part of a rotation that was cut
    /// short is swept away.
    ///
    /// # Errors
    /// Others can reach it, or what it holds does not belong together: then nothing is made anew.
    pub(super) fn open(
        path: &Path,
        trust_domain: &TrustDomain,
        longest: i64,
        now: OffsetDateTime,
    ) -> Result<(Self, Held, bool), CaError> {
        private_dir(path)?;
        files::sweep(path);
        let directory = Self {
            path: path.to_owned(),
        };
        if !directory.file(STATE).exists() {
            if let Some(key) = directory.later_keys().next() {
                let why = format!(
                    "missing, while `{}` is there; restore it or empty the directory",
                    key.display()
                );
                return Err(CaError::file("state of the roots", directory.file(STATE), why));
            }
            let found = directory.file(KEY).exists();
            let root = Root::load_or_generate(path, trust_domain, now)?;
            let state = State::steady(root.pem().to_owned(), longest, now.unix_timestamp());
            directory.write(&state)?;
            let held = Held {
                state,
                signing: Arc::new(root),
                next: None,
            };
            return Ok((directory, held, found));
        }
        let mut state = directory.read()?;
        directory.refuse_strangers(&state)?;
        let signing = directory.root(state.signing(), now)?;
        let next = match state.stage {
            Stage::Distributing => Some(Arc::new(directory.root(state.other(), now)?)),
            _ => None,
        };
        directory.tidy(&state);
        if state.longest_leaf_s < longest {
            state.longest_leaf_s = longest;
            // A full disk does not keep a mesh from certificates: what is in memory counts, and is written another time.
            if let Err(error) = directory.write(&state) {
                tracing::error!("{error}");
            }
        }
        let held = Held {
            state,
            signing: Arc::new(signing),
            next,
        };
        Ok((directory, held, true))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self) -> Result<State, CaError> {
        let path = self.file(STATE);
        let fail = |why: String| CaError::file("state of the roots", &path, why);
        let size = fs::metadata(&path).map_err(|e| fail(e.to_string()))?.len();
        if size > MAX_STATE {
            return Err(fail(format!("larger than {MAX_STATE} bytes")));
        }
        let text = fs::read(&path).map_err(|e| fail(e.to_string()))?;
        let state: State = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        if !state.is_sound() {
            return Err(fail("its stage and its roots do not belong together".to_owned()));
        }
        Ok(state)
    }

    /// Writes the state.
    ///
    /// # Errors
    /// It cannot be written; the one before is there still.
    pub(super) fn write(&self, state: &State) -> Result<(), CaError> {
        let path = self.file(STATE);
        let text =
            serde_json::to_vec_pretty(state).map_err(|e| CaError::file("state of the roots", &path, e))?;
        files::replace(&path, &text, 0o600).map_err(|e| CaError::file("state of the roots", &path, e))
    }

    /// Writes the key of a later root.
    ///
    /// # Errors
    /// It cannot be written; nothing of it is there then.
    pub(super) fn write_key(&self, root: &Root) -> Result<(), CaError> {
        let path = self.later_key(root.fingerprint());
        files::replace(&path, root.key_pem().as_bytes(), 0o600)
            .map_err(|e| CaError::file("root key", &path, e))
    }

    fn later_key(&self, of: Fingerprint) -> PathBuf {
        let short: String = of.to_string().chars().take(SHORT).collect();
        self.file(&format!("{KEY_PREFIX}{short}{KEY_SUFFIX}"))
    }

    /// The files of keys of later roots.
    fn later_keys(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let keys = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|n| n.starts_with(KEY_PREFIX) && n.ends_with(KEY_SUFFIX))
        });
        keys.map(|entry| entry.path())
    }

    fn root(&self, pem: Option<&String>, now: OffsetDateTime) -> Result<Root, CaError> {
        let state = self.file(STATE);
        let pem = pem.ok_or_else(|| CaError::file("state of the roots", &state, "it names no root"))?;
        let of = fingerprint(pem)
            .ok_or_else(|| CaError::file("state of the roots", &state, "a root in it is no certificate"))?;
        let later = self.later_key(of);
        let key = if later.exists() { later } else { self.file(KEY) };
        if !key.exists() {
            let why = format!("missing: it is the key of root {of}; restore it or empty the directory");
            return Err(CaError::file("root key", key, why));
        }
        Root::with_key(&key, pem, &state, now)
    }

    /// A first root that the state knows nothing of was put there by somebody: which one is meant is not ours to say.
    fn refuse_strangers(&self, state: &State) -> Result<(), CaError> {
        let path = self.file(CERTIFICATE);
        let Ok(pem) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let of = fingerprint(&pem);
        let known = state.roots.iter().any(|root| fingerprint(root) == of)
            || of.is_some_and(|of| state.withdrawn.contains(&of.to_string()));
        if known {
            return Ok(());
        }
        let why = format!("`{STATE}` knows nothing of it; remove the one that is not meant");
        Err(CaError::file("root certificate", path, why))
    }

    /// Removes the keys that sign nothing any more, and the first root once it is withdrawn. A failure is told and made
    /// good at the next start.
    pub(super) fn tidy(&self, state: &State) {
        let mut keep = Vec::new();
        let signers = match state.stage {
            Stage::Distributing => 2,
            Stage::Steady | Stage::Renewing => 1,
        };
        let signers: Vec<_> = state
            .roots
            .iter()
            .take(signers)
            .filter_map(|pem| fingerprint(pem))
            .collect();
        keep.extend(signers.iter().map(|of| self.later_key(*of)));
        let mut remove: Vec<PathBuf> = self.later_keys().filter(|path| !keep.contains(path)).collect();
        let first = fs::read_to_string(self.file(CERTIFICATE)).ok();
        let first = first.and_then(|pem| fingerprint(&pem));
        if first.is_some_and(|of| !signers.contains(&of)) {
            remove.push(self.file(KEY));
            if !state.roots.iter().any(|root| fingerprint(root) == first) {
                remove.push(self.file(CERTIFICATE));
            }
        }
        for path in remove {
            if let Err(error) = files::remove(&path) {
                tracing::error!(%error, path = %path.display(), "what is not needed any more cannot be removed");
            }
        }
    }
}
