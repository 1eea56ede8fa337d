//! A real CA over a real socket, and handshakes between workloads that have their certificates from it.

mod hostile;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::token::{AUDIENCE, Claims, Issuer};
use identity::{CaClient, PeerProblem, Store, StoreOptions, TlsError, TokenFile};
use model::{SpiffeId, TrustDomain};
use rustls::AlertDescription;

struct Mesh {
    dir: tempfile::TempDir,
    issuer: Issuer,
    address: SocketAddr,
}

fn id(td: &str, sa: &str) -> SpiffeId {
    SpiffeId::new(td.parse().unwrap(), "full", sa).unwrap()
}

impl Mesh {
    async fn start(td: &str, leaf_lifetime_s: u64) -> Self {
        Self::signed_by(td, leaf_lifetime_s, None).await
    }

    /// With a CA that was plugged in, if one is given.
    async fn signed_by(td: &str, leaf_lifetime_s: u64, cacerts: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::new("test").unwrap();
        std::fs::write(dir.path().join("jwks"), issuer.jwks()).unwrap();
        let free = (std::net::Ipv4Addr::LOCALHOST, testkit::ports::free_port()).into();
        let config = crate::Config {
            listen: vec![free],
            trust_domain: td.parse().unwrap(),
            dir: None,
            cacerts,
            leaf_lifetime_s,
            token_keys: dir.path().join("jwks"),
            token_issuer: "test".to_owned(),
            token_audience: AUDIENCE.to_owned(),
            root_out: dir.path().join("root.pem"),
            socket: Some(dir.path().join("ca.sock")),
            holders: vec![crate::Holder {
                name: "node-0".to_owned(),
                socket: dir.path().join("node-0.sock"),
            }],
            metrics: Vec::new(),
            metrics_allow: Vec::new(),
        };
        tokio::spawn(crate::run(config, std::future::pending()));
        let root = dir.path().join("root.pem");
        for _ in 0..200 {
            if root.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            dir,
            issuer,
            address: free,
        }
    }

    fn root(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("root.pem")).unwrap()
    }

    fn token(&self, sa: &str, audience: &str) -> TokenFile {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let claims = Claims {
            namespace: "full".to_owned(),
            service_account: sa.to_owned(),
            pod_name: format!("{sa}-1"),
            pod_uid: "u".to_owned(),
            node: "node-0".to_owned(),
        };
        let token = self
            .issuer
            .issue(&claims, audience, now, Duration::from_secs(60))
            .unwrap();
        let path: PathBuf = self.dir.path().join(format!("{sa}-{audience}.token"));
        std::fs::write(&path, token).unwrap();
        TokenFile(path)
    }

    async fn store(&self, td: &str, sa: &str) -> Store {
        let store = self.empty_store(td);
        store.ensure(&id(td, sa), self.token(sa, AUDIENCE)).await.unwrap();
        store
    }

    fn empty_store(&self, td: &str) -> Store {
        let server = SpiffeId::new(td.parse().unwrap(), "meshward-system", "ca").unwrap();
        let client = CaClient::new(self.address, self.dir.path().join("root.pem"), server);
        let store = Store::new(Arc::new(client), StoreOptions::default());
        store.set_roots(&[self.root()]).unwrap();
        store.set_trust_domains(td.parse().unwrap(), vec![]);
        store
    }
}

