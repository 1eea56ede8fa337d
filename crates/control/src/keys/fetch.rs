//! One fetch: an address or an issuer in, a key set out.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use meshward_http::{Body, HeaderValue, Request, Response, Uri, Version, header};
use model::may_dial;
use snapshot::{Answer, Index, Lacks};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::bundle::Bundle;
use crate::config::Fetching;

/// What a source begins with whose keys the issuer's discovery document names.
const DISCOVERY: &str = "discovery:";
/// Behind the issuer: its discovery document (OpenID Connect Discovery 1.0, 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// The longest answer, in bytes.
const MAX_BODY: usize = jwt::MAX_JWKS;
/// Redirects that are followed of one address.
const MAX_REDIRECTS: usize = 5;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The longest `timeout` of a rule that is honoured.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The most characters of somebody else's text in a reason.
const MAX_SHOWN: usize = 120;

/// What a fetch goes by.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    pub(super) config: Fetching,
    /// The names and addresses of the mesh; `None` before there are any.
    pub(super) index: Option<Arc<Index>>,
    /// Whether key sets are read as semantics 4.3 OURS says.
    pub(super) strict: bool,
}

/// An address as far as it is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    /// As it is written in `Host`.
    authority: String,
}

impl Fetcher {
    /// Fetches the keys of a source.
    ///
    /// # Errors
    /// Why not, in words that follow "since TIME".
    pub(super) async fn fetch(&self, source: &str, timeout: Duration) -> Result<String, String> {
        let timeout = timeout.min(MAX_TIMEOUT);
        let fetched = tokio::time::timeout(timeout, self.keys(source)).await;
        let text = fetched.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))??;
        jwt::Keys::parse(&text, self.strict)
            .map_err(|why| format!("what `{source}` answers is no key set: {why}"))?;
        Ok(text)
    }

    /// Fetches a SPIFFE bundle; by https alone, since who answers there makes identities believed.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub(super) async fn bundle(&self, url: &str, timeout: Duration) -> Result<Bundle, String> {
        if !url.starts_with("https://") {
            return Err(format!("`{}` is no address of https", shown(url)));
        }
        let timeout = timeout.min(MAX_TIMEOUT);
        let fetched = tokio::time::timeout(timeout, self.get(url)).await;
        let text = fetched.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))??;
        super::bundle::read(&text).map_err(|why| format!("what `{}` answers is no bundle: {why}", shown(url)))
    }

    async fn keys(&self, source: &str) -> Result<String, String> {
        let Some(issuer) = source.strip_prefix(DISCOVERY) else {
            return self.get(source).await;
        };
        if !issuer.starts_with("https://") && !issuer.starts_with("http://") {
            return Err(format!(
                "the issuer `{}` is no address, so that its keys cannot be discovered; name them by `jwksUri` or `jwks`",
                shown(issuer)
            ));
        }
        let at = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        let document = self.get(&at).await?;
        let document: serde_json::Value =
            serde_json::from_str(&document).map_err(|_| format!("what `{at}` answers is no JSON"))?;
        let uri = document.get("jwks_uri").and_then(serde_json::Value::as_str);
        let uri = uri.ok_or_else(|| format!("what `{at}` answers has no `jwks_uri`"))?;
        if at.starts_with("https://") && !uri.starts_with("https://") {
            return Err(format!(
                "`{at}` names keys that are not fetched by https: `{}`",
                shown(uri)
            ));
        }
        self.get(uri).await
    }

    /// Gets a text, redirects followed.
    async fn get(&self, address: &str) -> Result<String, String> {
        let mut target = Target::read(address)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&target).await?;
            let status = response.status();
            if status.is_redirection() {
                let location = response.headers().get(header::LOCATION);
                let location = location.and_then(|value| value.to_str().ok());
                let location =
                    location.ok_or_else(|| format!("`{target}` redirects, and does not say where to"))?;
                target = target.redirected(location)?;
                continue;
            }
            if status != meshward_http::StatusCode::OK {
                return Err(format!("`{target}` answers {}", status.as_u16()));
            }
            return body(response).await.map_err(|why| format!("`{target}`: {why}"));
        }
        Err(format!(
            "`{}` redirects more than {MAX_REDIRECTS} times",
            shown(address)
        ))
    }

    async fn ask(&self, target: &Target) -> Result<Response, String> {
        let failed = |why: &dyn std::fmt::Display| format!("`{target}`: {why}");
        let stream = self.connect(target).await?;
        if !target.tls {
            return exchange(stream, target).await.map_err(|why| failed(&why));
        }
        let ca = self.config.ca.clone();
        let config = tokio::task::spawn_blocking(move || trust(ca.as_deref()));
        let config = config.await.map_err(|error| failed(&error))??;
        let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(&error))?;
        exchange(stream, target).await.map_err(|why| failed(&why))
    }

    /// Connects to the first address that answers, of those that may be dialled.
    async fn connect(&self, target: &Target) -> Result<TcpStream, String> {
        let addresses = self.resolve(target).await?;
        let mut why = format!("`{target}`: the name has no address");
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            // Judged and dialled are one and the same address: a second look-up could say another.
            if let Err(what) = may_dial(address.ip(), &self.config.allow) {
                why = format!(
                    "`{target}` is {}, {what}, where keys are not fetched from",
                    address.ip()
                );
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = format!("`{target}` at {address}: {error}"),
            }
        }
        Err(why)
    }

    /// The addresses of a host: names and addresses of the mesh's own Services by the mesh, as nothing here stands between
    /// us and the pods; others by the system.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, String> {
        let literal: Option<IpAddr> = target.host.parse().ok();
        if let Some(index) = &self.index {
            let namespace = index.mesh().root_namespace.clone();
            // The index is of the whole mesh: it lacks nothing.
            let whole = Lacks::default();
            let service = match literal {
                Some(address) => index
                    .vip(address, target.port)
                    .map(|(service, _)| Arc::clone(service)),
                None => index.service_by_host(&target.host, &namespace, &whole),
            };
            if let Some(service) = service {
                let found = endpoints(&service, target.port);
                if found.is_empty() {
                    return Err(format!(
                        "`{target}`: the Service `{}` has no ready endpoint for port {}",
                        service.name, target.port
                    ));
                }
                return Ok(found);
            }
            if literal.is_none() {
                match index.resolve(&target.host, &namespace, false, &whole) {
                    Answer::NotOurs => {}
                    Answer::Cname(alias) => return system(alias.as_str(), target.port, target).await,
                    Answer::Addresses(found) => {
                        return Ok(found
                            .into_iter()
                            .map(|ip| SocketAddr::new(ip, target.port))
                            .collect());
                    }
                    Answer::NoData | Answer::NxDomain => {
                        return Err(format!("`{target}`: there is no such Service"));
                    }
                }
            }
        }
        match literal {
            Some(address) => Ok(vec![SocketAddr::new(address, target.port)]),
            None => system(&target.host, target.port, target).await,
        }
    }
}

