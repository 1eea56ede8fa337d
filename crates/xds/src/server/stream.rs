//! One stream: brings what a proxy holds to what is published for its node.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Authenticate, NodeEntry, Published, Shared};
use crate::wire::{MAX_RESOURCES, TYPE_URL};

/// How long a stream may take to say what it wants.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a response may stay without an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a stream lives: then the peer has to prove anew who it is. Taking it up again costs next to nothing.
const LIFETIME: Duration = Duration::from_mins(30);

pub(super) struct Discovery<A: Authenticate> {
    shared: Arc<Shared>,
    authenticate: Arc<A>,
    peer: Arc<A::Peer>,
}

impl<A: Authenticate> Discovery<A> {
    pub(super) fn new(shared: Arc<Shared>, authenticate: Arc<A>, peer: Arc<A::Peer>) -> Self {
        Self {
            shared,
            authenticate,
            peer,
        }
    }

    /// The node that the stream speaks for: proven, and the one that it asks for.
    async fn node(&self, token: &str, first: &DeltaDiscoveryRequest) -> Result<String, Status> {
        let proven = self.authenticate.node(&self.peer, token).await.map_err(|why| {
            tracing::warn!("a stream is refused: {why}");
            Status::unauthenticated("the peer does not prove to be a node")
        })?;
        let asked = first.node.as_ref().map_or("", |node| node.id.as_str());
        if asked != proven {
            tracing::warn!(
                node = proven,
                "a stream is refused: it asks for what belongs to `{asked}`"
            );
            return Err(Status::permission_denied(
                "the peer is another node than it asks for",
            ));
        }
        Ok(proven)
    }
}

