//! Out of the mesh, from its workloads.

use super::{REGISTRY_ONLY, TCP_ONLY};
use crate::attempt::{As, Attempt, Means, ORDINARY, OUTSIDE, Target, full};

const OUT: Target = Target::Pod(OUTSIDE);
const OUT6: Target = Target::Pod6(OUTSIDE);
const GET: Means = Means::Http(8080, "GET /", &[]);

/// Why Istio lets its proxy's own user out.
const OWNER: &str = "traffic of the sidecar's own user and group is not captured";

/// What a pod that may change its own network does first. Programs that are not there are none of its means.
const FLUSH: &str = "nft flush ruleset; iptables -t nat -F; iptables -t mangle -F; iptables -F; \
    ip rule add pref 5 lookup main; ip -6 rule add pref 5 lookup main";

/// Another's server, registered by its address.
const LISTED: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: listed, namespace: full}
spec:
  hosts: [ext.example.com]
  addresses: [$outside]
  ports: [{number: 8080, name: http, protocol: HTTP}, {number: 9090, name: tls, protocol: TLS}]
  resolution: NONE
";

/// One that says nothing of where it is.
const UNLISTED: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: unlisted, namespace: full}
spec:
  hosts: [ext.example.com]
  ports: [{number: 8080, name: http, protocol: HTTP}]
  resolution: NONE
";

const UNLISTED_TLS: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: unlisted, namespace: full}
spec:
  hosts: [ext.example.com]
  ports: [{number: 9090, name: tls, protocol: TLS}]
  resolution: NONE
";

const UNLISTED_TCP: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: unlisted, namespace: full}
spec:
  hosts: [ext.example.com]
  ports: [{number: 9090, name: tcp, protocol: TCP}]
  resolution: NONE
";

/// A ClientHello that asks for `evil.example`, as the probe is told of it.
const HELLO_EVIL: &str = "\u{16}\u{3}\u{1}\\0\u{44}\u{1}\\0\\0\u{40}\u{3}\u{3}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\\0\\0\u{2}\u{13}\u{1}\u{1}\\0\\0\u{15}\\0\\0\\0\u{11}\\0\u{f}\\0\\0\u{c}evil.example";

/// The same for `ext.example.com`.
const HELLO_EXT: &str = "\u{16}\u{3}\u{1}\\0\u{47}\u{1}\\0\\0\u{43}\u{3}\u{3}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\\0\\0\u{2}\u{13}\u{1}\u{1}\\0\\0\u{18}\\0\\0\\0\u{14}\\0\u{12}\\0\\0\u{f}ext.example.com";

