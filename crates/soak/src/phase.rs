//! What is done to the mesh, one thing after another and then all at once.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use admin::verbs::PartOrder;
use tokio::time::{Instant, sleep, sleep_until};

use crate::mesh::Mesh;
use crate::unix_ms;

/// How long what is open at a proxy that is killed may still fail: who comes after is carried by the next one.
const EXCUSED_MS: u64 = 1000;
/// How often endpoints and policies change.
const EDIT: Duration = Duration::from_secs(1);
/// Endpoints of each service that comes with many others.
const ENDPOINTS: usize = 10;
/// How long it may take until they are in force, and gone.
const MANY_WITHIN: Duration = Duration::from_secs(120);
/// The nodes.
const PROXIES: [&str; 2] = ["proxy-node-0", "proxy-node-1"];

/// A phase.
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    what: &'static [Change],
}

/// What came of one change.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) did: Vec<String>,
    pub(crate) could_not: Vec<String>,
    pub(crate) excused: u64,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Roots,
    ControlKilled,
    ControlAbsent,
    CaKilled,
    Replaced,
    Restarted,
    Killed,
    Endpoints,
    Policies,
    Many,
}

/// All phases, in their order.
pub(crate) fn all() -> Vec<Phase> {
    use Change::*;
    let phase = |name, what| Phase { name, what };
    vec![
        phase("leaves of 10 s", &[]),
        phase("roots rotated", &[Roots]),
        phase("control plane killed", &[ControlKilled]),
        phase("control plane absent", &[ControlAbsent]),
        phase("CA killed", &[CaKilled]),
        phase("proxies replaced", &[Replaced]),
        phase("proxies restarted", &[Restarted]),
        phase("endpoints come and go", &[Endpoints]),
        phase("policies edited", &[Policies]),
        phase("services at once", &[Many]),
        phase(
            "all of it at once",
            &[ControlKilled, Replaced, Endpoints, Policies, Many],
        ),
        phase("a proxy killed", &[Killed]),
        phase("afterwards", &[]),
    ]
}

