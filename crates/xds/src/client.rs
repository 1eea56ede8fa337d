//! The proxy's end: holds a set, asks for what it lacks ([`Interest`]), takes a response whole or refuses it.

mod held;
mod interest;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::google::rpc;
use snapshot::{ResourceName, Resources};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;

use crate::wire::{MAX_MESSAGE, TYPE_URL};

pub use held::{Held, Received};
pub use interest::{Interest, TooMany};

/// How often the connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the answer to that may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting may take, handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait to be sent: the first, and one answer.
const QUEUE: usize = 4;
/// The longest text that goes with a refusal, in characters.
const MAX_REFUSAL: usize = 2000;

/// How a proxy reaches its control plane, and proves who it is.
pub trait Connect: Send {
    /// The connection, encrypted and verified.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects; with the token that binds the node's name. The text of an error is for the log.
    fn connect(&mut self) -> impl Future<Output = Result<(Self::Io, String), String>> + Send;
}

/// What a client is started with.
pub struct Options {
    /// The node's name, which its token must carry.
    pub node: String,
    /// The first pause before connecting again.
    pub min_pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
    /// Randomness from 0 to 1: spreads those that lost one control plane at the same moment.
    pub jitter: Box<dyn FnMut() -> f64 + Send>,
    /// What is asked for beside what belongs to the node.
    pub interest: Interest,
}

impl Options {
    /// The pauses that suit a control plane on the same network.
    pub fn new(node: impl Into<String>, jitter: impl FnMut() -> f64 + Send + 'static) -> Self {
        Self {
            node: node.into(),
            min_pause: Duration::from_millis(20),
            max_pause: Duration::from_secs(5),
            jitter: Box::new(jitter),
            interest: Interest::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Keeps the set up to date for ever. `apply` gets the whole new set and the version of the control plane; where it
/// says why it cannot take it, the control plane is told so and the set before stays.
pub async fn run<C, F>(mut options: Options, mut connect: C, mut apply: F) -> !
where
    C: Connect,
    F: FnMut(Resources, u64) -> Result<(), String> + Send,
{
    let mut held = Held::default();
    let mut failures = 0_u32;
    loop {
        let mut served = false;
        let ended = session(
            &options.node,
            &options.interest,
            &mut connect,
            &mut held,
            &mut apply,
            &mut served,
        )
        .await;
        options.interest.connected(false);
        failures = if served { 0 } else { failures.saturating_add(1) };
        tracing::warn!(node = options.node, "the control plane is out of reach: {ended}");
        tokio::time::sleep(pause(&mut options, failures)).await;
    }
}

/// Doubles with each failure; from half of that to all of it, as the jitter has it.
pub(crate) fn pause(options: &mut Options, failures: u32) -> Duration {
    let doubled = options.min_pause.saturating_mul(1 << failures.min(16));
    let jitter = (options.jitter)().clamp(0.0, 1.0);
    doubled.min(options.max_pause).mul_f64(0.5 + 0.5 * jitter)
}

/// One stream, from connecting to its end; returns why it ended.
async fn session<C: Connect>(
    node: &str,
    interest: &Interest,
    connect: &mut C,
    held: &mut Held,
    apply: &mut (impl FnMut(Resources, u64) -> Result<(), String> + Send),
    served: &mut bool,
) -> String {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, open(connect)).await;
    let (mut client, token, _driver) = match connected {
        Ok(Ok(parts)) => parts,
        Ok(Err(why)) => return why,
        Err(_) => return "connecting took too long".to_owned(),
    };
    let (send, queue) = mpsc::channel(QUEUE);
    let mut told = interest.names();
    let first = DeltaDiscoveryRequest {
        node: Some(Node {
            id: node.to_owned(),
            user_agent_name: "meshward".to_owned(),
            user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Node::default()
        }),
        type_url: TYPE_URL.to_owned(),
        resource_names_subscribe: std::iter::once("*")
            .chain(told.iter().map(ResourceName::as_str))
            .map(str::to_owned)
            .collect(),
        initial_resource_versions: held.versions(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut request = tonic::Request::new(ReceiverStream::new(queue));
    let Ok(bearer) = MetadataValue::try_from(format!("Bearer {}", token.trim())) else {
        return "the token is not one line of text".to_owned();
    };
    request.metadata_mut().insert("authorization", bearer);
    if send.send(first).await.is_err() {
        return "the stream ended before it began".to_owned();
    }
    let mut responses = match client.delta_aggregated_resources(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status.message().to_owned(),
    };
    loop {
        let message = tokio::select! {
            message = responses.message() => message,
            () = interest.changed(&told) => {
                let now = interest.names();
                let question = question(&told, &now);
                told = now;
                if send.send(question).await.is_err() {
                    return "the stream was ended".to_owned();
                }
                continue;
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return "the stream was ended".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        *served = true;
        interest.connected(true);
        let refusal = take(held, &response, apply).err();
        if let Some(why) = &refusal {
            tracing::error!(node, "an update is refused, what was in force stays: {why}");
        }
        let answer = DeltaDiscoveryRequest {
            type_url: TYPE_URL.to_owned(),
            response_nonce: response.nonce,
            error_detail: refusal.map(|why| rpc::Status {
                code: tonic::Code::InvalidArgument.into(),
                message: why.chars().take(MAX_REFUSAL).collect(),
                details: Vec::new(),
            }),
            ..DeltaDiscoveryRequest::default()
        };
        if send.send(answer).await.is_err() {
            return "the stream was ended".to_owned();
        }
    }
}

/// What is to be said of a change of what is asked for.
fn question(told: &BTreeSet<ResourceName>, now: &BTreeSet<ResourceName>) -> DeltaDiscoveryRequest {
    let names = |names: &mut dyn Iterator<Item = &ResourceName>| -> Vec<String> {
        names.map(|name| name.as_str().to_owned()).collect()
    };
    DeltaDiscoveryRequest {
        type_url: TYPE_URL.to_owned(),
        resource_names_subscribe: names(&mut now.difference(told)),
        resource_names_unsubscribe: names(&mut told.difference(now)),
        ..DeltaDiscoveryRequest::default()
    }
}

fn take(
    held: &mut Held,
    response: &proto::envoy::service::discovery::v3::DeltaDiscoveryResponse,
    apply: &mut impl FnMut(Resources, u64) -> Result<(), String>,
) -> Result<(), String> {
    let received = held.receive(response)?;
    if received.changed {
        apply(received.resources.clone(), received.version)?;
    }
    held.keep(received);
    Ok(())
}

type Client = AggregatedDiscoveryServiceClient<Sender>;

/// Ends the connection when dropped.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open<C: Connect>(connect: &mut C) -> Result<(Client, String, Driver), String> {
    let (io, token) = connect.connect().await?;
    let (send, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| error.to_string())?;
    let driver = Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the control plane ended");
        }
    }));
    // The name in `:authority` means nothing here: who is at the other end was verified when connecting.
    let client =
        AggregatedDiscoveryServiceClient::with_origin(Sender(send), Uri::from_static("https://control"))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
    Ok((client, token, driver))
}

/// hyper's connection as the service that tonic calls.
struct Sender(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
