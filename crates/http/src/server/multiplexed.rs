//! Answering over HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderMap, HeaderValue, Method, header};
use http2::{Accepted, Code, Excess, Gone, Key, RequestHead, Role};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Abort;
use super::{Handler, ServeError, origin_form, unexpected};
use crate::front::valid_host;
use crate::limits::MAX_FIELDS;
use crate::wire::{Coming, Driver, Pump, Wire};
use crate::{Body, Fault, Request, Response};

pub(super) async fn serve<IO, H>(
    io: IO,
    handler: Arc<H>,
    drain: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let wire = Wire::new(Role::Server);
    let mut driver = Driver::new(io, Arc::clone(&wire));
    let mut drain = pin!(drain);
    let mut draining = false;
    let gone = loop {
        let next = poll_fn(|context| {
            if !draining && drain.as_mut().poll(context).is_ready() {
                draining = true;
                wire.with(|connection| connection.leave());
            }
            driver.poll(context)
        });
        match next.await {
            // Each on a task of its own: one connection may carry what many ask for.
            Ok(accepted) => drop(tokio::spawn(answer(
                Arc::clone(&wire),
                Arc::clone(&handler),
                accepted,
            ))),
            Err(gone) => break gone,
        }
    };
    match gone {
        Gone::Closed => Ok(()),
        Gone::Broken(kind) => Err(ServeError::Io(kind.into())),
        gone => Err(ServeError::Broken(gone.into())),
    }
}

/// The place of an answer that was not begun. Dropped, there is none.
struct Open {
    wire: Arc<Wire>,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wire
            .with(|connection| connection.drop_message(self.key, Code::INTERNAL_ERROR));
    }
}

/// Answers one request, as long as somebody waits for the answer.
async fn answer<H: Handler>(wire: Arc<Wire>, handler: Arc<H>, accepted: Accepted) {
    let Accepted { key, head, .. } = accepted;
    let open = Open {
        wire: Arc::clone(&wire),
        key,
    };
    let body = if head.ended {
        Body::empty()
    } else {
        Body::from(Coming::new(Arc::clone(&wire), key))
    };
    let bodiless = head.method == Method::HEAD;
    let response = match request(head, body) {
        Ok(request) => {
            let mut work = Box::pin(handler.request(request));
            let worked = poll_fn(|context| {
                if wire
                    .with(|connection| connection.poll_unwanted(key, context))
                    .is_ready()
                {
                    return Poll::Ready(Err(Abort));
                }
                work.as_mut().poll(context)
            });
            match worked.await {
                Ok(response) if !response.status().is_informational() => response,
                _ => return,
            }
        }
        Err(fault) => {
            handler.refused(fault);
            fault.response(false)
        }
    };
    respond(&wire, open, response, bodiless).await;
}

/// Sends an answer.
async fn respond(wire: &Arc<Wire>, open: Open, response: Response, bodiless: bool) {
    let key = open.key;
    let (head, body) = response.into_parts();
    let length = http_body::Body::size_hint(&body).exact();
    let length = length.filter(|_| !head.headers.contains_key(header::CONTENT_LENGTH));
    let ended = bodiless || body.is_over();
    let told = poll_fn(|context| {
        wire.with(|connection| {
            connection.poll_respond(key, head.status, &head.headers, length, ended, context)
        })
    });
    if told.await.is_ok() && !ended {
        // It ends as its body does; then `open` has nothing to say any more.
        let _ = Pump::new(Arc::clone(wire), key, body, Code::INTERNAL_ERROR).await;
    }
    drop(open);
}

/// The request as handlers get it.
fn request(head: RequestHead, body: Body) -> Result<Request, Fault> {
    match head.excess {
        Some(Excess::Length) => return Err(Fault::HeadTooLong),
        Some(Excess::Fields) => return Err(Fault::TooManyFields),
        None => {}
    }
    let mut request = Request::new(body);
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = head.method;
    *request.headers_mut() = head.headers;
    let Some(path) = head.path else {
        return Err(Fault::Connect);
    };
    *request.uri_mut() = path.into();
    if let Some(fault) = unexpected(&request) {
        return Err(fault);
    }
    if request.headers().len() > MAX_FIELDS {
        return Err(Fault::TooManyFields);
    }
    authority(request.headers_mut(), head.authority)?;
    origin_form(&mut request)?;
    join_cookies(request.headers_mut());
    Ok(request)
}

/// `:authority` and `host` must agree, and one of them must be there. Afterwards `host` is.
fn authority(headers: &mut HeaderMap, authority: Option<HeaderValue>) -> Result<(), Fault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::SeveralHosts);
    }
    let chosen = match (authority, host) {
        (None, None) => return Err(Fault::MissingHost),
        (None, Some(host)) => host.clone(),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return Err(Fault::HostMismatch);
        }
        (Some(authority), _) => authority,
    };
    if !valid_host(chosen.as_bytes()) {
        return Err(Fault::Host);
    }
    headers.insert(header::HOST, chosen);
    Ok(())
}

/// Cookies may be cut into fields of their own; everybody else wants one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    if crumbs.len() < 2 {
        return;
    }
    let joined = crumbs
        .iter()
        .map(|c| c.as_bytes())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}
