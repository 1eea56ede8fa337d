//! What may be asked of the parts, and what they answer: the bodies of the protocol.
//!
//! | socket | verb | body | items | ok |
//! |---|---|---|---|---|
//! | control | `apply` | [`Apply`] | [`Outcome`] an object | null |
//! | control | `delete` | [`Delete`] | [`Outcome`] an object | null |
//! | control | `get` | [`Get`] | [`Found`] an object | null |
//! | control | `status` | null | | [`Status`] |
//! | control | `pods` | null | | the pods as the compiler shows them (`compiler::PodView`) |
//! | control | `desired` | null | [`Desired`], now and after each change, until hung up | |
//! | control | `can-i` | [`CanI`] | | the answer (`analysis::Answer`) |
//! | control | `policy` | the target (`analysis::Target`) | | array of what is in force (`analysis::Effective`) |
//! | control | `snapshots` | null | [`Snapshot`] a node | null |
//! | control | `metrics` | null | | the text of the metrics |
//! | control | `report` | [`Report`] | | null |
//! | control | `report-change` | [`ReportChange`] | | null |
//! | up | `ps` | null | | array of [`PodRow`] |
//! | up | `exec` | [`Exec`] with three descriptors | | [`Exited`] |
//! | up | `logs` | [`Logs`] | a line of text each | null |
//! | up | `info` | null | | [`Info`] |
//! | up | `part` | [`Part`] | | null, when it is done |
//! | up | `sockets` | [`Sockets`] | array of [`Listening`], with as many descriptors | null |
//! | up | `page` | [`Page`] | | [`PageText`] |
//! | up | `down` | null | a line of text a step | null, when nothing is left |
//! | proxy | `access` | [`Access`] | [`AccessLine`] | null |
//! | proxy | `why` | [`Why`] | [`Refused`] each | null |
//! | proxy | `proxy` | null | | [`Proxy`] |
//! | proxy | `sockets` | null | array of [`Listening`], with as many descriptors | null |
//! | proxy | `leave` | null | | null, when another proxy may be taken for this one |
//! | proxy | `metrics` | null | | the text of the metrics |

mod parts;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use parts::{Listening, Part, PartOrder, Sockets};

/// A text with objects in it, and what to call it in messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// The file as the user named it; `<stdin>` for standard input.
    pub file: String,
    /// What it holds.
    pub text: String,
}

/// Objects to take.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apply {
    /// The texts.
    pub documents: Vec<Document>,
    /// How long to wait until every proxy that is concerned has them, in milliseconds; 0 does not wait.
    pub wait_ms: u64,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// Objects to take away: by the texts that hold them, or by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delete {
    /// Texts whose objects are meant.
    #[serde(default)]
    pub documents: Vec<Document>,
    /// Names.
    #[serde(default)]
    pub objects: Vec<Name>,
    /// As in [`Apply::wait_ms`].
    pub wait_ms: u64,
}

/// The name of an object as a person types it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Name {
    /// A kind, its plural or its short name, in any case: `AuthorizationPolicy`, `authorizationpolicies`, `ap`, `svc`.
    pub kind: String,
    /// The namespace; `default` where none is said and the kind has one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// What became of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// The kind.
    pub kind: String,
    /// The namespace; empty for kinds without.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// In a word.
    pub result: OutcomeKind,
    /// What changed: `created`, `configured`, `unchanged`, `deleted`, or empty.
    pub change: String,
    /// Why, where it is not simply in force: one sentence an entry, each beginning with `file:line:column: ` where a place is known.
    #[serde(default)]
    pub why: Vec<String>,
    /// Nodes whose proxies are concerned, and how many have acknowledged it.
    #[serde(default)]
    pub nodes: usize,
    /// See `nodes`.
    #[serde(default)]
    pub acknowledged: usize,
}

/// What became of an object, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// It is taken, and in force where it is to be.
    Accepted,
    /// It is broken, and not taken; a security object then denies what it targets.
    Rejected,
    /// It is taken, and has no effect, or not yet.
    NotInForce,
}

/// Objects to show.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Get {
    /// As in [`Name::kind`]; `all` for every kind.
    pub kind: String,
    /// One namespace; `None` for all.
    pub namespace: Option<String>,
    /// One name; `None` for all.
    pub name: Option<String>,
}

/// An object that was found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Found {
    /// The object as Kubernetes would store it, with its status.
    pub object: Value,
    /// `accepted`, `rejected` or `not-in-force`, and why.
    pub result: OutcomeKind,
    /// See [`Outcome::why`].
    pub why: Vec<String>,
    /// `file:line:column`.
    pub origin: String,
}

/// How the mesh stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// `secure` or `istio`.
    pub profile: String,
    /// What the profile and MeshConfig come to, in words: `mTLS STRICT`, `deny until an ALLOW allows`, ...
    pub defaults: Vec<String>,
    /// The proxies.
    pub nodes: Vec<NodeState>,
    /// The security objects, and whatever else has something to say.
    pub objects: Vec<ObjectState>,
    /// What is wrong with what was read, as one-line texts with their places.
    pub problems: Vec<ProblemLine>,
    /// Kinds that were accepted and are not acted on, each once.
    pub not_acted_on: Vec<String>,
    /// The revocation lists of the mesh's roots, and of those beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<RevocationList>,
}