/// One handshake: what each side says.
async fn shake(
    client: (&Store, &SpiffeId),
    server: (&Store, &SpiffeId),
    expected: &[SpiffeId],
) -> (Result<SpiffeId, TlsError>, Result<SpiffeId, TlsError>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let alpn: &[&[u8]] = &[b"istio-http/1.1", b"istio"];
    let connect = async {
        let mut connected = client
            .0
            .connect(
                client.1,
                near,
                "outbound_.80_._.b.full.svc.cluster.local",
                expected,
                alpn,
            )
            .await?;
        // Under TLS 1.3 a refusal of the client's certificate comes after its own handshake (O-16).
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut connected.stream, &mut byte)
            .await
            .map_err(|e| TlsError::late(&e).unwrap_or(TlsError::Closed))?;
        assert_eq!(connected.alpn.as_deref(), Some(&b"istio-http/1.1"[..]));
        Ok(connected.peer.id().clone())
    };
    let accept = async {
        let mut accepted = server.0.accept(server.1, far, alpn).await?;
        tokio::io::AsyncWriteExt::write_all(&mut accepted.stream, b"x")
            .await
            .unwrap();
        assert_eq!(
            accepted.sni.as_deref(),
            Some("outbound_.80_._.b.full.svc.cluster.local")
        );
        Ok(accepted.peer.id().clone())
    };
    tokio::join!(connect, accept)
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let mesh = Mesh::start("cluster.local", 3600).await;
    let (a, b) = (
        mesh.store("cluster.local", "a").await,
        mesh.store("cluster.local", "b").await,
    );
    let (ida, idb) = (id("cluster.local", "a"), id("cluster.local", "b"));
    let (client, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert_eq!((client.unwrap(), server.unwrap()), (idb.clone(), ida.clone()));

    // Another service than the one that is meant is refused by the client, nobody at all is never connected to.
    let (client, _) = shake((&a, &ida), (&b, &idb), &[id("cluster.local", "c")]).await;
    assert!(
        matches!(&client, Err(TlsError::Peer(PeerProblem::Unexpected(id))) if *id == idb),
        "{client:?}"
    );
    let nobody = a.connect(&ida, tokio::io::duplex(8).0, "x", &[], &[]).await;
    assert!(matches!(nobody, Err(TlsError::NobodyExpected)));
    let (early, _) = (mesh.empty_store("cluster.local"), 0);
    let not_ready = early.accept(&ida, tokio::io::duplex(8).0, &[]).await;
    assert!(matches!(not_ready, Err(TlsError::NotReady(_))));
}

