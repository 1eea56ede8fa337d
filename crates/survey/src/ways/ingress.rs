//! Into workloads of the mesh.

use super::{STRICT, TCP_ONLY};
use crate::attempt::{Attempt, Means, Sign, Target, full, legacy};

const HTTPBIN: Target = Target::Service(full("httpbin"));
const HTTPBIN_POD: Target = Target::Pod(full("httpbin"));
const HTTPBIN_POD6: Target = Target::Pod6(full("httpbin"));
const GET: Means = Means::Http(8000, "GET /anything/", &[]);
const GET_POD: Means = Means::Http(8080, "GET /anything/", &[]);

/// Whoever proves some identity may come in; nobody else.
const ALLOW_MTLS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-mtls, namespace: istio-system}
spec:
  action: ALLOW
  rules: [{from: [{source: {principals: ['*']}}]}]
";

/// A tenant's own, which forgets to ask who calls.
const ALLOW_GET: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allowget, namespace: full}
spec:
  selector: {matchLabels: {app: httpbin}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

const ADDITIVE: &[&str] = &[ALLOW_MTLS, ALLOW_GET];

/// What an owner of the mesh writes so that tenants' objects cannot weaken it.
const GUARDRAIL: &str = "
apiVersion: meshward.dev/v1alpha1
kind: Guardrail
metadata: {name: tenants, namespace: istio-system}
spec:
  ceiling: [{from: [{source: {principals: ['cluster.local/ns/full/sa/sleep']}}]}]
";

/// A DENY of the root namespace holds, whatever tenants allow.
const DENY_ANONYMOUS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-anonymous, namespace: istio-system}
spec:
  action: DENY
  rules: [{from: [{source: {notPrincipals: ['*']}}]}]
";

/// A tenant's own mode, for one workload.
const NARROWER: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: overwrite-example, namespace: full}
spec:
  selector: {matchLabels: {app: httpbin}}
  mtls: {mode: DISABLE}
";

/// Paths below `/secret` are nobody's.
const SECRET: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: full}
spec:
  selector: {matchLabels: {app: httpbin}}
  action: DENY
  rules: [{to: [{operation: {paths: ['/anything/secret*']}}]}]
";

const NARROW: &[&str] = &[STRICT, NARROWER];
const NARROW_OPEN: &[&str] = &[STRICT, NARROWER, ALLOW_GET];
const STRICT_AND_ALLOW: &[&str] = &[STRICT, ALLOW_MTLS];
const GREETS: &str = include_str!("../../../../samples/survey/policies.yaml");