/// A certificate revocation list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationList {
    /// Who issued it.
    pub issuer: String,
    /// Its `nextUpdate`, Unix seconds. From then on nothing that its issuer has signed is believed.
    pub next_update: i64,
    /// Seconds until then; zero or less where it has passed.
    pub left_s: i64,
    /// Whether most of its time is over: a new one is due.
    pub due: bool,
}

/// One node's proxy, as the control plane sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeState {
    /// Its name.
    pub node: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// The version that it is to have.
    pub published: u64,
    /// The version that it has acknowledged.
    pub acknowledged: u64,
    /// Why it refused the newest, where it did.
    pub refused: Option<String>,
}

/// One object's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectState {
    /// The kind.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// In a word.
    pub result: OutcomeKind,
    /// Why, one sentence an entry.
    pub why: Vec<String>,
    /// On how many nodes it is to be in force, and on how many it is.
    pub nodes: usize,
    /// See `nodes`.
    pub acknowledged: usize,
    /// What it decides for.
    pub targets: Vec<String>,
    /// Older objects that are used in its place, `Kind namespace/name`.
    pub shadowed_by: Vec<String>,
    /// `file:line:column`.
    pub origin: String,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProblemLine {
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// The stable code.
    pub code: String,
    /// The file, the line and the column from 1.
    pub file: String,
    /// See `file`.
    pub line: u32,
    /// See `file`.
    pub column: u32,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// What there is to run: for whoever makes pods.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// Grows with each change.
    pub version: u64,
    /// Namespaces, workloads (Pod, Deployment, StatefulSet, DaemonSet, Job), ServiceAccounts, ConfigMaps and Secrets, as
    /// Kubernetes would store them.
    pub objects: Vec<Value>,
    /// Cluster addresses for pods outside the mesh (`compiler::PlainService`).
    pub plain_services: Vec<Value>,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// What is wrong with what was read, to be shown to the user who runs `up`: new since the last item.
    pub problems: Vec<ProblemLine>,
}

/// The pods that exist, all of them: replaces what was reported before.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Pods with their status, as Kubernetes would store them.
    pub pods: Vec<Value>,
}

/// Pods that have changed since the last report.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportChange {
    /// New or changed pods with their status, as Kubernetes would store them; each replaces the one of its namespace and name.
    pub changed: Vec<Value>,
    /// Pods that are gone, `namespace/name`; one that is not there changes nothing.
    pub gone: Vec<String>,
}

/// A line of `ps`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodRow {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// What owns it.
    pub workload: String,
    /// Its service account.
    pub service_account: String,
    /// Its IPv4 address.
    pub ip: Option<IpAddr>,
    /// Its IPv6 address.
    pub ip6: Option<IpAddr>,
    /// Its identity, in the mesh.
    pub identity: Option<String>,
    /// Whether a proxy stands before it.
    pub in_mesh: bool,
    /// `STRICT`, or `8080:PERMISSIVE,*:STRICT`; `None` outside the mesh.
    pub mtls: Option<String>,
    /// Whether it takes connections.
    pub ready: bool,
    /// The path of its network namespace.
    pub netns: String,
    /// `3 policies`, `deny by default`, `invalid: ns/name`.
    pub policies: Option<String>,
    /// Its node.
    pub node: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `CrashLoopBackOff`.
    pub phase: String,
    /// How often its containers were started again.
    pub restarts: u32,
    /// Why it does not run, where it does not.
    #[serde(default)]
    pub message: String,
}

/// A command to run in a pod. The descriptors that come with it become its standard input, output and error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exec {
    /// The namespace.
    pub namespace: String,
    /// A pod, a workload, `deploy/NAME`, or the value of the label `app`.
    pub target: String,
    /// The container; the first where none is said.
    #[serde(default)]
    pub container: Option<String>,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Whether the descriptors are a terminal that the command is to have for its own.
    #[serde(default)]
    pub tty: bool,
    /// Variables that are set beside the pod's: `TERM`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exited {
    /// Its exit code; 128 and the signal's number where one ended it.
    pub code: i32,
}

/// What a pod printed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Logs {
    /// The namespace.
    pub namespace: String,
    /// As in [`Exec::target`].
    pub target: String,
    /// The container; the first where none is said.
    #[serde(default)]
    pub container: Option<String>,
    /// Whether to go on with what comes.
    #[serde(default)]
    pub follow: bool,
    /// How many lines from the end; all where none is said.
    #[serde(default)]
    pub tail: Option<usize>,
}

