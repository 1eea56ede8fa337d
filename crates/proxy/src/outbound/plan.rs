//! What to do with a connection, from where it goes and what it says first.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::BytesMut;
use identity::sniff::{LIMIT, Sniff as Hello, client_hello};
use meshward_http::Rewind;
use meshward_http::limits::IDLE_TIMEOUT;
use meshward_http::sniff::{self, classify};
use model::{Protocol, Reason, ServiceName, Text, WorkloadUid};
use snapshot::{Asker, Claim, Destination, Index, Lacks};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Registration;

/// How long the first bytes on a port without a declared protocol are waited for, where the mesh sets no limit. Then
/// the connection goes on as TCP: it may be the server that speaks first (semantics 9).
const DETECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 22;

/// How a connection is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// As HTTP: the port is declared so.
    Http,
    /// Not at all.
    Opaque,
    /// As what its first bytes are, if they come in time.
    Sniff(Duration),
    /// As TLS whose name says where it goes, if it comes in time. Unless the port is declared so, what is no TLS is read as with
    /// [`Read::Sniff`].
    Named {
        /// How long the first bytes are waited for.
        limit: Duration,
        /// Whether the port is declared as TLS.
        declared: bool,
    },
    /// Not at all, once something came: there is nowhere to go, and nobody is kept waiting.
    Await(Duration),
    /// It is not carried.
    Refused(Reason),
}

/// What a connection turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Spoken {
    Http,
    Bytes,
    /// Bytes that have to say where they go, and the name that they ask for.
    Named(Option<String>),
    Refused(Reason, &'static str),
}

/// Whether the port is one that only captured connections may arrive at (MT-24, MT-25).
pub(super) fn is_capture_port(port: u16) -> bool {
    [capture::OUTBOUND_PORT, capture::INBOUND_PORT, capture::DNS_PORT].contains(&port)
}

/// How to read a connection that goes there. One that goes nowhere is read too, so that HTTP gets an answer.
pub(super) fn reading(
    destination: &Result<Destination, Reason>,
    index: &Index,
    asker: Asker<'_>,
    port: u16,
) -> Read {
    let limit = index.mesh().protocol_detection_timeout();
    let sniff = Read::Sniff(limit.unwrap_or(DETECTION_TIMEOUT));
    if let Some(declared) = index.asks_name(asker, port, destination) {
        let limit = limit.unwrap_or(DETECTION_TIMEOUT);
        return Read::Named { limit, declared };
    }
    let protocol = match destination {
        Ok(Destination::Service(target)) => target.protocol,
        // A plain pod that nothing registers is outside all the same.
        Ok(Destination::Direct {
            workload: Some(pod),
            service: None,
            ..
        }) if pod.identity.is_none() && !index.declares_http(port) => Protocol::Tcp,
        Ok(Destination::Direct { service, .. }) => {
            service.as_ref().map_or(Protocol::Auto, |target| target.protocol)
        }
        // Only where a Host may choose another destination is it worth the wait.
        Ok(Destination::External(_)) if !index.declares_http(port) => Protocol::Tcp,
        // As upstream, whose answer depends on whether there is a listener for HTTP.
        Err(_) if !index.mesh().strict_hosts && !index.declares_http(port) => {
            return Read::Await(limit.unwrap_or(DETECTION_TIMEOUT));
        }
        Ok(Destination::External(_)) | Err(_) => Protocol::Auto,
    };
    match protocol {
        Protocol::Udp => Read::Refused(Reason::NoRoute),
        _ if protocol.is_http() => Read::Http,
        _ if protocol.is_opaque() => Read::Opaque,
        _ => sniff,
    }
}

