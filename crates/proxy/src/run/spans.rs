//! Spans on their way to their collectors: in the name of the workload that they are of, by the ways that it calls by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use meshward_http::{Body, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use snapshot::{ResourceName, TraceProvider};
use telemetry::{Finished, SpanOwner};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::outbound::{Call, NoReply, Reply, trace};
use crate::shared::Shared;

/// Spans that go out together, of one workload.
const MAX_BATCH: usize = 512;
/// How long a span waits for others.
const WAIT: Duration = Duration::from_secs(1);
/// Batches on their way at once; the next waits, and the queue fills behind it.
const MAX_UNDER_WAY: usize = 8;
/// Bytes of a collector's answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends what is finished, for ever. What no collector takes is counted as lost.
pub(super) async fn export(
    shared: Arc<Shared>,
    mut finished: mpsc::Receiver<Finished>,
) -> Result<(), String> {
    let mut under_way = JoinSet::new();
    while let Some(first) = finished.recv().await {
        let until = Instant::now() + WAIT;
        let mut spans: HashMap<SpanOwner, Vec<Vec<u8>>> = HashMap::new();
        let mut next = Some(first);
        let mut count = 0;
        while let Some(Finished { owner, bytes }) = next {
            spans.entry(owner).or_default().push(bytes);
            count += 1;
            next = match count < MAX_BATCH {
                true => timeout_at(until, finished.recv()).await.ok().flatten(),
                false => None,
            };
        }
        for (owner, spans) in spans {
            while under_way.len() >= MAX_UNDER_WAY {
                under_way.join_next().await;
            }
            let shared = Arc::clone(&shared);
            under_way.spawn(async move {
                let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
                match send(&shared, &owner, &spans).await {
                    Ok(()) => shared.telemetry.spans_sent(count),
                    Err(why) => {
                        tracing::debug!(provider = &*owner.provider, count, "spans are lost: {why}");
                        shared.telemetry.spans_lost(count);
                    }
                }
            });
        }
        while under_way.try_join_next().is_some() {}
    }
    std::future::pending().await
}

async fn send(shared: &Arc<Shared>, owner: &SpanOwner, spans: &[Vec<u8>]) -> Result<(), String> {
    let mut index = shared.store.current().ok_or("there is no snapshot")?;
    let local = shared
        .locals
        .all()
        .into_iter()
        .find(|local| local.mark == owner.mark);
    let local = local.ok_or("the workload is gone")?;
    let inbound = index
        .workload(&local.uid)
        .and_then(|workload| workload.inbound.as_ref());
    let provider = inbound
        .and_then(|inbound| inbound.telemetry.tracing.as_ref())
        .map(|tracing| &tracing.provider)
        .filter(|provider| provider.name == *owner.provider)
        .ok_or("the provider is not in use any more")?
        .clone();
    // Whom spans are sent to is asked for as any Service that a workload talks to.
    let asked = [ResourceName::service(&provider.service)];
    let learned = shared.demand.learn(&shared.store, owner.mark, &asked).await;
    learned.map_err(|reason| format!("its Service is not known: {reason}"))?;
    index = shared.store.current().unwrap_or(index);
    let target = index
        .target(&provider.service, provider.port, &local.namespace)
        .ok_or("its Service, or the port of it, is not there")?;
    let outbound = shared
        .authorizers
        .outbound()
        .ok_or("the proxy does not call anybody yet")?;
    let message = telemetry::otlp::request(&owner.service, &shared.config.node, spans);
    let request = request(&provider, message).ok_or("its path or its headers are none")?;
    let grpc = provider.path.is_none();
    let call = Call {
        source: crate::outbound::peer_of(&index, &local),
        local,
        index: Arc::clone(&index),
        target,
        http2: grpc,
        limit: MAX_ANSWER,
        until: Instant::now() + Duration::from_millis(provider.timeout_ms),
    };
    match outbound.call(call, request).await {
        Err(NoReply::Late) => Err(format!("not within {} ms", provider.timeout_ms)),
        Err(NoReply::Unreached(why) | NoReply::Failed(why)) => Err(why),
        Ok(reply) => taken(&reply, grpc),
    }
}

fn taken(reply: &Reply, grpc: bool) -> Result<(), String> {
    if !reply.status.is_success() {
        return Err(format!("HTTP status {}", reply.status.as_u16()));
    }
    if !grpc {
        return Ok(());
    }
    let status = reply
        .trailers
        .get("grpc-status")
        .or_else(|| reply.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") if reply.status == StatusCode::OK => Ok(()),
        Some(code) => Err(format!("gRPC status {}", String::from_utf8_lossy(code))),
        None => Err("no gRPC status".to_owned()),
    }
}

/// OTLP over gRPC, or over HTTP in protocol buffers.
fn request(provider: &TraceProvider, message: Vec<u8>) -> Option<Request> {
    let (path, body, kind) = match &provider.path {
        Some(path) => (path.as_str(), Bytes::from(message), "application/x-protobuf"),
        None => {
            let mut framed = BytesMut::with_capacity(message.len() + 5);
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).ok()?);
            framed.put_slice(&message);
            (
                telemetry::otlp::EXPORT_METHOD,
                framed.freeze(),
                "application/grpc",
            )
        }
    };
    let host = format!(
        "{}.{}:{}",
        provider.service.name(),
        provider.service.namespace(),
        provider.port
    );
    let length = body.len();
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().ok()?;
    let headers = request.headers_mut();
    for (name, value) in &provider.headers {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        headers.insert(name, HeaderValue::try_from(value.as_str()).ok()?);
    }
    headers.insert(header::HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    match provider.path {
        Some(_) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.insert(header::TE, HeaderValue::from_static("trailers"))),
    }
    // Spans about spans would never end.
    trace::unsampled(headers);
    Some(request)
}
