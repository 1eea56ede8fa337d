//! Service account tokens, as files: what the API server's TokenRequest and the kubelet's projection are on Kubernetes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use admin::RunDir;
use control::{NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE};
use identity::token::{AUDIENCE, Claims, ISSUER, Issuer};

use super::write_private;

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How old it becomes before it is replaced.
const RENEWAL: Duration = Duration::from_secs(12 * 60 * 60);
/// How often it is looked for tokens to be renewed.
const LOOK: Duration = Duration::from_secs(60);

/// The tokens of a mesh. The key that signs them is in memory alone.
#[derive(Debug)]
pub(crate) struct Tokens {
    issuer: Issuer,
    run: RunDir,
    /// What is written under which name, and when it was.
    written: Mutex<BTreeMap<String, (Claims, SystemTime)>>,
}

impl Tokens {
    /// Makes a key, and writes its public half.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn new(run: &RunDir) -> Result<Self, String> {
        let issuer = Issuer::new(ISSUER)?;
        let path = run.token_keys();
        write_private(&path, issuer.jwks().as_bytes())
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
        Ok(Self {
            issuer,
            run: run.clone(),
            written: Mutex::default(),
        })
    }

    /// Writes the control plane's token.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn for_control(&self) -> Result<(), String> {
        self.write("control", system(OWN_ACCOUNT, ""))
    }

    /// Writes a node's.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn for_node(&self, node: &str) -> Result<(), String> {
        self.write(node, system(NODE_ACCOUNT, node))
    }

    /// Writes a pod's.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn for_pod(&self, claims: Claims) -> Result<(), String> {
        self.write(&claims.pod_uid.clone(), claims)
    }

    /// Takes one away.
    pub(crate) fn remove(&self, name: &str) {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        let _ = std::fs::remove_file(self.run.token(name));
    }

    /// Renews them for ever.
    pub(crate) async fn renew(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            for (name, claims) in self.due(SystemTime::now()) {
                if let Err(why) = self.write(&name, claims) {
                    tracing::error!(name, why, "a token could not be renewed");
                }
            }
        }
    }

    fn due(&self, now: SystemTime) -> Vec<(String, Claims)> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age >= RENEWAL);
        let due = written.iter().filter(|(_, (_, at))| old(at));
        due.map(|(name, (claims, _))| (name.clone(), claims.clone()))
            .collect()
    }

    fn write(&self, name: &str, claims: Claims) -> Result<(), String> {
        let now = SystemTime::now();
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_err(|_| "the clock is before 1970".to_owned())?
            .as_secs();
        let token = self.issuer.issue(&claims, AUDIENCE, seconds, LIFETIME)?;
        let path = self.run.token(name);
        write_private(&path, token.as_bytes())
            .map_err(|error: io::Error| format!("cannot write `{}`: {error}", path.display()))?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(name.to_owned(), (claims, now));
        Ok(())
    }
}

fn system(account: &str, node: &str) -> Claims {
    Claims {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        service_account: account.to_owned(),
        pod_name: String::new(),
        pod_uid: String::new(),
        node: node.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::token::Verifier;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens_are_private_files_that_are_renewed_at_half_life() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::at(dir.path().join("mesh"));
        run.create().unwrap();
        let tokens = Tokens::new(&run).unwrap();
        tokens.for_node("node-0").unwrap();
        let path = run.token("node-0");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let keys = std::fs::read_to_string(run.token_keys()).unwrap();
        let verifier = Verifier::new(&keys, ISSUER, AUDIENCE).unwrap();
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = verifier
            .verify(&std::fs::read_to_string(&path).unwrap(), seconds)
            .unwrap();
        assert_eq!(
            (claims.service_account.as_str(), claims.node.as_str()),
            ("node", "node-0")
        );

        assert!(tokens.due(now + RENEWAL / 2).is_empty());
        assert_eq!(tokens.due(now + RENEWAL + LOOK).len(), 1);
        tokens.remove("node-0");
        assert!(!path.exists() && tokens.due(now + RENEWAL + LOOK).is_empty());
    }
}