/// Reads as much as is needed to say what is spoken; the stream begins anew with it.
///
/// # Errors
/// The stream failed.
pub(super) async fn sniff<S>(mut stream: S, read: Read, http10: bool) -> std::io::Result<(Rewind<S>, Spoken)>
where
    S: AsyncRead + Unpin,
{
    let mut first = BytesMut::new();
    let spoken = match read {
        Read::Opaque => Spoken::Bytes,
        Read::Refused(reason) => Spoken::Refused(reason, "the port is declared as UDP"),
        Read::Http => declared(
            collect(&mut stream, &mut first, IDLE_TIMEOUT, |b| !b.is_empty()).await?,
            &first,
        ),
        Read::Await(limit) => {
            collect(&mut stream, &mut first, limit, |bytes| !bytes.is_empty()).await?;
            Spoken::Bytes
        }
        Read::Sniff(limit) => {
            let told = |bytes: &[u8]| classify(bytes) != sniff::Sniff::NeedMore;
            collect(&mut stream, &mut first, limit, told).await?;
            detected(&first, http10)
        }
        Read::Named { limit, declared } => {
            let told = |bytes: &[u8]| {
                let hello = client_hello(bytes) != Hello::NeedMore || bytes.len() >= 2 * LIMIT;
                hello && (declared || classify(bytes) != sniff::Sniff::NeedMore)
            };
            collect(&mut stream, &mut first, limit, told).await?;
            match (client_hello(&first), detected(&first, http10)) {
                (Hello::ClientHello { sni, .. }, _) => Spoken::Named(sni),
                (Hello::NotTls, spoken) if !declared => spoken,
                // A server that speaks first names nothing either.
                (Hello::NeedMore, _) if first.is_empty() && !declared => Spoken::Bytes,
                _ => Spoken::Named(None),
            }
        }
    };
    Ok((Rewind::new(first.freeze(), stream), spoken))
}

/// What a connection to a port that is declared HTTP is: HTTP, or refused (PD-18). Bytes that are no HTTP either get
/// their answer from the codec.
fn declared(in_time: bool, first: &[u8]) -> Spoken {
    match first.first() {
        _ if !in_time => Spoken::Refused(Reason::Timeout, "no request came"),
        Some(&TLS_HANDSHAKE) => Spoken::Refused(Reason::ProtocolError, "TLS to a port that is declared HTTP"),
        _ => Spoken::Http,
    }
}

fn detected(first: &[u8], http10: bool) -> Spoken {
    match classify(first) {
        sniff::Sniff::Http1 | sniff::Sniff::Http2 => Spoken::Http,
        sniff::Sniff::Http10 if http10 => Spoken::Http,
        _ => Spoken::Bytes,
    }
}