/// The ways in.
pub(super) const WAYS: &[Attempt] = &[
    Attempt::new(
        "auto-mtls",
        "P57 ID-01",
        "a client of the mesh calls: is its identity proven to the server (XFCC)?",
        full("sleep"),
        HTTPBIN,
        GET,
    )
    .sign(Sign::Anonymous),
    Attempt::new(
        "forged-xfcc",
        "R9 O-15",
        "a client of the mesh says in X-Forwarded-Client-Cert that it is somebody else",
        full("sleep"),
        HTTPBIN,
        Means::Http(
            8000,
            "GET /anything/",
            &["X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/full/sa/httpbin;URI=spiffe://cluster.local/ns/full/sa/admin"],
        ),
    )
    .sign(Sign::Told("sa/admin")),
    Attempt::new(
        "no-certificate",
        "P1 P14",
        "a client without identity calls a server of the mesh",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .lets("PERMISSIVE is Istio's default"),
    Attempt::new(
        "no-grant",
        "P2 P3",
        "a client with an identity that no policy names calls a server of the mesh",
        full("attacker"),
        HTTPBIN,
        GET,
    )
    .lets("without an ALLOW policy everything is allowed"),
    Attempt::new(
        "strict-legacy",
        "P1",
        "mesh-wide STRICT: a client without identity calls by the Service's name",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .under(&[STRICT]),
    Attempt::new(
        "undeclared-port",
        "P17",
        "mesh-wide STRICT: httpbin is started on port 1337, which nothing declares, and dialled by the pod's address",
        legacy("sleep"),
        HTTPBIN_POD,
        Means::Http(1337, "GET /anything/", &[]),
    )
    .serve("httpbin -b 0.0.0.0:1337 httpbin:app -k gevent")
    .under(&[STRICT]),
    Attempt::new(
        "undeclared-port-mesh",
        "P17 P2",
        "the same by a client with an identity that no policy names",
        full("attacker"),
        HTTPBIN_POD,
        Means::Http(1337, "GET /anything/", &[]),
    )
    .serve("httpbin -b 0.0.0.0:1337 httpbin:app -k gevent")
    .under(&[STRICT])
    .lets("without an ALLOW policy everything is allowed"),
    Attempt::new(
        "pod-address",
        "P12 O-01",
        "STRICT is no matter of names: the declared port is dialled by the pod's address",
        legacy("sleep"),
        HTTPBIN_POD,
        GET_POD,
    )
    .under(&[STRICT]),
    Attempt::new(
        "ssh-port",
        "P22 CAP-03",
        "mesh-wide STRICT: a server on port 22, which Istio once left uncaptured",
        legacy("sleep"),
        HTTPBIN_POD,
        Means::Http(22, "GET /anything/", &[]),
    )
    .serve("httpbin -b 0.0.0.0:22")
    .under(&[STRICT]),
    Attempt::new(
        "additive-allow",
        "P18 AZ-024",
        "the mesh asks for an identity, a tenant's ALLOW for httpbin forgets to: a client without one calls",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .under(ADDITIVE)
    .lets("ALLOW policies add up: what one of them allows is allowed"),
    Attempt::new(
        "additive-allow-mesh",
        "P18 AZ-025",
        "the same by a client of the mesh that only the tenant's ALLOW admits; a Guardrail's ceiling names sleep alone",
        full("attacker"),
        HTTPBIN,
        GET,
    )
    .under(ADDITIVE)
    .secure(&[GUARDRAIL])
    .lets("ALLOW policies add up, and nothing bounds them"),
    Attempt::new(
        "deny-holds",
        "P18",
        "a DENY of the root namespace for callers without identity, and the tenant's ALLOW",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .under(&[ALLOW_MTLS, ALLOW_GET, DENY_ANONYMOUS]),
    Attempt::new(
        "narrower-mode",
        "P19",
        "mesh-wide STRICT, and a tenant's PeerAuthentication DISABLE for httpbin",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .under(NARROW)
    .lets("the narrower PeerAuthentication wins"),
    Attempt::new(
        "narrower-mode-and-allow",
        "P19 P18",
        "the same with the tenant's ALLOW for everybody: only the floor is left",
        legacy("sleep"),
        HTTPBIN,
        GET,
    )
    .under(NARROW_OPEN)
    .lets("the narrower PeerAuthentication wins"),
    Attempt::new(
        "udp-in",
        "P16",
        "STRICT and an ALLOW for identities: a datagram to a server of the pod (netcat -lu 1111)",
        legacy("sleep"),
        HTTPBIN_POD,
        Means::Udp(1111),
    )
    .serve("echo --udp=1111")
    .under(STRICT_AND_ALLOW)
    .slips(TCP_ONLY),
    Attempt::new(
        "icmp-in",
        "P16",
        "STRICT and an ALLOW for identities: an echo request to a pod",
        legacy("sleep"),
        HTTPBIN_POD,
        Means::Raw(1),
    )
    .under(STRICT_AND_ALLOW)
    .slips(TCP_ONLY),
    Attempt::new(
        "sctp-in",
        "P16",
        "STRICT and an ALLOW for identities: a packet of SCTP's number to a pod",
        legacy("sleep"),
        HTTPBIN_POD,
        Means::Raw(132),
    )
    .under(STRICT_AND_ALLOW)
    .slips(TCP_ONLY),
    Attempt::new(
        "ipv6-in",
        "P27 CAP-02",
        "mesh-wide STRICT: the declared port by the pod's IPv6 address",
        legacy("sleep"),
        HTTPBIN_POD6,
        GET_POD,
    )
    .under(&[STRICT]),
    Attempt::new(
        "ipv6-undeclared-in",
        "P27 P17",
        "mesh-wide STRICT: an undeclared port by the pod's IPv6 address",
        legacy("sleep"),
        HTTPBIN_POD6,
        Means::Http(1337, "GET /anything/", &[]),
    )
    .serve("httpbin -b 0.0.0.0:1337")
    .under(&[STRICT]),
    Attempt::new(
        "ipv6-udp-in",
        "P27 P16",
        "a datagram by the pod's IPv6 address",
        legacy("sleep"),
        HTTPBIN_POD6,
        Means::Udp(1111),
    )
    .under(&[STRICT])
    .slips(TCP_ONLY),
    Attempt::new(
        "ipv6-icmp-in",
        "P27 P16",
        "an ICMPv6 echo request to a pod",
        legacy("sleep"),
        HTTPBIN_POD6,
        Means::Raw(58),
    )
    .under(&[STRICT])
    .slips(TCP_ONLY),
    Attempt::new(
        "excluded-port-in",
        "P22 CAP-10",
        "mesh-wide STRICT: the pod's annotations exclude its port from capture",
        legacy("sleep"),
        Target::Pod(full("excluded")),
        GET_POD,
    )
    .under(&[STRICT])
    .slips("the pod's author takes its ports out of capture"),
    Attempt::new(
        "interception-none-in",
        "P23 CAP-17",
        "mesh-wide STRICT: the pod's annotation asks for no interception",
        legacy("sleep"),
        Target::Pod(full("uncaptured")),
        GET_POD,
    )
    .under(&[STRICT])
    .slips("the pod's author turns capture off"),
    Attempt::new(
        "server-first",
        "P15 O-04",
        "a server that speaks first, a client that no policy names: is the application reached before the decision?",
        full("attacker"),
        Target::Service(full("banner")),
        Means::Listen(9000),
    )
    .istio(&[GREETS])
    .sign(Sign::Opened(9000))
    .slips("the sidecar connects to the application before it decides"),
    Attempt::new(
        "server-first-plaintext",
        "P15 O-04",
        "the same by a client without identity",
        legacy("sleep"),
        Target::Service(full("banner")),
        Means::Listen(9000),
    )
    .istio(&[GREETS])
    .sign(Sign::Opened(9000))
    .slips("the sidecar connects to the application before it decides"),
    Attempt::new(
        "merged-slashes",
        "P4 P5 N-",
        "DENY /anything/secret*: a client that may read asks for /anything//secret",
        full("sleep"),
        HTTPBIN,
        Means::Http(8000, "GET /anything//secret", &[]),
    )
    .under(&[SECRET])
    .lets("Istio's default normalisation (BASE) does not merge slashes"),
    Attempt::new(
        "encoded-path",
        "P4 P5 N-",
        "the same with /anything/x/../%73ecret",
        full("sleep"),
        HTTPBIN,
        Means::Http(8000, "GET /anything/x/../%73ecret", &[]),
    )
    .under(&[SECRET]),
    Attempt::new(
        "not-http",
        "P46 PD-14",
        "DENY /anything/secret*: a client that may read hides its request behind a byte that is no HTTP",
        full("sleep"),
        HTTPBIN,
        Means::Tcp(8000, "\\0GET /anything/secret HTTP/1.1\\r\\nX: "),
    )
    .under(&[SECRET]),
    Attempt::new(
        "host-network",
        "CAP-16 R13",
        "a pod on the node's own network calls a server of the mesh",
        legacy("on-node"),
        HTTPBIN_POD,
        GET_POD,
    )
    .under(&[STRICT]),
    Attempt::new(
        "proxy-mark-in",
        "CAP-07 R12",
        "a pod outside the mesh dials with the marks of ztunnel's sockets (0x539)",
        legacy("sleep"),
        HTTPBIN_POD,
        GET_POD,
    )
    .who(crate::attempt::As {
        mark: Some(0x539),
        ..crate::attempt::ORDINARY
    })
    .under(&[STRICT]),
];
