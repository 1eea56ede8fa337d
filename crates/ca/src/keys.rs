//! The public keys that callers' tokens are verified with: a file, read again when it has changed and a token names a
//! key that is not known.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use identity::token::{Claims, TokenError, Verifier};

use crate::config::{CaError, Config};

/// The most often that the file is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// The largest key file.
const MAX_KEYS: u64 = 1024 * 1024;

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Keys {
    file: PathBuf,
    issuer: String,
    audience: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    verifier: Arc<Verifier>,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl Keys {
    /// Reads the keys.
    pub(crate) fn new(config: &Config) -> Result<Self, CaError> {
        let fail = |why: String| CaError::file("token keys", &config.token_keys, why);
        let (text, modified) = read(&config.token_keys).map_err(fail)?;
        let verifier = Verifier::new(&text, &config.token_issuer, &config.token_audience)
            .map_err(|e| fail(e.to_string()))?;
        Ok(Self {
            file: config.token_keys.clone(),
            issuer: config.token_issuer.clone(),
            audience: config.token_audience.clone(),
            state: Mutex::new(State {
                verifier: Arc::new(verifier),
                modified,
                looked: Instant::now(),
            }),
        })
    }

    /// Verifies a token at `now`, seconds since 1970.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let verifier = Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).verifier);
        match verifier.verify(token, now) {
            Err(TokenError::UnknownKey) => match self.reload() {
                Some(newer) => newer.verify(token, now),
                None => Err(TokenError::UnknownKey),
            },
            other => other,
        }
    }

    /// The newer keys, where the file has changed. What cannot be used changes nothing.
    fn reload(&self) -> Option<Arc<Verifier>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < PAUSE {
            return None;
        }
        state.looked = Instant::now();
        let modified = std::fs::metadata(&self.file).and_then(|m| m.modified()).ok();
        if modified == state.modified {
            return None;
        }
        let newer = read(&self.file).and_then(|(text, modified)| {
            let verifier = Verifier::new(&text, &self.issuer, &self.audience).map_err(|e| e.to_string())?;
            Ok((Arc::new(verifier), modified))
        });
        match newer {
            Ok((verifier, modified)) => {
                tracing::info!(file = %self.file.display(), "token keys read again");
                state.verifier = Arc::clone(&verifier);
                state.modified = modified;
                Some(verifier)
            }
            Err(why) => {
                tracing::warn!(file = %self.file.display(), "token keys stay as they were: {why}");
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<(String, Option<SystemTime>), String> {
    let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if meta.len() > MAX_KEYS {
        return Err(format!("larger than {MAX_KEYS} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    Ok((text, meta.modified().ok()))
}
