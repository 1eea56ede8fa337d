//! The test bed: a certificate authority made by hand, a control plane, and proxies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use admin::Failure;
use admin::verbs::{Apply, Document, Outcome, Status};
use identity::token::{AUDIENCE, Claims, ISSUER, Issuer};
use identity::{
    CertificateAuthority, Clock, IssueError, Signing, Store, StoreOptions, SystemClock, TokenFile,
};
use model::{Profile, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use snapshot::{ResourceName, Resources};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use xds::client::{self, Connect, Options};

use crate::config::{Config, NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE, Source};

pub(super) const SOON: Duration = Duration::from_secs(10);

/// Signs what the token says, without judging it.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub(super) root: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            root: certificate.pem(),
            issuer: rcgen::Issuer::new(params, key),
        }
    }
}

/// One caller of it: who it is does not matter to this authority.
pub(super) struct Caller(pub(super) Arc<Authority>, pub(super) SpiffeId);

impl CertificateAuthority for Caller {
    fn sign<'a>(&'a self, csr_pem: &'a str, _token: &'a str, _lifetime: Duration) -> Signing<'a> {
        Box::pin(async move {
            let request = CertificateSigningRequestParams::from_pem(csr_pem)
                .map_err(|error| IssueError::Refused(error.to_string()))?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(self.1.to_string().try_into().unwrap())];
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            params.use_authority_key_identifier_extension = true;
            let leaf = params.signed_by(&request.public_key, &self.0.issuer).unwrap();
            Ok(vec![leaf.pem(), self.0.root.clone()])
        })
    }
}

/// A mesh of this many nodes, with a directory `src` as its source.
pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) authority: Arc<Authority>,
    pub(super) issuer: Issuer,
    tasks: Option<JoinSet<Result<(), String>>>,
}

pub(super) fn id(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), SYSTEM_NAMESPACE, account).unwrap()
}