#[tonic::async_trait]
impl<A: Authenticate> AggregatedDiscoveryService for Discovery<A> {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let token = bearer(&request)?;
        let mut requests = request.into_inner();
        let first = timeout(FIRST_REQUEST, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the first request did not come in time"))??
            .ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        let node = self.node(&token, &first).await?;
        if first.type_url != TYPE_URL {
            return Err(Status::invalid_argument("this type is not served"));
        }
        if first.initial_resource_versions.len() > MAX_RESOURCES {
            return Err(Status::invalid_argument(
                "more resources are held than there may be",
            ));
        }
        let entry = self
            .shared
            .known(&node)
            .ok_or_else(|| Status::unavailable("nothing is known of this node yet"))?;
        let (send, responses) = mpsc::channel(1);
        let serving = Serving::begin(
            Arc::clone(&self.shared),
            entry,
            node,
            first.initial_resource_versions,
        );
        tokio::spawn(async move {
            let Err(status) = serving.run(requests, &send).await else {
                return;
            };
            // Gone peers do not need to be told.
            let _ = send.try_send(Err(status));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

fn bearer<T>(request: &Request<T>) -> Result<String, Status> {
    let value = request.metadata().get("authorization");
    let token = value.and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    token
        .map(str::to_owned)
        .ok_or_else(|| Status::unauthenticated("a bearer token is needed"))
}

/// A response that waits for its answer.
struct InFlight {
    nonce: String,
    version: u64,
    /// What the peer holds once it has taken it.
    next: HashMap<String, String>,
    until: Instant,
    since: Instant,
}

struct Serving {
    shared: Arc<Shared>,
    entry: Arc<NodeEntry>,
    node: String,
    number: u64,
    held: HashMap<String, String>,
    sent: u64,
    in_flight: Option<InFlight>,
}

impl Serving {
    fn begin(
        shared: Arc<Shared>,
        entry: Arc<NodeEntry>,
        node: String,
        held: HashMap<String, String>,
    ) -> Self {
        let mut number = 0;
        entry.streams.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        shared.update(&node, |status| status.connected = true);
        Self {
            shared,
            entry,
            node,
            number,
            held,
            sent: 0,
            in_flight: None,
        }
    }

    async fn run(
        mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        send: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        let mut published = self.entry.published.subscribe();
        let mut streams = self.entry.streams.subscribe();
        let end = Instant::now() + LIFETIME;
        loop {
            if let Some(response) = self.due(&mut published)
                && send.send(Ok(response)).await.is_err()
            {
                return Ok(());
            }
            let idle = self.in_flight.is_none();
            let until = self.in_flight.as_ref().map_or(end, |flight| flight.until);
            tokio::select! {
                changed = published.changed(), if idle => if changed.is_err() { return Ok(()) },
                newer = streams.wait_for(|newest| *newest != self.number) => {
                    drop(newer);
                    return Err(Status::aborted("the node has opened another stream"));
                }
                request = requests.message() => match request? {
                    Some(request) => self.answer(request),
                    None => return Ok(()),
                },
                () = sleep_until(until) => return Err(match idle {
                    true => Status::unavailable("the stream is old; prove anew who you are"),
                    false => Status::deadline_exceeded("a response was not answered in time"),
                }),
            }
        }
    }

    /// The next response, where one is due: whatever was published meanwhile is in it.
    fn due(&mut self, published: &mut watch::Receiver<Arc<Published>>) -> Option<DeltaDiscoveryResponse> {
        if self.in_flight.is_some() {
            return None;
        }
        let current = Arc::clone(&published.borrow_and_update());
        if current.version == self.sent {
            return None;
        }
        self.sent = current.version;
        let nonce = format!("{}-{}", self.number, current.version);
        self.shared
            .update(&self.node, |status| status.sent = current.version);
        self.in_flight = Some(InFlight {
            nonce: nonce.clone(),
            version: current.version,
            next: versions(&current),
            until: Instant::now() + ANSWER,
            since: Instant::now(),
        });
        let response = difference(&self.held, &current, nonce);
        if let Some(observer) = self.shared.observer.get() {
            observer.pushed(response.encoded_len());
        }
        Some(response)
    }

    fn answer(&mut self, request: DeltaDiscoveryRequest) {
        // Another nonce is an answer to nothing, or a change of subscriptions: there is one, to everything.
        let Some(flight) = self
            .in_flight
            .take_if(|flight| flight.nonce == request.response_nonce)
        else {
            return;
        };
        if let Some(observer) = self.shared.observer.get() {
            observer.answered(flight.since.elapsed(), request.error_detail.is_some());
        }
        match request.error_detail {
            None => {
                self.held = flight.next;
                self.shared.update(&self.node, |status| {
                    status.acked = flight.version;
                    status.nacked = None;
                });
            }
            Some(error) => {
                tracing::error!(
                    node = self.node,
                    version = flight.version,
                    "an update was refused: {}",
                    error.message
                );
                self.shared.update(&self.node, |status| {
                    status.nacked = Some((flight.version, error.message));
                });
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if *self.entry.streams.borrow() == self.number {
            self.shared.update(&self.node, |status| status.connected = false);
        }
    }
}

fn versions(published: &Published) -> HashMap<String, String> {
    published
        .encoded
        .iter()
        .map(|(name, encoded)| (name.as_str().to_owned(), encoded.version.clone()))
        .collect()
}

/// What brings a peer that holds these versions to what is published.
fn difference(
    held: &HashMap<String, String>,
    published: &Published,
    nonce: String,
) -> DeltaDiscoveryResponse {
    let resources = published
        .encoded
        .iter()
        .filter(|(name, encoded)| held.get(name.as_str()) != Some(&encoded.version))
        .map(|(name, encoded)| encoded.to_wire(name))
        .collect();
    let mut removed: Vec<_> = held
        .keys()
        .filter(|name| {
            !published
                .encoded
                .contains_key(&snapshot::ResourceName::from(name.as_str()))
        })
        .cloned()
        .collect();
    removed.sort();
    DeltaDiscoveryResponse {
        system_version_info: published.version.to_string(),
        resources,
        type_url: TYPE_URL.to_owned(),
        nonce,
        removed_resources: removed,
    }
}
