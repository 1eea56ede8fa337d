//! The client of `proto.EchoTestService/Echo`.

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{Ask, Outcome, connect};
use crate::echo::{EchoRequest, EchoResponse, METHOD, frame, unframe};

pub(super) async fn probe(ask: &Ask) -> Outcome {
    match timeout(ask.wait.max(std::time::Duration::from_secs(5)), call(ask)).await {
        Ok(Ok(outcome)) => outcome,
        // A connection that cannot be had or breaks is what a gRPC client calls Unavailable.
        Ok(Err(why)) => Outcome {
            word: "Unavailable".to_owned(),
            data: why.into_bytes(),
        },
        Err(_) => Outcome::word("DeadlineExceeded"),
    }
}

async fn call(ask: &Ask) -> Result<Outcome, String> {
    let stream = connect(ask).await.map_err(|o| o.word)?;
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let authority = ask.authority.as_deref().unwrap_or(&ask.addr);
    let mut request = Request::post(format!("http://{authority}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc-probe/1.0");
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let message = EchoRequest {
        message: ask.send.clone().unwrap_or_else(|| "hello".to_owned()),
    };
    let request = request
        .body(Full::new(frame(&message)))
        .map_err(|e| e.to_string())?;
    let response = send.send_request(request).await.map_err(|e| e.to_string())?;
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.map_err(|e| e.to_string())?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = trailers
        .get("grpc-status")
        .or_else(|| parts.headers.get("grpc-status"));
    let word = match status.and_then(|s| s.to_str().ok()) {
        Some(code) => name(code),
        None => name_of_http(parts.status.as_u16()),
    };
    let data = unframe::<EchoResponse>(&collected.to_bytes())
        .map(|m| m.message.into_bytes())
        .unwrap_or_default();
    Ok(Outcome {
        word: word.to_owned(),
        data,
    })
}

/// The word for a status code (gRPC, "Status codes and their use").
fn name(code: &str) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    code.parse::<usize>()
        .ok()
        .and_then(|c| NAMES.get(c))
        .copied()
        .unwrap_or("Unknown")
}

/// What a client makes of an answer without a gRPC status (gRPC, "HTTP to gRPC status code mapping").
fn name_of_http(status: u16) -> &'static str {
    match status {
        400 => "Internal",
        401 => "Unauthenticated",
        403 => "PermissionDenied",
        404 => "Unimplemented",
        429 | 502 | 503 | 504 => "Unavailable",
        _ => "Unknown",
    }
}
