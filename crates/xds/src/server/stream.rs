//! One stream: brings what a proxy holds to what is published for its node.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use snapshot::ResourceName;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::board::{Streams, Target};
use super::{Authenticate, NodeStatus, Shared};
use crate::wire::{MAX_QUESTIONS, MAX_RESOURCES, TYPE_URL};

/// How long a stream may take to say what it wants.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a response may stay without an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a stream lives: then the peer has to prove anew who it is. Taking it up again costs next to nothing.
const LIFETIME: Duration = Duration::from_mins(30);
/// Streams of one node: that of its proxy, and those of proxies that leave. With one more the oldest ends.
const MAX_STREAMS_OF_NODE: usize = 4;

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
        let (send, responses) = mpsc::channel(1);
        let serving = Serving::begin(Arc::clone(&self.shared), node, first)?;
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

/// Versions by name.
type Versions = HashMap<String, Arc<str>>;

/// A response that waits for its answer.
struct InFlight {
    nonce: String,
    version: u64,
    /// What the peer holds once it has taken it.
    next: Versions,
    until: Instant,
    since: Instant,
}

struct Serving {
    shared: Arc<Shared>,
    node: String,
    number: u64,
    published: watch::Receiver<u64>,
    streams: watch::Receiver<Streams>,
    questions: BTreeSet<ResourceName>,
    held: Versions,
    sent: u64,
    acked: u64,
    nacked: Option<(u64, String)>,
    responses: u64,
    /// Whether what the peer asks for has changed since it was looked at last.
    asked: bool,
    in_flight: Option<InFlight>,
}

impl Serving {
    fn begin(shared: Arc<Shared>, node: String, first: DeltaDiscoveryRequest) -> Result<Self, Status> {
        let board = shared.board();
        let entry = board
            .node(&node)
            .ok_or_else(|| Status::unavailable("nothing is known of this node yet"))?;
        let mut number = 0;
        entry.streams.send_modify(|open| number = open.begin());
        let (published, streams) = (entry.version.subscribe(), entry.streams.subscribe());
        drop(board);
        shared.update(&node, |status| status.connected = true);
        let held = first.initial_resource_versions.iter();
        let held = held.map(|(name, version)| (name.clone(), Arc::from(version.as_str())));
        let mut serving = Self {
            held: held.collect(),
            shared,
            node,
            number,
            published,
            streams,
            questions: BTreeSet::new(),
            sent: 0,
            acked: 0,
            nacked: None,
            responses: 0,
            asked: false,
            in_flight: None,
        };
        serving.ask(&first)?;
        Ok(serving)
    }

    async fn run(
        mut self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        send: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        let (mut published, mut streams) = (self.published.clone(), self.streams.clone());
        let end = Instant::now() + LIFETIME;
        loop {
            if let Some(response) = self.due(&mut published)?
                && send.send(Ok(response)).await.is_err()
            {
                return Ok(());
            }
            let idle = self.in_flight.is_none();
            let until = self.in_flight.as_ref().map_or(end, |flight| flight.until);
            tokio::select! {
                changed = published.changed(), if idle => if changed.is_err() { return Ok(()) },
                _ = streams.changed() => {
                    if streams.borrow_and_update().newer_than(self.number) >= MAX_STREAMS_OF_NODE {
                        return Err(Status::aborted("the node has opened other streams"));
                    }
                    self.speak();
                }
                request = requests.message() => match request? {
                    Some(request) => {
                        self.ask(&request)?;
                        self.answer(request);
                    }
                    None => return Ok(()),
                },
                () = sleep_until(until) => return Err(match idle {
                    true => Status::unavailable("the stream is old; prove anew who you are"),
                    false => Status::deadline_exceeded("a response was not answered in time"),
                }),
            }
        }
    }

    /// Takes in what is asked for, and what no longer is.
    fn ask(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let names = |list: &[String]| -> Result<Vec<ResourceName>, Status> {
            let named = list.iter().filter(|name| *name != "*");
            let names: Vec<_> = named.map(|name| ResourceName::from(name.as_str())).collect();
            match names.iter().all(ResourceName::is_asked_for) {
                true => Ok(names),
                false => Err(Status::invalid_argument("this is nothing that can be asked for")),
            }
        };
        for name in names(&request.resource_names_unsubscribe)? {
            self.asked |= self.questions.remove(&name);
        }
        for name in names(&request.resource_names_subscribe)? {
            self.asked |= self.questions.insert(name);
        }
        if self.questions.len() > MAX_QUESTIONS {
            return Err(Status::resource_exhausted("more is asked for than may be"));
        }
        Ok(())
    }