impl Phase {
    /// Does what there is to be done, until then.
    pub(crate) async fn pass(&self, mesh: &Mesh, until: Instant, services: usize) -> Vec<Outcome> {
        let mut all = Vec::new();
        let running = self.what.iter().map(|change| change.make(mesh, until, services));
        let mut running: Vec<_> = running.map(Box::pin).collect();
        // Together on one task: none of them blocks.
        std::future::poll_fn(|context| {
            running.retain_mut(|change| match change.as_mut().poll(context) {
                std::task::Poll::Ready(outcome) => {
                    all.push(outcome);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if running.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        all
    }
}

impl Outcome {
    fn note(&mut self, what: &str, done: Result<(), String>) {
        match done {
            Ok(()) => self.did.push(what.to_owned()),
            Err(why) => self.could_not.push(format!("{what}: {why}")),
        }
    }
}

impl Change {
    async fn make(self, mesh: &Mesh, until: Instant, services: usize) -> Outcome {
        let mut outcome = Outcome::default();
        match self {
            Self::Roots => outcome.note("root rotated", rotate(mesh).await),
            Self::ControlKilled => outcome.note("control killed", mesh.kill("control").await),
            Self::CaKilled => outcome.note("ca killed", mesh.kill("ca").await),
            Self::ControlAbsent => {
                outcome.note("control stopped", mesh.order("control", PartOrder::Stop).await);
                sleep_until(until - Duration::from_secs(2)).await;
                outcome.note("control started", mesh.order("control", PartOrder::Start).await);
            }
            Self::Replaced | Self::Restarted => {
                let order = match self {
                    Self::Replaced => PartOrder::Replace,
                    _ => PartOrder::Restart,
                };
                for proxy in PROXIES {
                    let begin = Instant::now();
                    let done = mesh.order(proxy, order).await;
                    let what = format!(
                        "{proxy} {} in {} ms",
                        order_word(order),
                        begin.elapsed().as_millis()
                    );
                    outcome.note(&what, done);
                }
            }
            Self::Killed => {
                outcome.note("proxy-node-1 killed", mesh.kill("proxy-node-1").await);
                outcome.excused = unix_ms() + EXCUSED_MS;
            }
            Self::Endpoints => endpoints(mesh, until, &mut outcome).await,
            Self::Policies => policies(mesh, until, &mut outcome).await,
            Self::Many => {
                let text = many(services);
                let begin = Instant::now();
                let done = again(|| mesh.apply(text.clone(), MANY_WITHIN)).await;
                let took = begin.elapsed().as_millis();
                let what =
                    format!("{services} services with {ENDPOINTS} endpoints each in force after {took} ms");
                outcome.note(&what, done);
                outcome.note("and deleted", again(|| mesh.delete(text.clone())).await);
            }
        }
        outcome
    }
}

/// Tries until it is done: the control plane may be absent just now.
async fn again<F: Future<Output = Result<(), String>>>(act: impl Fn() -> F) -> Result<(), String> {
    let since = Instant::now();
    loop {
        match act().await {
            Err(_) if since.elapsed() < MANY_WITHIN => sleep(Duration::from_millis(200)).await,
            done => return done,
        }
    }
}

fn order_word(order: PartOrder) -> &'static str {
    match order {
        PartOrder::Replace => "replaced",
        _ => "restarted",
    }
}

async fn rotate(mesh: &Mesh) -> Result<(), String> {
    let mut command = mesh.command(&["ca", "rotate"]);
    let output = command
        .stderr(Stdio::piped())
        .output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(text.lines().next().unwrap_or_default().to_owned())
}

/// Two servers and three in turn, each second.
async fn endpoints(mesh: &Mesh, until: Instant, outcome: &mut Outcome) {
    let mut changes = 0_u32;
    while Instant::now() + EDIT < until {
        let replicas = if changes.is_multiple_of(2) { 3 } else { 2 };
        match mesh.apply(servers(replicas), Duration::ZERO).await {
            Ok(()) => changes += 1,
            // The control plane may be absent just now.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        sleep(EDIT).await;
    }
    let back = again(|| mesh.apply(servers(2), Duration::ZERO)).await;
    outcome.note(&format!("{changes} changes of endpoints"), back);
}

/// Policies that concern what the load does, and go on admitting it.
async fn policies(mesh: &Mesh, until: Instant, outcome: &mut Outcome) {
    let mut changes = 0_u32;
    while Instant::now() + EDIT < until {
        match mesh.apply(policy(changes), Duration::ZERO).await {
            Ok(()) => changes += 1,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        sleep(EDIT).await;
    }
    let back = again(|| mesh.apply(policy(0), Duration::ZERO)).await;
    outcome.note(&format!("{changes} edits of policies"), back);
}

fn servers(replicas: u32) -> String {
    let documents = crate::mesh::WORLD.split("\n---\n");
    let deployment =
        documents.filter(|text| text.contains("kind: Deployment") && text.contains("name: server"));
    let text: String = deployment.take(1).collect();
    text.replacen("replicas: 2", &format!("replicas: {replicas}"), 1)
}

fn policy(number: u32) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: edited, namespace: soak}}\nspec:\n  \
         selector: {{matchLabels: {{app: server}}}}\n  action: DENY\n  rules:\n  - to: [{{operation: {{paths: [/never/{number}]}}}}]\n    \
         from: [{{source: {{principals: [cluster.local/ns/soak/sa/other-{number}]}}}}]\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: clients, namespace: soak}}\nspec:\n  \
         selector: {{matchLabels: {{app: server}}}}\n  action: ALLOW\n  rules:\n  - from: [{{source: {{principals: \
         [cluster.local/ns/soak/sa/client, cluster.local/ns/soak/sa/more-{number}]}}}}]\n"
    )
}

/// Services without pods, and their endpoints.
fn many(services: usize) -> String {
    let mut text = String::new();
    for service in 0..services {
        let (high, low) = (service / 250, service % 250);
        let addresses: Vec<String> = (1..=ENDPOINTS)
            .map(|n| format!("{{ip: 10.{}.{low}.{n}}}", 200 + high))
            .collect();
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: many-{service}, namespace: soak}}\nspec:\n  ports: [{{name: http, port: 80}}]\n---\n\
             apiVersion: v1\nkind: Endpoints\nmetadata: {{name: many-{service}, namespace: soak}}\nsubsets:\n- addresses: [{}]\n  \
             ports: [{{name: http, port: 80}}]\n---\n",
            addresses.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_what_they_are_said_to_be() {
        assert!(servers(3).contains("replicas: 3") && servers(3).contains("image: meshward/tally"));
        let text = many(1000);
        assert_eq!(text.matches("kind: Service\n").count(), 1000);
        assert_eq!(text.matches("{ip: ").count(), 10_000);
        assert_ne!(policy(1), policy(2));
    }
}