/// Reads until `enough`, the end, or the time limit, and says whether it was in time.
async fn collect(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
    limit: Duration,
    enough: impl Fn(&[u8]) -> bool,
) -> std::io::Result<bool> {
    let reading = async {
        while !enough(bytes) {
            if stream.read_buf(bytes).await? == 0 {
                break;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(limit, reading).await {
        Ok(read) => read.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Where something under way went, and what it said for that, so that it is closed when it would now go elsewhere.
#[derive(Debug)]
pub(super) struct Kept {
    /// Once it was decided.
    place: OnceLock<Place>,
    namespace: Box<str>,
    /// Whose it is, where a Sidecar may be for it alone.
    uid: Option<WorkloadUid>,
    dialled: SocketAddr,
    authority: Option<Text>,
    /// The name that its TLS asks for, where that counts.
    sni: OnceLock<Option<String>>,
}

#[derive(PartialEq, Eq, Debug)]
enum Place {
    Service(ServiceName),
    Direct(Option<WorkloadUid>),
    External,
}

impl Kept {
    /// Of what a workload in `namespace` dials, a request that names `authority` say. Nothing is decided yet.
    pub(super) fn new(namespace: &str, dialled: SocketAddr, authority: Option<Text>) -> Self {
        Self {
            place: OnceLock::new(),
            namespace: namespace.into(),
            uid: None,
            dialled,
            authority,
            sni: OnceLock::new(),
        }
    }

    /// Of that very workload.
    pub(super) fn of(mut self, local: &Registration) -> Self {
        self.uid = Some(local.uid.clone());
        self
    }

    /// Whether it is of that workload.
    pub(super) fn is_of(&self, local: &Registration) -> bool {
        *self.namespace == *local.namespace && self.uid.as_ref() == Some(&local.uid)
    }

    /// The name that its TLS asks for counts.
    pub(super) fn names(&self, sni: Option<String>) {
        let _ = self.sni.set(sni);
    }

    /// What it says of where it goes.
    pub(super) fn claim(&self) -> Claim<'_> {
        match (self.authority.as_deref(), self.sni.get()) {
            (Some(authority), _) => Claim::Host(authority),
            (None, Some(sni)) => Claim::Sni(sni.as_deref()),
            (None, None) => Claim::Nothing,
        }
    }

    pub(super) fn decided(&self, destination: &Destination) {
        let _ = self.place.set(Place::of(destination));
    }

    /// Where it would go by a snapshot.
    pub(super) fn find(&self, index: &Index, lacks: &Lacks) -> Result<Destination, Reason> {
        let asker = index.asker(&self.namespace, self.uid.as_ref());
        index.find_outbound(asker, self.dialled, self.claim(), lacks)
    }

    /// Whether it may go on, by where it would go now. Nothing is asked before it was decided.
    pub(super) fn check(&self, now: impl FnOnce() -> Result<Destination, Reason>) -> Result<(), Reason> {
        match self.place.get() {
            Some(before) if Place::of(&now()?) != *before => Err(Reason::PolicyChanged),
            _ => Ok(()),
        }
    }
}

impl Place {
    fn of(destination: &Destination) -> Self {
        match destination {
            Destination::Service(target) => Self::Service(target.service.name.clone()),
            Destination::Direct { workload, .. } => Self::Direct(workload.as_ref().map(|w| w.uid.clone())),
            Destination::External(_) => Self::External,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::{endpoint, mesh, pod, service};
    use super::*;
    use model::Protocol::*;
    use snapshot::{Egress, Resource, Resources};

    const AUTO: Read = Read::Sniff(DETECTION_TIMEOUT);

    fn index(protocol: Protocol, egress: Egress) -> Index {
        let server = pod("web-1", "10.77.1.2", Some("web"));
        let resources: Resources = [
            Resource::from(mesh(egress)),
            service(
                "full/web",
                "10.96.0.20:80",
                protocol,
                vec![endpoint(&server, 80, 8080)],
            )
            .into(),
            server.into(),
        ]
        .into_iter()
        .collect();
        Index::build(&resources).unwrap()
    }

    fn check(protocol: Protocol, egress: Egress, dialled: &str, expect: Read) {
        let index = index(protocol, egress);
        let dialled: SocketAddr = dialled.parse().unwrap();
        let destination = index.outbound("full", dialled, None);
        assert_eq!(
            reading(&destination, &index, index.asker("full", None), dialled.port()),
            expect,
            "{protocol:?} {dialled}"
        );
    }

    #[test]
    fn how_a_connection_is_read() {
        let only = Egress::RegistryOnly;
        for (protocol, expect) in [
            (Http, Read::Http),
            (Http2, Read::Http),
            (Grpc, Read::Http),
            (GrpcWeb, Read::Http),
            (Tcp, Read::Opaque),
            (Tls, Read::Opaque),
            (Https, Read::Opaque),
            (Auto, AUTO),
            (Udp, Read::Refused(Reason::NoRoute)),
        ] {
            check(protocol, only, "10.96.0.20:80", expect);
            check(protocol, only, "10.77.1.2:8080", expect);
        }
        // A port that nothing declares, a port that the Service does not have, and what nobody knows.
        check(Http, only, "10.77.1.2:9999", AUTO);
        check(Http, only, "10.96.0.20:81", AUTO);
        check(Http, only, "1.2.3.4:80", AUTO);
        // Outside, only where a Host may choose another destination.
        check(Http, Egress::AllowAny, "1.2.3.4:80", AUTO);
        check(Http, Egress::AllowAny, "1.2.3.4:443", Read::Opaque);
        check(Tcp, Egress::AllowAny, "1.2.3.4:80", Read::Opaque);
    }

    #[test]
    fn what_first_bytes_say() {
        for (first, http10, expect) in [
            (&b"GET / HTTP/1.1\r\n"[..], false, Spoken::Http),
            (sniff::PREFACE, false, Spoken::Http),
            (b"GET / HTTP/1.0\r\n", false, Spoken::Bytes),
            (b"GET / HTTP/1.0\r\n", true, Spoken::Http),
            (b"\x16\x03\x01", false, Spoken::Bytes),
            (b"\0GET / HTTP/1.1\r\n", false, Spoken::Bytes),
            (b"GET", false, Spoken::Bytes),
            (b"", false, Spoken::Bytes),
        ] {
            assert_eq!(detected(first, http10), expect, "{first:?}");
        }
    }

    #[test]
    fn what_is_under_way_is_held_to_where_it_went() {
        let dialled = "10.96.0.20:80".parse().unwrap();
        let outside = "1.2.3.4:80".parse().unwrap();
        let open = index(Http, Egress::AllowAny);
        let closed = index(Http, Egress::RegistryOnly);
        let kept = Kept::new("full", outside, None);
        assert_eq!(
            kept.check(|| Err(Reason::EgressUnknown)),
            Ok(()),
            "not decided yet"
        );
        kept.decided(&open.outbound("full", outside, None).unwrap());
        assert_eq!(kept.check(|| open.outbound("full", outside, None)), Ok(()));
        assert_eq!(
            kept.check(|| closed.outbound("full", outside, None)),
            Err(Reason::EgressUnknown)
        );
        assert_eq!(
            kept.check(|| open.outbound("full", dialled, None)),
            Err(Reason::PolicyChanged)
        );
    }
}
