//! Certificates that somebody else has issued and sees to: a machine's own, or a gateway's.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use model::SpiffeId;
use tokio::sync::oneshot;

use super::{Command, Current, Store};
use crate::error::IssueError;
use crate::pki;
use crate::tls::PeerIdentity;

/// The longest chain that is taken.
const MAX_CHAIN: usize = 8;

impl Store {
    /// Uses a certificate chain, leaf first, and its key, both PEM, until another one is given for the same identity.
    /// Nothing is renewed: once it has expired every handshake of the identity is refused. Returns whose it is.
    ///
    /// # Errors
    /// A text is not PEM, the chain is too long, the key is not the leaf's, or the leaf has expired or names no identity.
    pub async fn give(&self, chain: &str, key: &str) -> Result<SpiffeId, String> {
        let chain = pki::certificates(chain)?;
        if chain.len() > MAX_CHAIN {
            return Err("the chain is too long".to_owned());
        }
        let leaf = chain.first().ok_or("no certificate")?;
        let facts = pki::facts(leaf).map_err(|e| e.to_string())?;
        if facts.not_after <= self.shared.now() {
            return Err("the certificate has expired already".to_owned());
        }
        let id = facts.id.clone();
        let current = Current {
            peer: PeerIdentity::local(id.clone(), leaf, facts.not_after),
            certified: Arc::new(pki::certified(chain, key)?),
            facts,
            root: None,
            configs: ArcSwapOption::empty(),
        };
        let (taken, told) = oneshot::channel();
        let command = Command::Given {
            id: id.clone(),
            current: Box::new(current),
            taken,
        };
        let gone = || IssueError::GivenUp.to_string();
        self.commands.send(command).await.map_err(|_| gone())?;
        let told = told.await.map_err(|_| gone())?;
        told.map_err(|error| error.to_string())?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    use super::*;
    use crate::{CertificateAuthority, Signing, StoreOptions};

    /// A CA that nobody asks.
    struct Nobody;

    impl CertificateAuthority for Nobody {
        fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
            Box::pin(async { Err(IssueError::Refused("nobody is asked".to_owned())) })
        }
    }

    struct Given {
        root: String,
        chain: String,
        key: String,
    }

    fn issue(uri: &str) -> Given {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        Given {
            root: ca.pem(),
            chain: leaf.signed_by(&key, &ca).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    const ID: &str = "spiffe://cluster.local/ns/full/sa/vm";

    #[tokio::test]
    async fn a_given_certificate_proves_its_identity_and_nobody_is_asked() {
        let store = Store::new(Arc::new(Nobody), StoreOptions::default());
        let given = issue(ID);
        store.set_roots(std::slice::from_ref(&given.root)).unwrap();
        store.set_trust_domains("cluster.local".parse().unwrap(), vec![]);
        let id = store.give(&given.chain, &given.key).await.unwrap();
        assert_eq!(id.to_string(), ID);
        assert!(store.ready(&id));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let expected = [id.clone()];
        let (accepted, connected) = tokio::join!(
            store.accept(&id, far, &[b"h2"]),
            store.connect(&id, near, "", &expected, &[b"h2"]),
        );
        assert_eq!(accepted.unwrap().peer.id(), &id);
        assert_eq!(connected.unwrap().peer.id(), &id);
    }

    #[tokio::test]
    async fn what_proves_nothing_is_not_taken() {
        let store = Store::new(Arc::new(Nobody), StoreOptions::default());
        let (given, other) = (issue(ID), issue(ID));
        for (chain, key, why) in [
            (&given.chain, &other.key, "not the certificate's"),
            (&given.key, &given.key, "no certificate"),
            (&given.chain, &given.chain, "not PEM"),
            (
                &issue("https://example.com/").chain,
                &given.key,
                "not a workload identity",
            ),
        ] {
            let refused = store.give(chain, key).await.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(store.status().is_empty());
    }
}
