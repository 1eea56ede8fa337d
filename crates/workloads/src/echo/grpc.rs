//! `proto.EchoTestService/Echo`, the method of Istio's echo application, by hand: one message each way.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use prost::Message;

use super::{BODY, Me, describe};
use crate::serve::Body;

/// The path of the method.
pub(crate) const METHOD: &str = "/proto.EchoTestService/Echo";

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct EchoRequest {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct EchoResponse {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

/// One gRPC message: a flag, the length, the bytes.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).unwrap_or_default());
    // A BytesMut grows, so encoding into it cannot run out of room.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// The first message of a body.
pub(crate) fn unframe<M: Message + Default>(body: &[u8]) -> Option<M> {
    let (head, rest) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    M::decode(rest.get(..length)?).ok()
}

pub(super) async fn serve(
    request: Request<Incoming>,
    me: Arc<Me>,
    peer: SocketAddr,
    port: u16,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let collected = Limited::new(body, BODY)
        .collect()
        .await
        .map(|c| c.to_bytes())
        .unwrap_or_default();
    let asked = unframe::<EchoRequest>(&collected);
    match (parts.uri.path(), asked) {
        (METHOD, Some(asked)) => {
            let mut lines = me.lines(peer, port);
            lines.push_str(&describe(&parts));
            lines.push_str(&format!("Echo={}\n", asked.message));
            answer(Some(frame(&EchoResponse { message: lines })), 0)
        }
        (METHOD, None) => answer(None, 3),
        _ => answer(None, 12),
    }
}

/// An answer of gRPC.
pub(crate) fn answer(message: Option<Bytes>, status: u16) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    let frames = message
        .into_iter()
        .map(Frame::data)
        .chain([Frame::trailers(trailers)])
        .map(Ok)
        .collect::<Vec<_>>();
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(
        futures_util::stream::iter(frames),
    )));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_and_unframed() {
        let message = EchoRequest {
            message: "hi".to_owned(),
        };
        assert_eq!(unframe::<EchoRequest>(&frame(&message)), Some(message));
        for bad in [&b""[..], &[0, 0, 0, 0, 9, 1], &[1, 0, 0, 0, 0]] {
            assert_eq!(unframe::<EchoRequest>(bad), None);
        }
    }
}
