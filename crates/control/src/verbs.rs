//! What may be asked over the Unix socket.

mod apply;
mod ask;
mod desired;
mod get;
mod kinds;
mod lists;
mod metrics;
mod snapshots;
mod status;

pub(crate) use metrics::Meters;

use std::sync::Arc;

use admin::{Call, Failure, Handler};
use api::Pod;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use xds::server::Server;

use crate::plane::{Answer, Command, Done};
use crate::tls::Gate;
use crate::view::View;
use crate::world::Reported;

/// How many callers may follow `desired` at once.
const MAX_WATCHERS: usize = 16;
/// How many pods may be reported.
pub(crate) const MAX_PODS: usize = 20_000;

/// Answers.
#[derive(Debug)]
pub(crate) struct Desk {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    server: Server,
    watchers: Semaphore,
    gate: Option<Arc<Gate>>,
    meters: Arc<Meters>,
}

impl Desk {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        view: watch::Receiver<Arc<View>>,
        server: Server,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            commands,
            view,
            server,
            watchers: Semaphore::new(MAX_WATCHERS),
            gate: None,
            meters,
        }
    }

    /// With our own certificate, to be asked for it.
    pub(crate) fn with_gate(mut self, gate: Arc<Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Has something done; returns when it is published.
    async fn done(&self, command: impl FnOnce(Answer) -> Command) -> Result<Done, Failure> {
        let ending = || Failure::undecided("the control plane is ending");
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| ending())?;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }

    async fn report(&self, report: admin::verbs::Report) -> Result<Value, Failure> {
        if report.pods.len() > MAX_PODS {
            return Err(Failure::input(format!("at most {MAX_PODS} pods may be reported")));
        }
        let pods = reported(&report.pods)?;
        self.done(|answer| Command::Pods { pods, answer }).await?;
        Ok(Value::Null)
    }

    async fn report_change(&self, report: admin::verbs::ReportChange) -> Result<Value, Failure> {
        if report.changed.len() > MAX_PODS || report.gone.len() > MAX_PODS {
            return Err(Failure::input(format!("at most {MAX_PODS} pods may be reported")));
        }
        let (changed, gone) = (reported(&report.changed)?, report.gone);
        self.done(|answer| Command::PodsChange {
            changed,
            gone,
            answer,
        })
        .await?;
        Ok(Value::Null)
    }

    fn pods(&self) -> Result<Value, Failure> {
        encode(&self.view().whole.pods().collect::<Vec<_>>())
    }
}

impl Handler for Desk {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "apply" => {
                let body = call.parse()?;
                apply::apply(self, body, &mut call.items).await
            }
            "delete" => {
                let body = call.parse()?;
                apply::delete(self, body, &mut call.items).await
            }
            "get" => {
                let body = call.parse()?;
                get::get(self, &body, &mut call.items).await
            }
            "status" => status::status(self),
            "pods" => self.pods(),
            "can-i" => ask::can_i(self, call.parse()?).await,
            "policy" => ask::policy(self, call.parse()?).await,
            "desired" => desired::desired(self, &mut call.items).await,
            "trust" => encode(&self.gate.as_ref().map(|gate| gate.holding()).unwrap_or_default()),
            "snapshots" => snapshots::snapshots(self, &mut call.items).await,
            "metrics" => Ok(Value::String(self.meters.text())),
            "report" => self.report(call.parse()?).await,
            "report-change" => self.report_change(call.parse()?).await,
            other => Err(Failure::usage(format!("the control plane has no verb `{other}`"))),
        }
    }
}

fn reported(pods: &[Value]) -> Result<Vec<Arc<Reported>>, Failure> {
    let each = pods.iter().map(|pod| Reported::new(pod).map(Arc::new));
    each.collect::<Result<_, _>>().map_err(Failure::input)
}

fn encode(value: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::undecided(error.to_string()))
}

/// The caller hung up: nobody will read this.
fn hung_up() -> Failure {
    Failure::undecided("the caller hung up")
}

impl Reported {
    /// A pod as it was reported.
    ///
    /// # Errors
    /// It is none; one sentence.
    pub(crate) fn new(value: &Value) -> Result<Self, String> {
        Self::read(&value.to_string())
    }

    /// The same of a text, JSON.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let pod: Pod =
            serde_json::from_str(text).map_err(|error| format!("a pod is not understood: {error}"))?;
        if pod.metadata.name.is_empty() || pod.metadata.namespace.is_empty() {
            return Err("a pod has no name or no namespace".to_owned());
        }
        Ok(Self {
            text: text.into(),
            pod: Arc::new(pod),
        })
    }
}