/// What runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Info {
    /// The mesh's name.
    pub name: String,
    /// The profile.
    pub profile: String,
    /// The nodes by name, in order.
    pub nodes: Vec<String>,
    /// The processes: `up`, `ca`, `control`, `proxy-NODE` -> process id.
    pub processes: BTreeMap<String, u32>,
    /// Whether every part and every pod is ready.
    pub ready: bool,
    /// What is not, where something is not.
    pub waiting_for: Vec<String>,
    /// Where the sources are.
    pub sources: Vec<PathBuf>,
    /// What every part listens on: `part`, address, who may reach it and how it authenticates.
    pub ports: Vec<Port>,
}

/// A port that some part listens on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// `ca`, `control`, `proxy-NODE`.
    pub part: String,
    /// The network namespace that it is in.
    pub netns: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Where.
    pub address: SocketAddr,
    /// What for.
    pub purpose: String,
    /// Who may reach it.
    pub reach: String,
    /// How callers prove who they are.
    pub authentication: String,
}

/// What a node's proxy is to know. Nothing in it is private, but symmetric keys that a RequestAuthentication holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// The node.
    pub node: String,
    /// The version that was published; `None` where it could not be.
    pub version: Option<u64>,
    /// The resources, each under the name of its kind (`snapshot::Resource`).
    pub resources: Vec<Value>,
}

/// A page of a part: `/metrics`, `/healthz/live` or `/healthz/ready`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Page {
    /// As in [`Port::part`].
    pub part: String,
    /// The path.
    pub path: String,
}

/// What a page says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageText {
    /// The HTTP status: 200, or 503 where the part is not ready.
    pub status: u16,
    /// The text.
    pub text: String,
}

/// Which lines of the access log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Whether to go on with what comes.
    #[serde(default)]
    pub follow: bool,
    /// Only what was refused.
    #[serde(default)]
    pub denied: bool,
    /// Only where source or destination is of the namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Only where source or destination is the pod or the workload (with `namespace`, of it).
    #[serde(default)]
    pub workload: Option<String>,
}

/// A line of the access log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLine {
    /// The line for people.
    pub text: String,
    /// All of it.
    pub event: Value,
}

/// Whether something would be carried.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CanI {
    /// What is asked (`analysis::Question`).
    pub question: Value,
    /// What external authorizers are taken to say, by name (`analysis::Providers`).
    pub custom: Value,
}

/// Which refusals are to be explained.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Why {
    /// The id of the decision, or the request's `x-request-id`; `None` for the newest.
    #[serde(default)]
    pub id: Option<String>,
    /// Of the newest, only where source or destination is of the namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Of the newest, only where source or destination is the pod or the workload.
    #[serde(default)]
    pub workload: Option<String>,
}

/// A refusal, explained by the policies that were in force when it was decided.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The id of the decision.
    pub id: String,
    /// The node whose proxy decided.
    pub node: String,
    /// When, RFC 3339.
    pub time: String,
    /// Who called (`telemetry::Peer`).
    pub source: Value,
    /// Who was called (`telemetry::Peer`).
    pub destination: Value,
    /// The workload port.
    pub port: u16,
    /// `mutual_tls`, `local`, `plaintext`.
    pub wire: Value,
    /// The SNI, where TLS was seen.
    pub sni: Option<String>,
    /// The request, where it was one.
    pub request: Option<RefusedRequest>,
    /// The HTTP status that the caller got; 0 for a connection.
    pub code: u16,
    /// The stable reason.
    pub reason: String,
    /// The policy that decided, where one did.
    pub policy: Option<RefusedBy>,
    /// What each rule found, in the order of evaluation.
    pub steps: Vec<WhyStep>,
    /// Of a path that can be read in more than one way, the readings.
    pub readings: Vec<String>,
    /// The ALLOW rule that came closest, with the fields that did not hold.
    pub near_miss: Option<RefusedBy>,
}

/// The request of a refusal. What is secret in it never leaves the proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRequest {
    /// The method.
    pub method: String,
    /// `:authority` or Host.
    pub authority: String,
    /// Path and query as they came.
    pub received: String,
    /// The path as it was decided.
    pub normalized: String,
    /// `x-request-id`.
    pub request_id: String,
    /// The header fields that were decided by; secret ones without their values.
    pub headers: Vec<(String, String)>,
}

/// A rule that had to do with a refusal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedBy {
    /// The namespace of the policy.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rule, from 0.
    pub rule: Option<usize>,
    /// Where it was written.
    pub file: String,
    /// The line; 0 where unknown.
    pub line: u32,
    /// Of a near miss, the fields that did not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// What one rule found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyStep {
    /// `custom`, `audit`, `deny`, `allow`.
    pub stage: String,
    /// One sentence.
    pub said: String,
    /// `file:line`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// How a proxy stands.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Its node.
    pub node: String,
    /// The version in force; 0 before the first.
    pub version: u64,
    /// How long ago the control plane was last heard of, in seconds, while it is out of reach.
    pub control_silent_s: Option<u64>,
    /// `identity::CertificateStatus` each.
    pub certificates: Vec<Value>,
    /// Open connections.
    pub connections: usize,
    /// Packets dropped by capture, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Workloads by mark: `namespace/pod`.
    pub workloads: BTreeMap<u32, String>,
}