    /// The next response, where one is due: whatever was published and asked for meanwhile is in it.
    fn due(
        &mut self,
        published: &mut watch::Receiver<u64>,
    ) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        if self.in_flight.is_some() {
            return Ok(None);
        }
        published.borrow_and_update();
        let (version, target) = {
            let mut board = self.shared.board();
            let current = board.node(&self.node).map(|node| *node.version.borrow());
            if !std::mem::take(&mut self.asked) && current == Some(self.sent) {
                return Ok(None);
            }
            board.target(&self.node, self.number, &self.questions)
        };
        self.responses += 1;
        let nonce = format!("{}-{}-{}", self.number, version, self.responses);
        let broken = || Status::internal("a resource cannot be written down");
        let next = versions(&target).ok_or_else(broken)?;
        let response = difference(&self.held, &target, version, nonce.clone()).ok_or_else(broken)?;
        let is_empty = response.resources.is_empty() && response.removed_resources.is_empty();
        if is_empty && version == self.sent {
            return Ok(None);
        }
        self.sent = version;
        self.update(|status| status.sent = version);
        self.in_flight = Some(InFlight {
            nonce,
            version,
            next,
            until: Instant::now() + ANSWER,
            since: Instant::now(),
        });
        if let Some(observer) = self.shared.observer.get() {
            observer.pushed(response.encoded_len());
        }
        Ok(Some(response))
    }

    /// Tells how far the node is. The newest of its streams speaks for it: an older one is of a proxy that leaves.
    fn update(&self, change: impl FnOnce(&mut NodeStatus)) {
        if self.streams.borrow().newer_than(self.number) == 0 {
            self.shared.update(&self.node, change);
        }
    }

    /// Tells anew what its peer has said: the streams that spoke for the node may have ended.
    fn speak(&self) {
        if self.acked > 0 || self.nacked.is_some() {
            self.update(|status| {
                status.sent = self.sent;
                status.acked = self.acked;
                status.nacked.clone_from(&self.nacked);
            });
        }
    }

    fn answer(&mut self, request: DeltaDiscoveryRequest) {
        // Another nonce is an answer to nothing, or no answer but a question.
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
                (self.acked, self.nacked) = (flight.version, None);
            }
            Some(error) => {
                tracing::error!(
                    node = self.node,
                    version = flight.version,
                    "an update was refused: {}",
                    error.message
                );
                self.nacked = Some((flight.version, error.message));
            }
        }
        self.update(|status| {
            if self.nacked.is_none() {
                status.acked = self.acked;
            }
            status.nacked.clone_from(&self.nacked);
        });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let was_only = self.shared.board().leave(&self.node, self.number);
        if was_only {
            self.shared.update(&self.node, |status| status.connected = false);
        }
    }
}

/// `None` where a resource cannot be written down.
fn versions(target: &Target) -> Option<Versions> {
    let each = target.iter();
    each.map(|(name, entry)| Some((name.as_str().to_owned(), Arc::clone(entry.version()?))))
        .collect()
}

/// What brings a peer that holds these versions to what it is to hold.
fn difference(
    held: &Versions,
    target: &Target,
    version: u64,
    nonce: String,
) -> Option<DeltaDiscoveryResponse> {
    let new = target
        .iter()
        .filter(|(name, entry)| held.get(name.as_str()) != entry.version());
    let resources = new
        .map(|(name, entry)| entry.to_wire(name))
        .collect::<Option<_>>()?;
    let gone = |name: &&String| !target.contains_key(&ResourceName::from(name.as_str()));
    let mut removed: Vec<_> = held.keys().filter(gone).cloned().collect();
    removed.sort();
    Some(DeltaDiscoveryResponse {
        system_version_info: version.to_string(),
        resources,
        type_url: TYPE_URL.to_owned(),
        nonce,
        removed_resources: removed,
    })
}
