//! Istio's echo application, as its flags ask: HTTP (HTTP/1.1, h2c, WebSocket), gRPC, TCP, server-first TCP, UDP, TLS.

pub(crate) mod grpc;
mod raw;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::serve::{self, Body, full, websocket};
use crate::{Exit, httpbin};

pub(crate) use grpc::{EchoRequest, EchoResponse, METHOD, frame, unframe};

/// How much of a request body is read and told back.
const BODY: usize = 4 * 1024 * 1024;

/// Who answers.
#[derive(Debug)]
struct Me {
    version: String,
    cluster: String,
    hostname: String,
}

#[derive(Default, Debug)]
struct Flags {
    http: Vec<u16>,
    grpc: Vec<u16>,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    server_first: Vec<u16>,
    tls: Vec<u16>,
    version: String,
    cluster: String,
}

/// The flags of Istio's `app server`; those without a meaning here (`--metrics`, `--crt`, `--key`, `--istio-version`,
/// `--disable-alpn`, `--bind-ip`, `--bind-localhost`, `--liveness-grace-period`, ...) are accepted and passed over.
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let flags = parse(args)?;
    let me = Arc::new(Me {
        version: flags.version,
        cluster: flags.cluster,
        hostname: crate::hostname(),
    });
    let mut tasks = tokio::task::JoinSet::new();
    let certificate = if flags.tls.is_empty() {
        None
    } else {
        Some(tls::acceptor()?)
    };
    for port in flags.http {
        let listener = serve::listen(port)
            .await
            .map_err(|e| Exit::usage(format!("cannot listen on port {port}: {e}")))?;
        let me = Arc::clone(&me);
        let acceptor = certificate.clone().filter(|_| flags.tls.contains(&port));
        tasks.spawn(serve::accept_loop(listener, move |stream, peer| {
            let (me, acceptor) = (Arc::clone(&me), acceptor.clone());
            async move {
                let handler = move |request| http(request, Arc::clone(&me), peer, port);
                match acceptor {
                    None => serve::connection(stream, handler).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve::connection(stream, handler).await;
                        }
                    }
                }
            }
        }));
    }
    for port in flags.grpc {
        let listener = serve::listen(port).await?;
        let me = Arc::clone(&me);
        tasks.spawn(serve::accept_loop(listener, move |stream, peer| {
            let me = Arc::clone(&me);
            serve::connection(stream, move |request| {
                grpc::serve(request, Arc::clone(&me), peer, port)
            })
        }));
    }
    for port in flags.tcp {
        let listener = serve::listen(port).await?;
        let (me, first) = (Arc::clone(&me), flags.server_first.contains(&port));
        tasks.spawn(serve::accept_loop(listener, move |stream, peer| {
            raw::tcp(stream, Arc::clone(&me), peer, port, first)
        }));
    }
    for port in flags.udp {
        tasks.spawn(raw::udp(Arc::clone(&me), port));
    }
    println!("ready");
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(error)) = ended {
            return Err(error.into());
        }
    }
    Ok(0)
}

fn parse(args: &[String]) -> Result<Flags, Exit> {
    let mut flags = Flags::default();
    let mut words = args.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, words.next_if(|next| !next.starts_with("--"))),
        };
        let port = || -> Result<u16, Exit> {
            let value = value.unwrap_or_default();
            value
                .parse()
                .map_err(|_| Exit::usage(format!("--{name}: `{value}` is not a port")))
        };
        match name {
            "port" | "http" => flags.http.push(port()?),
            "grpc" => flags.grpc.push(port()?),
            "tcp" => flags.tcp.push(port()?),
            "udp" => flags.udp.push(port()?),
            "server-first" => flags.server_first.push(port()?),
            "tls" => flags.tls.push(port()?),
            "version" => value.unwrap_or_default().clone_into(&mut flags.version),
            "cluster" => value.unwrap_or_default().clone_into(&mut flags.cluster),
            _ => {}
        }
    }
    Ok(flags)
}

async fn http(mut request: Request<Incoming>, me: Arc<Me>, peer: SocketAddr, port: u16) -> Response<Body> {
    if let Some(response) = upgrade(&mut request) {
        return response;
    }
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => {
            return plain(
                StatusCode::BAD_REQUEST,
                "the body broke off or is too large\n".to_owned(),
            );
        }
    };
    let mut lines = me.lines(peer, port);
    lines.push_str(&describe(&parts));
    if !body.is_empty() {
        lines.push_str(&format!("Body={}\n", String::from_utf8_lossy(&body)));
    }
    plain(wanted_status(parts.uri.query().unwrap_or_default()), lines)
}

impl Me {
    /// The lines that every answer carries.
    fn lines(&self, peer: SocketAddr, port: u16) -> String {
        format!(
            "StatusCode=200\nServiceVersion={}\nServicePort={port}\nCluster={}\nHostname={}\nIP={}\n",
            self.version,
            self.cluster,
            self.hostname,
            peer.ip()
        )
    }
}

/// The request, a line a fact.
fn describe(parts: &http::request::Parts) -> String {
    let host = parts
        .headers
        .get("host")
        .and_then(|h| h.to_str().ok())
        .or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))
        .unwrap_or_default();
    let mut out = format!(
        "Host={host}\nURL={}\nMethod={}\nProto={:?}\n",
        parts.uri.path_and_query().map_or("/", |p| p.as_str()),
        parts.method,
        parts.version
    );
    for (name, value) in &parts.headers {
        if name != "host" {
            out.push_str(&format!(
                "RequestHeader={}:{}\n",
                httpbin::canonical(name.as_str()),
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
    }
    out
}

/// `?codes=503`: the status that the caller asks for.
fn wanted_status(query: &str) -> StatusCode {
    query
        .split('&')
        .filter_map(|p| p.strip_prefix("codes="))
        .filter_map(|c| c.split([':', ',']).next())
        .find_map(|c| c.parse::<u16>().ok().and_then(|c| StatusCode::from_u16(c).ok()))
        .unwrap_or(StatusCode::OK)
}

fn upgrade(request: &mut Request<Incoming>) -> Option<Response<Body>> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    if !header("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket")) {
        return None;
    }
    let accept = http::HeaderValue::try_from(websocket::accept_key(header("sec-websocket-key")?)).ok()?;
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(io) = upgraded.await {
            // The client ends the conversation; how is its business.
            let _ = websocket::echo(TokioIo::new(io)).await;
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
    headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
    headers.insert("sec-websocket-accept", accept);
    Some(response)
}

fn plain(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_istios_worlds() {
        let args: Vec<String> = [
            "--port=8080",
            "--port",
            "8081",
            "--grpc=7070",
            "--server-first=9091",
            "--tcp=9091",
            "--version=v1",
            "--metrics=15014",
        ]
        .map(String::from)
        .to_vec();
        let flags = parse(&args).unwrap();
        assert_eq!(
            (flags.http, flags.grpc, flags.tcp, flags.server_first),
            (vec![8080, 8081], vec![7070], vec![9091], vec![9091])
        );
        assert_eq!(flags.version, "v1");
        assert!(parse(&["--port=x".to_owned()]).is_err());
    }

    #[test]
    fn codes() {
        assert_eq!(wanted_status("a=1&codes=503:1"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(wanted_status(""), StatusCode::OK);
    }
}
