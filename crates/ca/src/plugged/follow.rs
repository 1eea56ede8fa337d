//! A plugged-in CA whose files change: a new intermediate, a new revocation list, another root beside the one there is
//! (semantics 5.4, ID-11).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::pki;
use model::TrustDomain;
use time::OffsetDateTime;

use super::{Files, ISTIO, LISTS, TLS};
use crate::root::Root;
use crate::roots::Roots;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Takes the files of `dir` whenever they have changed. What cannot be used leaves in force what there was, and is told
/// once for each change.
pub(crate) async fn follow(dir: Option<PathBuf>, trust_domain: TrustDomain, roots: Arc<Roots>) {
    let Some(dir) = dir else {
        return std::future::pending().await;
    };
    let mut seen = stamp(&dir);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp(&dir);
        if now == seen {
            continue;
        }
        seen = now;
        match again(&dir, &trust_domain, &roots.signing()) {
            Ok(root) => {
                tracing::info!("the plugged-in CA was read again");
                roots.plug(root, OffsetDateTime::now_utc());
            }
            Err(why) => tracing::error!("the plugged-in CA stays as it was: {why}"),
        }
    }
}

/// Which files there are, and when each was changed.
fn stamp(dir: &Path) -> Vec<Option<(SystemTime, u64)>> {
    let names = ISTIO.iter().chain(&TLS).chain(std::iter::once(&LISTS));
    names
        .map(|name| {
            let meta = std::fs::metadata(dir.join(name)).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
        .collect()
}

/// The CA of the files, if it may take the place of the one that signs: everybody still believes what that one signed.
fn again(dir: &Path, trust_domain: &TrustDomain, before: &Root) -> Result<Root, String> {
    let files = Files::of(dir).map_err(|e| e.to_string())?;
    let root = Root::plugged(&files, trust_domain, OffsetDateTime::now_utc()).map_err(|e| e.to_string())?;
    let (old, new) = (pki::certificates(before.pem())?, pki::certificates(root.pem())?);
    if old.iter().all(|der| new.contains(der)) {
        return Ok(root);
    }
    Err(format!(
        "`{}` lacks a root that is believed now: keep it beside the new one until no leaf depends on it, and restart then",
        files.roots.display()
    ))
}
