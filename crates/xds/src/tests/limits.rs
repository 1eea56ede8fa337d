//! Limits of the server, reached by peers that keep to none, and messages that are none.

use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use testkit::hostile::Answer;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::wire::{MAX_MESSAGE, MAX_QUESTIONS, MAX_RESOURCES};

const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const A_WHILE: Duration = Duration::from_millis(300);

/// What asks for these on the node `a`.
fn first(names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node {
            id: "a".to_owned(),
            ..Node::default()
        }),
        type_url: TYPE_URL.to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}

/// A stream of a peer that answers nothing.
struct Mute {
    responses: Streaming<DeltaDiscoveryResponse>,
    _requests: mpsc::Sender<DeltaDiscoveryRequest>,
}

async fn dial(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn open(channel: &Channel, first: DeltaDiscoveryRequest) -> Result<Mute, Status> {
    let (send, requests) = mpsc::channel(1);
    send.send(first).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(requests));
    let token = "Bearer token-of-a".parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let responses = client.delta_aggregated_resources(request).await?.into_inner();
    Ok(Mute {
        responses,
        _requests: send,
    })
}

impl Mute {
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(SOON, self.responses.message())
            .await
            .expect("an answer comes")
    }
}

async fn started() -> (Server, SocketAddr) {
    let server = Server::new();
    server.publish("a", set(&[("one", 1)])).unwrap();
    let (address, _task) = serve(&server).await;
    (server, address)
}

#[tokio::test]
async fn a_peer_that_asks_for_more_than_may_be_asked_for_is_refused() {
    let (_server, address) = started().await;
    let names = |count: usize| (0..count).map(|n| format!("service/n/s{n}")).collect();
    let channel = dial(address).await;
    assert!(open(&channel, first(names(MAX_QUESTIONS))).await.is_ok());
    let refused = open(&channel, first(names(MAX_QUESTIONS + 1))).await;
    assert_eq!(
        refused.err().map(|status| status.code()),
        Some(Code::ResourceExhausted)
    );
}

#[tokio::test]
async fn of_more_streams_than_a_node_may_have_the_oldest_ends() {
    let (_server, address) = started().await;
    let mut streams = Vec::new();
    // Each on a connection of its own.
    for _ in 0..5 {
        let mut stream = open(&dial(address).await, first(Vec::new())).await.unwrap();
        assert!(stream.next().await.unwrap().is_some());
        streams.push(stream);
    }
    let ended = streams[0].next().await;
    assert_eq!(ended.err().map(|status| status.code()), Some(Code::Aborted));
    for stream in &mut streams[1..] {
        assert!(timeout(A_WHILE, stream.responses.message()).await.is_err());
    }
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_the_next_waits() {
    let (_server, address) = started().await;
    let channel = dial(address).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(open(&channel, first(Vec::new())).await.unwrap());
    }
    assert!(timeout(A_WHILE, open(&channel, first(Vec::new()))).await.is_err());
    streams.remove(0);
    let next = timeout(SOON, open(&channel, first(Vec::new()))).await;
    assert!(next.expect("there is room again").is_ok());
}

#[test]
fn more_than_a_node_may_hold_is_not_published_and_what_was_stays() {
    let server = Server::new();
    let before = server.publish("a", set(&[("one", 1)])).unwrap();
    let many: Resources = (0..=MAX_RESOURCES).map(|n| policy(&format!("p{n}"), 1)).collect();
    assert!(server.publish("a", many).is_err());
    assert_eq!(server.publish("a", set(&[("one", 1)])).unwrap(), before);
}

#[tokio::test]
async fn messages_that_are_cut_or_too_long_or_none_are_refused_and_nobody_else_notices() {
    let (_server, address) = started().await;
    let (mut sets, _client) = client(&Arc::new(Mutex::new(address)), "a", "token-of-a");
    next(&mut sets).await;
    let good = first(vec!["service/n/s".to_owned()]).encode_to_vec();
    let connect = async || TcpStream::connect(address).await.unwrap();
    let answers = testkit::hostile::speak(connect, PATH, "token-of-a", &good, MAX_MESSAGE).await;
    assert!(answers.len() > 60);
    let wrong: Vec<_> = answers
        .iter()
        .filter(|(what, answer)| match answer {
            Answer::Left => !what.starts_with("left"),
            // What is whole is taken, whatever it says.
            Answer::Status(0) => !(what.starts_with("cut at") || what.starts_with("other at")),
            Answer::Status(_) | Answer::Reset => false,
            Answer::Silence | Answer::Broken(_) => true,
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut stream = open(&dial(address).await, first(Vec::new())).await.unwrap();
    assert!(stream.next().await.unwrap().is_some());
}