/// Addresses by the system's own resolver.
async fn system(host: &str, port: u16, target: &Target) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    Ok(found.map_err(|error| format!("`{target}`: {error}"))?.collect())
}

/// Where a port of a Service leads to.
fn endpoints(service: &snapshot::Service, port: u16) -> Vec<SocketAddr> {
    let ready = service.endpoints.iter().filter(|endpoint| endpoint.ready);
    let at = ready.filter_map(|endpoint| Some((endpoint, *endpoint.ports.get(&port)?)));
    at.flat_map(|(endpoint, port)| {
        endpoint
            .addresses
            .iter()
            .map(move |ip| SocketAddr::new(*ip, port))
    })
    .collect()
}

/// Whom https is believed: the system's authorities, and those that the operator names.
fn trust(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's is not there; a server whose root is missed by it is refused.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let named =
            |why: &dyn std::fmt::Display| format!("the certificate authorities `{}`: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let extra = identity::pki::certificates(&text).map_err(|error| named(&error))?;
        for certificate in extra {
            roots.add(certificate).map_err(|error| named(&error))?;
        }
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Asks and reads the head of the answer.
async fn exchange<IO>(stream: IO, target: &Target) -> Result<Response, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = target.path.parse().map_err(|_| "the path is none".to_owned())?;
    let host = HeaderValue::try_from(target.authority.as_str()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("meshward"));
    let mut sender = meshward_http::handshake(stream, Version::Http1)
        .await
        .map_err(|error| error.to_string())?;
    sender
        .send(request)
        .await
        .map_err(|unsent| unsent.error.to_string())
}

/// Reads a body, no further than a key set may be long.
async fn body(response: Response) -> Result<String, String> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(format!("the answer is longer than {MAX_BODY} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).map_err(|_| "the answer is no text".to_owned())
}

impl Target {
    fn read(address: &str) -> Result<Self, String> {
        let broken = |what: &str| format!("`{}` {what}", shown(address));
        let uri: Uri = address.parse().map_err(|_| broken("is no address"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(broken("is neither https nor http")),
        };
        let authority = uri.authority().ok_or_else(|| broken("names no host"))?.as_str();
        if authority.contains('@') {
            return Err(broken("holds a name and password"));
        }
        let (host, port) = model::split_authority(authority).ok_or_else(|| broken("names no host"))?;
        if host.is_empty() {
            return Err(broken("names no host"));
        }
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// Where an answer sends us (RFC 9110, 10.2.2). Never from https to http.
    fn redirected(&self, location: &str) -> Result<Self, String> {
        let scheme = if self.tls { "https" } else { "http" };
        let next = if location.starts_with("https://") || location.starts_with("http://") {
            Self::read(location)?
        } else if location.starts_with("//") {
            Self::read(&format!("{scheme}:{location}"))?
        } else if location.starts_with('/') {
            Self::read(&format!("{scheme}://{}{location}", self.authority))?
        } else {
            return Err(format!(
                "`{self}` redirects to `{}`, which is not followed",
                shown(location)
            ));
        };
        if self.tls && !next.tls {
            return Err(format!("`{self}` redirects from https to `{next}`"));
        }
        Ok(next)
    }
}

/// Without the query, which may hold a secret.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{}", shown(&self.authority), shown(path))
    }
}

fn shown(text: &str) -> String {
    text.escape_debug().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