#[tokio::test]
async fn another_root_proves_nothing() {
    let (mesh, other) = (
        Mesh::start("cluster.local", 3600).await,
        Mesh::start("cluster.local", 3600).await,
    );
    let (a, b) = (
        other.store("cluster.local", "a").await,
        mesh.store("cluster.local", "b").await,
    );
    let (ida, idb) = (id("cluster.local", "a"), id("cluster.local", "b"));
    // The client believes both roots, the server only its own.
    a.set_roots(&[other.root(), mesh.root()]).unwrap();
    let (client, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert!(
        matches!(server, Err(TlsError::Peer(PeerProblem::UnknownIssuer))),
        "{server:?}"
    );
    assert!(
        matches!(client, Err(TlsError::Alert(AlertDescription::UnknownCA))),
        "{client:?}"
    );
}

#[tokio::test]
async fn id_07_trust_domains() {
    let (mesh, evil) = (Mesh::start("td", 3600).await, Mesh::start("td.evil", 3600).await);
    let (a, b) = (evil.store("td.evil", "a").await, mesh.store("td", "b").await);
    a.set_roots(&[evil.root(), mesh.root()]).unwrap();
    b.set_roots(&[evil.root(), mesh.root()]).unwrap();
    a.set_trust_domains("td.evil".parse().unwrap(), vec!["td".parse().unwrap()]);
    let (ida, idb) = (id("td.evil", "a"), id("td", "b"));
    let (_, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert!(
        matches!(&server, Err(TlsError::Peer(PeerProblem::TrustDomain(td))) if td.as_str() == "td.evil"),
        "{server:?}"
    );
    // Once it is an alias, it is believed.
    b.set_trust_domains(
        "td".parse::<TrustDomain>().unwrap(),
        vec!["td.evil".parse().unwrap()],
    );
    let (client, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert_eq!((client.unwrap(), server.unwrap()), (idb, ida));
}

#[tokio::test]
async fn roots_of_another_trust_domain_vouch_for_it_and_for_nobody_else() {
    let (mesh, partner, evil) = (
        Mesh::start("td", 3600).await,
        Mesh::start("partner", 3600).await,
        Mesh::start("td", 3600).await,
    );
    let b = mesh.store("td", "b").await;
    let idb = id("td", "b");
    let caller = async |from: &Mesh, td: &str| {
        let a = from.store(td, "a").await;
        a.set_roots(&[from.root(), mesh.root()]).unwrap();
        a.set_trust_domains(td.parse().unwrap(), vec!["td".parse().unwrap()]);
        let (_, server) = shake((&a, &id(td, "a")), (&b, &idb), std::slice::from_ref(&idb)).await;
        server.map_err(|e| e.to_string())
    };
    assert!(
        caller(&partner, "partner")
            .await
            .unwrap_err()
            .contains("unknown issuer")
    );
    let of = |td: &str, from: &Mesh| (td.parse::<TrustDomain>().unwrap(), from.root());
    assert!(
        b.set_bundles(&[of("partner", &partner), of("other", &evil)])
            .is_empty()
    );
    assert_eq!(caller(&partner, "partner").await, Ok(id("partner", "a")));
    // Its root is known, for another trust domain.
    assert!(caller(&evil, "td").await.unwrap_err().contains("unknown issuer"));
    let errors = b.set_bundles(&[("partner".parse().unwrap(), "no PEM".to_owned())]);
    assert!(errors[0].to_string().contains("partner"), "{errors:?}");
    assert!(caller(&partner, "partner").await.is_err());
}

#[tokio::test]
async fn id_04_a_token_for_others_gets_nothing() {
    let mesh = Mesh::start("cluster.local", 3600).await;
    let store = mesh.empty_store("cluster.local");
    let refused = store
        .ensure(&id("cluster.local", "a"), mesh.token("a", "somebody-else"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("another audience"), "{refused}");
    // A token for one account does not name another.
    let refused = store
        .ensure(&id("cluster.local", "b"), mesh.token("a", AUDIENCE))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("it is for"), "{refused}");
}

/// The serial number of a store's only certificate.
fn serial(store: &Store) -> Vec<u8> {
    let hex = store.status().remove(0).serial.unwrap();
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn a_plugged_in_intermediate_signs_and_its_lists_bind_both_sides() {
    use crate::plugged::tests as made;
    let root = made::root(100);
    let ca = made::intermediate(&root, 50);
    let dir = made::directory(&root, &ca);
    let mesh = Mesh::signed_by("cluster.local", 3600, Some(dir.path().to_owned())).await;
    assert_eq!(mesh.ask("status").await.unwrap().stage, "plugged");
    let refused = mesh.ask("rotate").await.unwrap_err();
    assert!(refused.contains("plugged in"), "{refused}");
    let (a, b) = (
        mesh.store("cluster.local", "a").await,
        mesh.store("cluster.local", "b").await,
    );
    let (ida, idb) = (id("cluster.local", "a"), id("cluster.local", "b"));
    let both = |(client, server): (Result<SpiffeId, TlsError>, Result<SpiffeId, TlsError>)| {
        (
            client.map_err(|e| e.to_string()),
            server.map_err(|e| e.to_string()),
        )
    };
    let fine = both(shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await);
    assert_eq!(fine, (Ok(idb.clone()), Ok(ida.clone())));

    let bundle = |list: String| vec![mesh.root(), format!("{}{list}", root.pem())];
    let day = time::Duration::days(1);
    // The server refuses a caller that was revoked, and says so by alert.
    b.set_roots(&bundle(made::list(&ca, Some(&serial(&a)), day)))
        .unwrap();
    let (client, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert!(
        matches!(server, Err(TlsError::Peer(PeerProblem::Revoked))),
        "{server:?}"
    );
    assert!(
        matches!(client, Err(TlsError::Alert(AlertDescription::CertificateRevoked))),
        "{client:?}"
    );
    // So does a client.
    b.set_roots(&[mesh.root()]).unwrap();
    a.set_roots(&bundle(made::list(&ca, Some(&serial(&b)), day)))
        .unwrap();
    let (client, server) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    assert!(
        matches!(client, Err(TlsError::Peer(PeerProblem::Revoked))),
        "{client:?}"
    );
    assert!(
        matches!(server, Err(TlsError::Alert(AlertDescription::CertificateRevoked))),
        "{server:?}"
    );
    // A list that is past its end closes, and says why.
    a.set_roots(&bundle(made::list(&ca, None, -day))).unwrap();
    let (client, _) = shake((&a, &ida), (&b, &idb), std::slice::from_ref(&idb)).await;
    let why = client.unwrap_err().to_string();
    assert!(why.contains("revocation list of its issuer has expired"), "{why}");
}

/// A holder of certificates, as a node's proxy is: it follows the bundle, and says what it has.
struct Holds(Store);

impl admin::Handler for Holds {
    async fn call(&self, _: admin::Call) -> Result<serde_json::Value, admin::Failure> {
        let leaf = |one: identity::CertificateStatus| {
            Some(admin::trust::Leaf {
                id: one.id.to_string(),
                root: one.root,
                not_after: one.not_after?,
            })
        };
        let holding = admin::trust::Holding {
            roots: self.0.roots(),
            leaves: self.0.status().into_iter().filter_map(leaf).collect(),
        };
        Ok(serde_json::to_value(holding).unwrap())
    }
}

impl Mesh {
    fn hold(&self, store: &Store) {
        let socket = self.dir.path().join("node-0.sock");
        let desk = Arc::new(Holds(store.clone()));
        tokio::spawn(async move { admin::serve(&socket, desk).await });
        let (store, bundle) = (store.clone(), self.dir.path().join("root.pem"));
        tokio::spawn(async move {
            let mut last = String::new();
            loop {
                let now = std::fs::read_to_string(&bundle).unwrap();
                if now != last {
                    store.set_roots(std::slice::from_ref(&now)).unwrap();
                    last = now;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    async fn ask(&self, verb: &str) -> Result<admin::trust::CaStatus, String> {
        let socket = self.dir.path().join("ca.sock");
        let answer = admin::call(&socket, verb, serde_json::Value::Null, Vec::new());
        let value = answer.await.unwrap().finish().await.map_err(|f| f.message)?;
        Ok(serde_json::from_value(value).unwrap())
    }
}

#[tokio::test]
async fn a_rotation_goes_from_stage_to_stage_as_holders_follow_and_ends_the_old_root() {
    let mesh = Mesh::start("cluster.local", 3600).await;
    let (left, holder) = (
        mesh.store("cluster.local", "a").await,
        mesh.store("cluster.local", "b").await,
    );
    let (ida, idb) = (id("cluster.local", "a"), id("cluster.local", "b"));
    let old = mesh.ask("status").await.unwrap().roots[0].fingerprint.clone();
    // Nobody answers for the holder: its certificates last an hour, and so does the stage.
    let begun = mesh.ask("rotate").await.unwrap();
    assert_eq!((begun.stage.as_str(), begun.roots.len()), ("distributing", 2));
    assert!(mesh.ask("rotate").await.unwrap_err().contains("under way"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let waiting = mesh.ask("status").await.unwrap();
    assert_eq!(waiting.stage, "distributing");
    assert!(
        waiting.waiting_for[0].starts_with("node-0 does not say"),
        "{waiting:?}"
    );
    mesh.hold(&holder);
    let begin = std::time::Instant::now();
    let mut over = mesh.ask("status").await.unwrap();
    while over.stage != "steady" {
        // What is under way works in every stage.
        let (client, server) = shake((&holder, &idb), (&holder, &idb), std::slice::from_ref(&idb)).await;
        assert!(client.is_ok() && server.is_ok(), "{client:?} {server:?}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{over:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        over = mesh.ask("status").await.unwrap();
    }
    assert_ne!(over.roots[0].fingerprint, old);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(holder.roots(), [over.roots[0].fingerprint.clone()]);
    // One that has stayed with the old root proves nothing any more.
    let (_, server) = shake((&left, &ida), (&holder, &idb), std::slice::from_ref(&idb)).await;
    assert!(server.is_err(), "{server:?}");
}

#[tokio::test]
async fn id_11_what_changes_of_a_plugged_in_ca_is_taken_and_what_is_broken_is_not() {
    use crate::plugged::tests as made;
    let root = made::root(100);
    let ca = made::intermediate(&root, 50);
    let dir = made::directory(&root, &ca);
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let mesh = Mesh::signed_by("cluster.local", 3600, Some(dir.path().to_owned())).await;
    let published = async |what: &str, so: &dyn Fn(&str) -> bool| {
        for _ in 0..100 {
            if so(&mesh.root()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: {}", mesh.root());
    };
    put("ca-crl.pem", &made::list(&ca, None, time::Duration::days(1)));
    published("a list that comes is distributed", &|text| {
        text.contains("X509 CRL")
    })
    .await;
    // Another root instead of the one that is believed, or a key of another CA: everything stays.
    let other = made::root(100);
    put("root-cert.pem", &other.pem());
    put("ca-key.pem", &other.key().serialize_pem());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(mesh.root().contains(&root.pem()) && !mesh.root().contains(&other.pem()));
    mesh.store("cluster.local", "a").await;
    // Beside it, it may come.
    put("ca-key.pem", &ca.key().serialize_pem());
    put("root-cert.pem", &format!("{}{}", root.pem(), other.pem()));
    published("both roots", &|text| {
        text.contains(&other.pem()) && text.contains(&root.pem())
    })
    .await;
    let store = mesh.store("cluster.local", "b").await;
    assert!(store.ready(&id("cluster.local", "b")));
}