impl Bed {
    pub(super) async fn start(nodes: &[&str], files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("src");
        std::fs::create_dir(&src).unwrap();
        for (name, text) in files {
            std::fs::write(src.join(name), text).unwrap();
        }
        let authority = Arc::new(Authority::new());
        let issuer = Issuer::new(ISSUER).unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("roots.pem"), &authority.root).unwrap();
        std::fs::write(at("keys.json"), issuer.jwks()).unwrap();
        std::fs::write(at("token"), "any").unwrap();
        let listen = free();
        let config = Config {
            listen: vec![listen],
            socket: at("control.sock"),
            sources: vec![Source {
                path: src,
                shown: "mesh".to_owned(),
            }],
            recursive: true,
            state: at("state"),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            profile: Profile::Secure,
            trust_domain: TrustDomain::default(),
            ca: listen,
            roots: at("roots.pem"),
            token: at("token"),
            token_keys: at("keys.json"),
            metrics: Vec::new(),
            metrics_allow: Vec::new(),
            fetching: crate::Fetching::default(),
        };
        let mut bed = Self {
            dir,
            config,
            authority,
            issuer,
            tasks: None,
        };
        bed.restart().await;
        bed
    }

    pub(super) async fn stop(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    pub(super) async fn restart(&mut self) {
        self.stop().await;
        let authority = Arc::new(Caller(Arc::clone(&self.authority), id(OWN_ACCOUNT)));
        self.tasks = Some(crate::run::start(self.config.clone(), authority).await.unwrap());
        self.until(|status| !status.profile.is_empty()).await;
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("src").join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    pub(super) fn token(&self, namespace: &str, account: &str, node: &str, audience: &str) -> String {
        let claims = Claims {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            pod_name: String::new(),
            pod_uid: String::new(),
            node: node.to_owned(),
        };
        let now = SystemClock.now().as_secs();
        self.issuer
            .issue(&claims, audience, now, Duration::from_mins(5))
            .unwrap()
    }

    /// A proxy as it should be. It refuses sets that hold the policy `demo/refused`.
    pub(super) async fn proxy(&self, node: &str) -> Proxy {
        let token = self.token(SYSTEM_NAMESPACE, NODE_ACCOUNT, node, AUDIENCE);
        self.proxy_with(node, NODE_ACCOUNT, token).await
    }

    pub(super) async fn proxy_with(&self, node: &str, account: &str, token: String) -> Proxy {
        let own = id(account);
        let store = Store::new(
            Arc::new(Caller(Arc::clone(&self.authority), own.clone())),
            StoreOptions::default(),
        );
        store
            .set_roots(std::slice::from_ref(&self.authority.root))
            .unwrap();
        store.set_trust_domains(TrustDomain::default(), vec![]);
        store
            .ensure(&own, TokenFile(self.config.token.clone()))
            .await
            .unwrap();
        let dial = Dial {
            to: self.config.listen[0],
            store,
            own,
            token,
        };
        let (send, sets) = mpsc::unbounded_channel();
        let held = Arc::new(Mutex::new(Resources::default()));
        let kept = Arc::clone(&held);
        let options = Options::new(node, || 0.5);
        let task = tokio::spawn(async move {
            client::run(options, dial, move |set, version| {
                if set.get(&ResourceName::from("policy/demo/refused")).is_some() {
                    return Err("the policy `demo/refused` is not understood".to_owned());
                }
                *kept.lock().unwrap() = set;
                let _ = send.send(version);
                Ok(())
            })
            .await
        });
        Proxy { held, sets, task }
    }

    pub(super) async fn call(&self, verb: &str, body: Value) -> (Vec<Value>, Result<Value, Failure>) {
        let mut answer = admin::call(&self.config.socket, verb, body, vec![])
            .await
            .unwrap();
        let mut items = Vec::new();
        while let Some(item) = answer.item().await {
            items.push(item);
        }
        (items, answer.finish().await)
    }

    pub(super) async fn apply(&self, text: &str, wait_ms: u64) -> Vec<Outcome> {
        let document = Document {
            file: "mine.yaml".to_owned(),
            text: text.to_owned(),
        };
        let body = Apply {
            documents: vec![document],
            wait_ms,
            dry_run: false,
        };
        let (items, result) = self.call("apply", json!(body)).await;
        assert_eq!(result, Ok(Value::Null));
        items
            .into_iter()
            .map(|item| serde_json::from_value(item).unwrap())
            .collect()
    }

    pub(super) async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Vec<Outcome> {
        let objects = json!([{"kind": kind, "namespace": namespace, "name": name}]);
        let (items, result) = self
            .call("delete", json!({"objects": objects, "waitMs": 5000}))
            .await;
        assert_eq!(result, Ok(Value::Null));
        items
            .into_iter()
            .map(|item| serde_json::from_value(item).unwrap())
            .collect()
    }

    /// The names of the objects that are held of a kind.
    pub(super) async fn names(&self, kind: &str) -> Vec<String> {
        let (items, _) = self
            .call("get", json!({"kind": kind, "namespace": null, "name": null}))
            .await;
        let name = |item: &Value| item["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        items.iter().map(name).collect()
    }

    pub(super) async fn status(&self) -> Option<Status> {
        let answer = admin::call(&self.config.socket, "status", Value::Null, vec![])
            .await
            .ok()?;
        let value = answer.finish().await.ok()?;
        serde_json::from_value(value).ok()
    }

    /// Waits for a status.
    pub(super) async fn until(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let waited = tokio::time::timeout(SOON, async {
            loop {
                if let Some(status) = self.status().await {
                    if wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("not within {SOON:?}: {last:#?}"))
    }

    pub(super) async fn until_names(&self, kind: &str, wanted: &[&str]) {
        let waited = tokio::time::timeout(SOON, async {
            while self.names(kind).await != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(
            waited.is_ok(),
            "{kind}: {:?} is not {wanted:?}",
            self.names(kind).await
        );
    }
}

pub(super) fn free() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, testkit::ports::free_port()).into()
}

/// Moves a file to its place, as editors write.
pub(super) fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("swp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

struct Dial {
    to: SocketAddr,
    store: Store,
    own: SpiffeId,
    token: String,
}

impl Connect for Dial {
    type Io = identity::ClientStream<TcpStream>;

    async fn connect(&mut self) -> Result<(Self::Io, String), String> {
        let tcp = TcpStream::connect(self.to).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let expected = [id(OWN_ACCOUNT)];
        let connected = self.store.connect(&self.own, tcp, "", &expected, &[b"h2"]).await;
        let connected = connected.map_err(|e| e.to_string())?;
        Ok((connected.stream, self.token.clone()))
    }
}

/// A proxy that was started.
pub(super) struct Proxy {
    held: Arc<Mutex<Resources>>,
    pub(super) sets: mpsc::UnboundedReceiver<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) fn has(&self, name: &str) -> bool {
        self.held.lock().unwrap().get(&ResourceName::from(name)).is_some()
    }

    /// The keys that it holds of a source.
    pub(super) fn keys(&self, source: &str) -> Option<String> {
        let held = self.held.lock().unwrap();
        match held.get(&ResourceName::jwks(source))?.as_ref() {
            snapshot::Resource::Jwks(jwks) => jwks.keys.clone(),
            _ => None,
        }
    }

    /// Waits until these trust domains have roots of their own.
    pub(super) async fn until_bundles(&mut self, trust_domains: &[&str]) {
        let of = |held: &Mutex<Resources>| -> Vec<String> {
            match held.lock().unwrap().get(&ResourceName::mesh()).map(AsRef::as_ref) {
                Some(snapshot::Resource::Mesh(mesh)) => {
                    let bundles = mesh.tls.bundles.iter();
                    bundles.map(|bundle| bundle.trust_domain.to_string()).collect()
                }
                _ => vec!["none yet".to_owned()],
            }
        };
        let waited = tokio::time::timeout(SOON, async {
            while of(&self.held) != trust_domains {
                self.sets.recv().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "{:?}", of(&self.held));
    }

    /// Waits until it holds these keys of a source.
    pub(super) async fn until_keys(&mut self, source: &str, keys: Option<&str>) {
        let waited = tokio::time::timeout(SOON, async {
            while self.keys(source).as_deref() != keys {
                self.sets.recv().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "{:?}", self.keys(source));
    }

    /// Waits until it holds a resource, or does not.
    pub(super) async fn until(&mut self, name: &str, there: bool) {
        let waited = tokio::time::timeout(SOON, async {
            while self.has(name) != there {
                self.sets.recv().await.unwrap();
            }
        });
        assert!(
            waited.await.is_ok(),
            "`{name}` is not {there} in {:?}",
            self.held.lock().unwrap()
        );
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A pod of the namespace `demo` on a node, as `up` reports it.
pub(super) fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "demo", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": node, "serviceAccountName": name, "containers": [{"name": "c", "image": "x"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The mesh's namespace.
pub(super) const NAMESPACE: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo, labels: {istio-injection: enabled}}\n";

pub(super) fn policy(name: &str, app: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: demo}}\n\
         spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  action: DENY\n  rules:\n  - to:\n    - operation: {{ports: [\"9\"]}}\n"
    )
}

pub(super) fn config_map(name: &str, text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: demo}}\ndata: {{text: {text}}}\n"
    )
}
