//! The parts, as far as the lab asks anything of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use admin::verbs::{Desired, NodeState, Report, Status};
use admin::{Call, Failure, Handler};
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(10);

pub(crate) fn run(part: &str, config: &Path) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match part {
            "ca" => {
                let config = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
                ca::run(config, std::future::pending()).await.unwrap();
            }
            "control" => {
                let config = control::Config::read(config).unwrap();
                let socket = config.socket.clone();
                let control = Control {
                    config,
                    report: Mutex::default(),
                };
                admin::serve(&socket, Arc::new(control)).await.unwrap();
            }
            _ => {
                let config = proxy::Config::read(config).unwrap();
                let socket = config.socket.clone();
                admin::serve(&socket, Arc::new(Proxy { config })).await.unwrap();
            }
        }
    });
    0
}

/// Wants whatever is written in its sources.
struct Control {
    config: control::Config,
    report: Mutex<Report>,
}

impl Handler for Control {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "desired" => {
                let mut last = None;
                loop {
                    let objects = self.objects();
                    if last.as_ref() != Some(&objects) {
                        let desired = Desired {
                            objects: objects.clone(),
                            trust_domain: self.config.trust_domain.to_string(),
                            ..Desired::default()
                        };
                        if call.items.send(&desired).await.is_err() {
                            return Ok(Value::Null);
                        }
                        last = Some(objects);
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
            "report" => {
                *self.report.lock().unwrap() = call.parse()?;
                Ok(Value::Null)
            }
            // For the tests: what was reported.
            "reported" => Ok(json!(self.report.lock().unwrap().pods)),
            "pods" => Ok(json!([])),
            "status" => Ok(json!(self.status())),
            other => panic!("nobody asks for {other}"),
        }
    }
}

impl Control {
    fn objects(&self) -> Vec<Value> {
        let dir = &self.config.sources[0].path;
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        let mut objects = Vec::new();
        for file in files {
            let parsed = api::parse("f", &std::fs::read(file).unwrap_or_default());
            assert!(!parsed.has_errors(), "{:?}", parsed.problems);
            objects.extend(parsed.objects.into_iter().map(|object| object.json));
        }
        objects
    }

    fn status(&self) -> Status {
        let node = |node: &String| NodeState {
            node: node.clone(),
            connected: true,
            published: 1,
            acknowledged: 1,
            refused: None,
        };
        Status {
            profile: String::new(),
            defaults: Vec::new(),
            nodes: self.config.nodes.iter().map(node).collect(),
            objects: Vec::new(),
            problems: Vec::new(),
            not_acted_on: Vec::new(),
            revocation_lists: Vec::new(),
        }
    }
}

/// Has a certificate for whoever is registered.
struct Proxy {
    config: proxy::Config,
}

impl Handler for Proxy {
    async fn call(&self, call: Call) -> Result<Value, Failure> {
        assert_eq!(call.verb, "proxy");
        let files = std::fs::read_dir(&self.config.workloads).unwrap();
        let mut identities = BTreeSet::new();
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(text) = std::fs::read(path)
            {
                let registration: proxy::Registration = serde_json::from_slice(&text).unwrap();
                let token = std::fs::read_to_string(&registration.token).unwrap_or_default();
                if let Some(identity) = registration.identity {
                    assert!(
                        !token.is_empty(),
                        "a mark is registered before its token is there"
                    );
                    identities.insert(identity.to_string());
                }
            }
        }
        let certificates = identities
            .into_iter()
            .map(|id| json!({"id": id, "ready": true}))
            .collect();
        let proxy = admin::verbs::Proxy {
            certificates,
            ..admin::verbs::Proxy::default()
        };
        Ok(json!(proxy))
    }
}