/// The ways out.
pub(super) const WAYS: &[Attempt] = &[
    Attempt::new(
        "egress-default",
        "P36",
        "as installed: a request to a server that is in no registry",
        full("attacker"),
        OUT,
        GET,
    )
    .lets("ALLOW_ANY is Istio's default"),
    Attempt::new(
        "registry-only-http",
        "P29",
        "REGISTRY_ONLY: the same request",
        full("attacker"),
        OUT,
        GET,
    )
    .under(&[REGISTRY_ONLY]),
    Attempt::new(
        "registry-only-tcp",
        "P29",
        "REGISTRY_ONLY: bytes over TCP",
        full("attacker"),
        OUT,
        Means::Tcp(9090, ""),
    )
    .under(&[REGISTRY_ONLY]),
    Attempt::new(
        "registry-only-host",
        "P29 R37 O-02",
        "REGISTRY_ONLY: a request to a server in no registry, with the Host of one that is",
        full("attacker"),
        OUT,
        Means::Http(8080, "GET /", &["Host: httpbin.full:8000"]),
    )
    .under(&[REGISTRY_ONLY]),
    Attempt::new(
        "fronted-host",
        "P29 R37 O-02",
        "REGISTRY_ONLY: a request to a server that is in the registry, with the Host of another that may stand behind it",
        full("attacker"),
        OUT,
        Means::Http(8080, "GET /", &["Host: evil.example"]),
    )
    .under(&[REGISTRY_ONLY, LISTED]),
    Attempt::new(
        "fronted-sni",
        "P29 R37 EG-17",
        "REGISTRY_ONLY: TLS to a server that is in the registry, with the SNI of another that may stand behind it",
        full("attacker"),
        OUT,
        Means::Tcp(9090, HELLO_EVIL),
    )
    .under(&[REGISTRY_ONLY, LISTED])
    .lets("where an entry lists a single address Istio does not compare the SNI"),
    Attempt::new(
        "claimed-host",
        "P29 R37 EG-17",
        "REGISTRY_ONLY: a request to a server in no registry, with the Host of an entry that lists no address",
        full("attacker"),
        OUT,
        Means::Http(8080, "GET /", &["Host: ext.example.com"]),
    )
    .under(&[REGISTRY_ONLY, UNLISTED])
    .lets("with resolution NONE Istio carries to whatever address the client dialled what claims the Host"),
    Attempt::new(
        "claimed-sni",
        "P29 R37 EG-17",
        "REGISTRY_ONLY: the same with the SNI of TLS",
        full("attacker"),
        OUT,
        Means::Tcp(9090, HELLO_EXT),
    )
    .under(&[REGISTRY_ONLY, UNLISTED_TLS])
    .lets("with resolution NONE Istio carries to whatever address the client dialled what claims the SNI"),
    Attempt::new(
        "claimed-nothing",
        "P29 R37 EG-07",
        "REGISTRY_ONLY: bytes to a server in no registry, at a port of an entry that lists no address",
        full("attacker"),
        OUT,
        Means::Tcp(9090, ""),
    )
    .under(&[REGISTRY_ONLY, UNLISTED_TCP])
    .lets("a TCP entry without addresses takes its port to every address"),
    Attempt::new(
        "registry-only-udp",
        "P30 P29",
        "REGISTRY_ONLY: a datagram",
        full("attacker"),
        OUT,
        Means::Udp(5300),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "registry-only-dns",
        "P30 CAP-13",
        "REGISTRY_ONLY: a datagram to port 53 of a server of one's own choice (dig @8.8.8.8)",
        full("attacker"),
        OUT,
        Means::Udp(53),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "registry-only-icmp",
        "P30 P29",
        "REGISTRY_ONLY: an echo request (ping -c1 8.8.8.8)",
        full("attacker"),
        OUT,
        Means::Raw(1),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "registry-only-sctp",
        "P30 P16",
        "REGISTRY_ONLY: a packet of SCTP's number",
        full("attacker"),
        OUT,
        Means::Raw(132),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "user-1337",
        "P25 P31 CAP-05",
        "REGISTRY_ONLY: a process becomes user 1337, as whom Istio's proxy runs (adduser, su)",
        full("attacker"),
        OUT,
        GET,
    )
    .who(As {
        uid: Some(1337),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips(OWNER),
    Attempt::new(
        "group-1337",
        "P25 CAP-05",
        "REGISTRY_ONLY: a process becomes a member of group 1337",
        full("attacker"),
        OUT,
        GET,
    )
    .who(As {
        gid: Some(1337),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips(OWNER),
    Attempt::new(
        "user-1337-udp",
        "P25 P30",
        "REGISTRY_ONLY: a datagram as user 1337",
        full("attacker"),
        OUT,
        Means::Udp(5300),
    )
    .who(As {
        uid: Some(1337),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "run-as-user-1337",
        "P26",
        "REGISTRY_ONLY: the pod's own spec says runAsUser: 1337",
        full("user-1337"),
        OUT,
        GET,
    )
    .under(&[REGISTRY_ONLY])
    .slips(OWNER),
    Attempt::new(
        "net-admin-flush",
        "P24 CAP-06",
        "REGISTRY_ONLY: a pod with NET_ADMIN flushes all rules in its network namespace first",
        full("net-admin"),
        OUT,
        GET,
    )
    .who(As {
        after: Some(FLUSH),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips("the rules are the pod's own to flush"),
    Attempt::new(
        "net-admin-udp",
        "P24 P30",
        "REGISTRY_ONLY: the same with a datagram",
        full("net-admin"),
        OUT,
        Means::Udp(5300),
    )
    .who(As {
        after: Some(FLUSH),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "proxy-mark",
        "CAP-07 R12",
        "REGISTRY_ONLY: a socket with the mark of ztunnel's (0x539; NET_RAW is enough)",
        full("attacker"),
        OUT,
        GET,
    )
    .who(As {
        mark: Some(0x539),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY])
    .slips("ztunnel's mark is how its own traffic is told"),
    Attempt::new(
        "own-mark",
        "CAP-07",
        "REGISTRY_ONLY: a socket with the mark of our own proxy's (0x80)",
        full("attacker"),
        OUT,
        GET,
    )
    .who(As {
        mark: Some(0x80),
        ..ORDINARY
    })
    .under(&[REGISTRY_ONLY]),
    Attempt::new(
        "excluded-port-out",
        "P31 P22 CAP-10",
        "REGISTRY_ONLY: the pod's annotations exclude the port and every address from capture",
        full("excluded"),
        OUT,
        GET,
    )
    .under(&[REGISTRY_ONLY])
    .slips("the pod's author takes ports and ranges out of capture"),
    Attempt::new(
        "interception-none-out",
        "P23 CAP-17",
        "REGISTRY_ONLY: the pod's annotation asks for no interception",
        full("uncaptured"),
        OUT,
        GET,
    )
    .under(&[REGISTRY_ONLY])
    .slips("the pod's author turns capture off"),
    Attempt::new(
        "ipv6-out",
        "P27 CAP-02",
        "REGISTRY_ONLY: the same request over IPv6",
        full("attacker"),
        OUT6,
        GET,
    )
    .under(&[REGISTRY_ONLY]),
    Attempt::new(
        "ipv6-udp-out",
        "P27 P30",
        "REGISTRY_ONLY: a datagram over IPv6",
        full("attacker"),
        OUT6,
        Means::Udp(5300),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
    Attempt::new(
        "ipv6-icmp-out",
        "P27 P30",
        "REGISTRY_ONLY: an ICMPv6 echo request",
        full("attacker"),
        OUT6,
        Means::Raw(58),
    )
    .under(&[REGISTRY_ONLY])
    .slips(TCP_ONLY),
];
