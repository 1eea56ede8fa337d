//! The labels of a series, by Istio's names and values.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use model::Reason;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use crate::event::{Event, EventKind, Peer, Reporter, Wire};

/// Where Istio sends what leaves the registry, and what it refuses to: `destination_service_name` then.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// The labels of a series. Two events of the same labels have the same series: what no label says (a pod, an address)
/// has no part in it.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    source: Arc<Peer>,
    destination: Arc<Peer>,
    service: Option<Arc<str>>,
    rest: Rest,
}

/// The labels that say nothing of the two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    reporter: Reporter,
    /// `destination_service_name` where there is no Service.
    unnamed: &'static str,
    pub(super) protocol: &'static str,
    /// Of a request; `None` for connections.
    pub(super) code: Option<u16>,
    grpc: Option<u32>,
    flags: &'static str,
    security: &'static str,
}

impl Rest {
    pub(super) fn of(event: &Event) -> Self {
        let protocol = match event.protocol {
            // Istio has no other words for what is not HTTP.
            "http" | "grpc" => event.protocol,
            _ => "tcp",
        };
        let unnamed = match (event.reporter, event.reason) {
            _ if event.service.is_some() => "",
            (Reporter::Destination, _) => INBOUND_PASSTHROUGH,
            (Reporter::Source, Some(Reason::EgressUnknown)) => BLACK_HOLE,
            (Reporter::Source, _) if event.destination.workload.is_empty() => PASSTHROUGH,
            (Reporter::Source, _) => "unknown",
        };
        let is_request = event.kind == EventKind::Request;
        let http = event.http.as_ref().filter(|_| is_request);
        Self {
            reporter: event.reporter,
            unnamed,
            protocol,
            code: is_request.then(|| http.map_or(0, |http| http.code)),
            grpc: http.and_then(|http| http.grpc_status),
            flags: event.flags,
            security: security(event.reporter, event.wire),
        }
    }

    /// Of a connection of which nobody knows yet how it will end.
    pub(super) fn open(self) -> Self {
        Self { flags: "-", ..self }
    }

    fn texts(&self) -> [&'static str; 4] {
        [self.unnamed, self.protocol, self.flags, self.security]
    }

    /// Whether the two are the same by where their texts are: two that are may be taken for others, and never the reverse.
    fn is(&self, other: &Self) -> bool {
        let place = |text: &str| (text.as_ptr(), text.len());
        self.reporter == other.reporter
            && (self.code, self.grpc) == (other.code, other.grpc)
            && self.texts().map(place) == other.texts().map(place)
    }
}

impl Labels {
    pub(super) fn of(event: &Event, rest: Rest) -> Self {
        Self {
            source: Arc::clone(&event.source),
            destination: Arc::clone(&event.destination),
            service: event.service.clone(),
            rest,
        }
    }

    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Whether they are those of an event, without reading what both have in common: its ends must be the very same objects.
    pub(super) fn are_of(&self, event: &Event, rest: &Rest) -> bool {
        Arc::ptr_eq(&self.source, &event.source)
            && Arc::ptr_eq(&self.destination, &event.destination)
            && same(self.service.as_ref(), event.service.as_ref())
            && self.rest.is(rest)
    }

    fn ends(&self) -> [(&'static str, &Peer); 2] {
        [("source", &self.source), ("destination", &self.destination)]
    }

    /// What decides whether two are the same.
    fn key(&self) -> impl Eq + Hash + '_ {
        fn end(peer: &Peer) -> (&str, &str, Option<&model::SpiffeId>, &str, &str, (&str, &str)) {
            (
                &peer.namespace,
                &peer.workload,
                peer.principal.as_ref(),
                &peer.app,
                &peer.version,
                (&peer.canonical_name, &peer.canonical_revision),
            )
        }
        let rest = &self.rest;
        (
            end(&self.source),
            end(&self.destination),
            self.service.as_deref(),
            (rest.reporter, rest.code, rest.grpc),
            rest.texts(),
        )
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

fn same(one: Option<&Arc<str>>, other: Option<&Arc<str>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// `mutual_tls` where it was; else `none` at the destination, and `unknown` at the source. An Istio sidecar says
/// `unknown` at the source always; ztunnel, which as we do holds both ends' identities, says what was.
pub(super) fn security(reporter: Reporter, wire: Wire) -> &'static str {
    match (wire, reporter) {
        (Wire::MutualTls | Wire::Hbone | Wire::Local, _) => "mutual_tls",
        (Wire::Plaintext | Wire::Foreign, Reporter::Destination) => "none",
        (Wire::Plaintext | Wire::Foreign, Reporter::Source) => "unknown",
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        fn known(text: &str) -> &str {
            if text.is_empty() { "unknown" } else { text }
        }
        let mut put = |key: &str, value: &str| (key, value).encode(encoder.encode_label());
        put("reporter", self.rest.reporter.as_str())?;
        for (prefix, peer) in self.ends() {
            let principal = peer
                .principal
                .as_ref()
                .map_or(Cow::Borrowed("unknown"), |id| Cow::Owned(id.to_string()));
            put(&format!("{prefix}_workload"), known(&peer.workload))?;
            put(&format!("{prefix}_workload_namespace"), known(&peer.namespace))?;
            put(&format!("{prefix}_principal"), &principal)?;
            put(&format!("{prefix}_app"), known(&peer.app))?;
            put(&format!("{prefix}_version"), known(&peer.version))?;
            put(
                &format!("{prefix}_canonical_service"),
                known(&peer.canonical_name),
            )?;
            put(
                &format!("{prefix}_canonical_revision"),
                known(&peer.canonical_revision),
            )?;
            let cluster = if peer.workload.is_empty() {
                "unknown"
            } else {
                "Kubernetes"
            };
            put(&format!("{prefix}_cluster"), cluster)?;
        }
        let (host, name, namespace) = self.service();
        put("destination_service", host)?;
        put("destination_service_name", name)?;
        put("destination_service_namespace", namespace)?;
        put("request_protocol", self.rest.protocol)?;
        if let Some(code) = self.rest.code {
            put("response_code", &code.to_string())?;
            let grpc = self.rest.grpc.map(|g| g.to_string()).unwrap_or_default();
            put("grpc_response_status", &grpc)?;
        }
        put("response_flags", self.rest.flags)?;
        put("connection_security_policy", self.rest.security)
    }
}

impl Labels {
    /// Host, name and namespace: of `httpbin.full.svc.cluster.local` the last two are `httpbin` and `full`; of anything
    /// else the host itself and the workload's namespace.
    fn service(&self) -> (&str, &str, &str) {
        let namespace = match &*self.destination.namespace {
            "" => "unknown",
            namespace => namespace,
        };
        let Some(host) = self.service.as_deref() else {
            return ("unknown", self.rest.unnamed, namespace);
        };
        let mut labels = host.split('.');
        match (labels.next(), labels.next(), labels.next()) {
            (Some(name), Some(namespace), Some("svc")) => (host, name, namespace),
            _ => (host, host, namespace),
        }
    }
}
