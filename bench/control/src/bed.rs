//! A certificate authority here, a control plane as a process of its own, and what the system says of that.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::token::{AUDIENCE, Claims, ISSUER, Issuer};
use identity::{CaClient, Clock, Store, StoreOptions, SystemClock, TokenFile};
use model::{Profile, SpiffeId, TrustDomain};
use serde_json::{Value, json};

use crate::world::{self, Size};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub config: control::Config,
    /// The identity of the nodes' proxies.
    pub store: Store,
    issuer: Issuer,
    control: Option<Child>,
    _ca: tokio::task::JoinHandle<()>,
}

pub fn id(account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), control::SYSTEM_NAMESPACE, account).unwrap()
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Bed {
    pub async fn new(size: Size) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("src")).unwrap();
        for (name, text) in world::objects(size) {
            std::fs::write(at("src").join(name), text).unwrap();
        }
        let issuer = Issuer::new(ISSUER).unwrap();
        std::fs::write(at("keys.json"), issuer.jwks()).unwrap();
        let address = free();
        let config = ca::Config {
            listen: vec![address],
            trust_domain: TrustDomain::default(),
            dir: None,
            cacerts: None,
            leaf_lifetime_s: 3600,
            token_keys: at("keys.json"),
            token_issuer: ISSUER.to_owned(),
            token_audience: AUDIENCE.to_owned(),
            root_out: at("roots.pem"),
            socket: None,
            holders: Vec::new(),
            metrics: Vec::new(),
            metrics_allow: Vec::new(),
        };
        let ca = tokio::spawn(async move {
            ca::run(config, std::future::pending()).await.unwrap();
        });
        until(|| at("roots.pem").exists()).await;
        let config = control::Config {
            listen: vec![free()],
            socket: at("control.sock"),
            sources: vec![control::Source {
                path: at("src"),
                shown: "mesh".to_owned(),
            }],
            recursive: true,
            state: at("state"),
            nodes: (0..size.nodes).map(world::node).collect(),
            profile: Profile::Secure,
            trust_domain: TrustDomain::default(),
            ca: address,
            roots: at("roots.pem"),
            token: at("control-token"),
            token_keys: at("keys.json"),
            metrics: Vec::new(),
            metrics_allow: Vec::new(),
            fetching: control::Fetching::default(),
        };
        std::fs::write(at("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let authority = CaClient::new(address, at("roots.pem"), id("ca"));
        let store = Store::new(Arc::new(authority), StoreOptions::default());
        store
            .set_roots(&[std::fs::read_to_string(at("roots.pem")).unwrap()])
            .unwrap();
        store.set_trust_domains(TrustDomain::default(), Vec::new());
        let bed = Self {
            config,
            store,
            issuer,
            control: None,
            _ca: ca,
            dir,
        };
        std::fs::write(&bed.config.token, bed.token(control::OWN_ACCOUNT, "")).unwrap();
        let own = bed.dir.path().join("node-token");
        std::fs::write(&own, bed.token(control::NODE_ACCOUNT, "node-0")).unwrap();
        bed.store
            .ensure(&id(control::NODE_ACCOUNT), TokenFile(own))
            .await
            .unwrap();
        bed
    }

    /// A token of the mesh's own, as the lab gives them out.
    pub fn token(&self, account: &str, node: &str) -> String {
        let claims = Claims {
            namespace: control::SYSTEM_NAMESPACE.to_owned(),
            service_account: account.to_owned(),
            pod_name: String::new(),
            pod_uid: String::new(),
            node: node.to_owned(),
        };
        let now = SystemClock.now().as_secs();
        self.issuer
            .issue(&claims, AUDIENCE, now, Duration::from_secs(3600))
            .unwrap()
    }

    /// Starts the control plane; returns the time until it answers.
    pub async fn start(&mut self) -> Duration {
        self.stop();
        let _ = std::fs::remove_file(&self.config.socket);
        let begin = Instant::now();
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .arg(self.dir.path().join("config.json"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.control = Some(child);
        loop {
            if let Ok(answer) = admin::call(&self.config.socket, "status", Value::Null, vec![]).await
                && answer.finish().await.is_ok()
            {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < PATIENCE, "the control plane does not answer");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.control.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the control plane for something over its socket.
    pub async fn call(&self, verb: &str, body: Value) {
        let answer = admin::call(&self.config.socket, verb, body, vec![]).await;
        let result = answer.unwrap().finish().await;
        assert!(result.is_ok(), "{verb}: {result:?}");
    }

    pub async fn apply(&self, text: &str) {
        let body = json!({
            "documents": [{"file": "bench.yaml", "text": text}], "waitMs": 0, "dryRun": false,
        });
        self.call("apply", body).await;
    }

    fn pid(&self) -> u32 {
        self.control.as_ref().unwrap().id()
    }

    /// Processor time of the control plane so far, user and system, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    /// Resident memory of the control plane, now and at most, in MiB.
    pub fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let read = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            kib / 1024.0
        };
        (read("VmRSS:"), read("VmHWM:"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until something holds, and says for how long.
pub async fn until(holds: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it takes too long");
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    begin.elapsed()
}

/// What the process for the control plane does.
pub fn serve(config: &Path) {
    let config = control::Config::read(&PathBuf::from(config)).unwrap();
    // As the program that people start has it.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(control::run(config)).unwrap();
}
