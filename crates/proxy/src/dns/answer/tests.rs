use std::collections::BTreeMap;

use model::{ServiceName, WorkloadId, WorkloadUid};
use proptest::prelude::*;
use snapshot::{Resource, Resources, ServicePort, Workload};

use super::*;

const FULL: Asking<'static> = Asking {
    namespace: "full",
    meshed: true,
};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn endpoint(hostname: Option<&str>, address: &str, ready: bool) -> Endpoint {
    Endpoint {
        uid: WorkloadUid::new(address),
        workload: None,
        addresses: ips(&[address]),
        ports: BTreeMap::from([(80, 8080)]),
        ready,
        node: None,
        identity: None,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        hostname: hostname.map(str::to_owned),
    }
}

fn service(name: &str, vips: &[&str], endpoints: Vec<Endpoint>) -> Service {
    let (namespace, short) = name.split_once('/').unwrap();
    let port = |name: &str, port, protocol| ServicePort {
        name: name.to_owned(),
        port,
        protocol,
        tls: None,
        tls_by_namespace: BTreeMap::new(),
    };
    Service {
        name: ServiceName::new(namespace, short),
        host: format!("{short}.{namespace}.svc.cluster.local").parse().unwrap(),
        vips: ips(vips),
        headless: vips.is_empty(),
        external_name: None,
        external: None,
        ports: vec![
            port("http", 80, Protocol::Http),
            port("", 81, Protocol::Tcp),
            port("dns", 53, Protocol::Udp),
        ],
        endpoints,
        identities: vec![],
    }
}

fn alias(name: &str, target: &str) -> Service {
    Service {
        external_name: Some(target.parse().unwrap()),
        headless: false,
        ..service(name, &[], vec![])
    }
}

fn pod(name: &str, address: &str) -> Workload {
    let id = WorkloadId::new("full", name);
    Workload {
        uid: WorkloadUid::new(name),
        pod: id.clone(),
        workload: id,
        canonical_name: String::new(),
        canonical_revision: String::new(),
        app: String::new(),
        version: String::new(),
        addresses: ips(&[address]),
        node: String::new(),
        service_account: String::new(),
        identity: None,
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: None,
    }
}

fn index() -> Index {
    let many = (0..60)
        .map(|n| endpoint(None, &format!("10.77.9.{n}"), true))
        .collect();
    let resources: Resources = [
        Resource::from(crate::store::tests::mesh()),
        Resource::from(service("full/web", &["10.96.0.20", "fd77:96::14"], vec![])),
        Resource::from(service("full/v4", &["10.96.0.21"], vec![])),
        Resource::from(service("other/web", &["10.96.0.30"], vec![])),
        Resource::from(service(
            "full/db",
            &[],
            vec![
                endpoint(Some("db-0"), "10.77.0.2", true),
                endpoint(None, "10.77.0.3", true),
                endpoint(Some("db-2"), "10.77.0.4", false),
            ],
        )),
        Resource::from(service("full/many", &[], many)),
        Resource::from(alias("full/here", "web.full.svc.cluster.local")),
        Resource::from(alias("full/there", "www.example.com")),
        Resource::from(alias("full/loop", "loop.full.svc.cluster.local")),
        Resource::from(pod("db-1", "10.77.0.3")),
        Resource::from(pod("six", "fd77:1::2")),
    ]
    .into_iter()
    .collect();
    Index::build(&resources).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

fn over(message: &Message, transport: Transport) -> Message {
    match answer(&message.to_vec().unwrap(), FULL, Some(&index()), transport, false) {
        Outcome::Reply(bytes) | Outcome::Refused(bytes, _) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    over(&query(name, kind), Transport::Udp)
}

/// The code and the records' data as text, or `soa` where there is none but that.
fn check(name: &str, kind: RecordType, code: ResponseCode, expect: &[&str]) {
    let reply = ask(name, kind);
    assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
    let data: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, expect, "{name} {kind}");
    assert!(reply.answers.iter().all(|r| r.ttl == TTL), "{name} {kind}");
    let denied = expect.is_empty() && code != ResponseCode::Refused;
    let soa = reply
        .authorities
        .iter()
        .any(|r| r.record_type() == RecordType::SOA);
    assert_eq!(soa, denied, "{name} {kind}: {:?}", reply.authorities);
    assert_eq!(reply.metadata.id, 4711);
    assert_eq!(
        reply.metadata.authoritative,
        code != ResponseCode::Refused,
        "{name} {kind}"
    );
}

#[test]
fn names() {
    use RecordType::{A, AAAA, CNAME, MX, PTR, SRV};
    use ResponseCode::{NXDomain, NoError, Refused};
    for (name, kind, code, expect) in [
        ("web.full.svc.cluster.local.", A, NoError, &["10.96.0.20"][..]),
        ("web.full.svc.cluster.local.", AAAA, NoError, &["fd77:96::14"]),
        ("v4.full.svc.cluster.local.", AAAA, NoError, &[]),
        ("web.full.svc.cluster.local.", MX, NoError, &[]),
        ("web.other.svc.cluster.local.", A, NoError, &["10.96.0.30"]),
        ("web.", A, NoError, &["10.96.0.20"]),
        ("web.other.", A, NoError, &["10.96.0.30"]),
        ("nope.full.svc.cluster.local.", A, NXDomain, &[]),
        ("www.example.com.full.svc.cluster.local.", A, NXDomain, &[]),
        ("full.svc.cluster.local.", A, NoError, &[]),
        ("cluster.local.", A, NoError, &[]),
        ("nope.", A, NXDomain, &[]),
        ("www.example.com.", A, Refused, &[]),
        (".", A, NXDomain, &[]),
        // Headless: those that are ready.
        (
            "db.full.svc.cluster.local.",
            A,
            NoError,
            &["10.77.0.2", "10.77.0.3"],
        ),
        ("db-0.db.full.svc.cluster.local.", A, NoError, &["10.77.0.2"]),
        ("db-2.db.full.svc.cluster.local.", A, NXDomain, &[]),
        ("10-77-0-3.full.pod.cluster.local.", A, NoError, &["10.77.0.3"]),
        ("10-77-0-9.full.pod.cluster.local.", A, NXDomain, &[]),
        // ExternalName.
        (
            "here.full.svc.cluster.local.",
            A,
            NoError,
            &["web.full.svc.cluster.local.", "10.96.0.20"],
        ),
        ("there.full.svc.cluster.local.", A, NoError, &["www.example.com."]),
        (
            "there.full.svc.cluster.local.",
            CNAME,
            NoError,
            &["www.example.com."],
        ),
        // Backwards.
        (
            "20.0.96.10.in-addr.arpa.",
            PTR,
            NoError,
            &["web.full.svc.cluster.local."],
        ),
        (
            "3.0.77.10.in-addr.arpa.",
            PTR,
            NoError,
            &["10-77-0-3.full.pod.cluster.local."],
        ),
        ("20.0.96.10.in-addr.arpa.", A, NoError, &[]),
        ("9.9.9.9.in-addr.arpa.", PTR, Refused, &[]),
        ("96.10.in-addr.arpa.", PTR, Refused, &[]),
        // Ports.
        (
            "_http._tcp.web.full.svc.cluster.local.",
            SRV,
            NoError,
            &["0 100 80 web.full.svc.cluster.local."],
        ),
        (
            "_http._tcp.db.full.svc.cluster.local.",
            SRV,
            NoError,
            &[
                "0 100 8080 db-0.db.full.svc.cluster.local.",
                "0 100 8080 10-77-0-3.full.pod.cluster.local.",
            ],
        ),
        (
            "_dns._udp.web.full.svc.cluster.local.",
            SRV,
            NoError,
            &["0 100 53 web.full.svc.cluster.local."],
        ),
        ("_http._udp.web.full.svc.cluster.local.", SRV, NXDomain, &[]),
        ("_nope._tcp.web.full.svc.cluster.local.", SRV, NXDomain, &[]),
        ("_._tcp.web.full.svc.cluster.local.", SRV, NXDomain, &[]),
        ("_http._tcp.web.full.svc.cluster.local.", A, NoError, &[]),
        ("_http._tcp.nope.full.svc.cluster.local.", SRV, NXDomain, &[]),
        ("_dmarc.example.com.", RecordType::TXT, Refused, &[]),
    ] {
        check(name, kind, code, expect);
    }
}

#[test]
fn a_loop_of_aliases_ends() {
    let reply = ask("loop.full.svc.cluster.local.", RecordType::A);
    assert!(reply.answers.len() <= MAX_ALIASES);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn srv_brings_the_addresses_of_its_targets() {
    let reply = ask("_http._tcp.web.full.svc.cluster.local.", RecordType::SRV);
    let data: Vec<_> = reply.additionals.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["10.96.0.20", "fd77:96::14"]);
}

#[test]
fn pods_of_both_families_are_found_backwards_and_forwards() {
    let six: IpAddr = "fd77:1::2".parse().unwrap();
    let mut name = Name::from(six);
    name.set_fqdn(true);
    let reply = over(
        &{
            let mut message = Message::new(1, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(name, RecordType::PTR));
            message
        },
        Transport::Udp,
    );
    let target = reply.answers[0].data.to_string();
    assert_eq!(target, "fd77-1-0-0-0-0-0-2.full.pod.cluster.local.");
    let reply = ask(&target, RecordType::AAAA);
    assert_eq!(reply.answers[0].data.to_string(), "fd77:1::2");
}

#[test]
fn the_askers_spelling_comes_back() {
    let name = "WeB.fUll.SVC.cluster.LOCAL.";
    let query = query(name, RecordType::A);
    let reply = over(&query, Transport::Udp);
    assert!(reply.queries[0].name().eq_case(query.queries[0].name()));
    assert!(reply.answers[0].name.eq_case(query.queries[0].name()));
    assert_eq!(reply.answers[0].data.to_string(), "10.96.0.20");
}

#[test]
fn what_does_not_fit_is_truncated_over_udp_and_whole_over_tcp() {
    let mut message = query("many.full.svc.cluster.local.", RecordType::A);
    let length = |message: &Message| {
        let bytes = message.to_vec().unwrap();
        match answer(&bytes, FULL, Some(&index()), Transport::Udp, false) {
            Outcome::Reply(bytes) => bytes.len(),
            other => panic!("{other:?}"),
        }
    };
    let reply = over(&message, Transport::Udp);
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(reply.queries, message.queries);
    assert!(length(&message) <= 512);
    let reply = over(&message, Transport::Tcp);
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 60);
    // An asker that takes more gets more, and says so by EDNS.
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let reply = over(&message, Transport::Udp);
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 60);
    assert_eq!(reply.edns.unwrap().max_payload(), MAX_UDP);
    assert!(length(&message) > 512 && length(&message) <= usize::from(MAX_UDP));
}

#[test]
fn before_the_first_snapshot_there_is_no_answer() {
    let bytes = query("web.", RecordType::A).to_vec().unwrap();
    let Outcome::Reply(reply) = answer(&bytes, FULL, None, Transport::Udp, true) else {
        panic!("no reply");
    };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn other_names_are_asked_of_others_and_their_aliases_kept() {
    let forward = |name: &str| {
        let bytes = query(name, RecordType::A).to_vec().unwrap();
        match answer(&bytes, FULL, Some(&index()), Transport::Udp, true) {
            Outcome::Forward(forward) => forward,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        forward("www.example.com.").question.name().to_ascii(),
        "www.example.com."
    );
    let there = forward("there.full.svc.cluster.local.");
    assert_eq!(there.question.name().to_ascii(), "www.example.com.");
    let mut other = Message::response(9, OpCode::Query);
    other.add_answer(record(
        there.question.name(),
        RData::from(IpAddr::from([192, 0, 2, 1])),
    ));
    let reply = Message::from_vec(&there.with(other)).unwrap();
    let data: Vec<_> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["www.example.com.", "192.0.2.1"]);
    assert_eq!(reply.metadata.id, 4711);
    assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
    let failed = Message::from_vec(&forward("www.example.com.").failed()).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    // What can only be the cluster's, or a step of a search path, never leaves.
    for name in ["nope.full.svc.cluster.local.", "x\\.y.cluster.local.", "nope."] {
        let bytes = query(name, RecordType::A).to_vec().unwrap();
        let outcome = answer(&bytes, FULL, Some(&index()), Transport::Udp, true);
        assert!(matches!(outcome, Outcome::Reply(_)), "{name}: {outcome:?}");
    }
}

#[test]
fn what_is_malformed_or_not_a_question() {
    let code = |message: &Message| over(message, Transport::Udp).metadata.response_code;
    let good = query("web.", RecordType::A);
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let none = Message::new(1, MessageType::Query, OpCode::Query);
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut newer = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // 16 is both BADVERS and BADSIG: where it stands says which.
    assert_eq!(u16::from(code(&newer)), u16::from(ResponseCode::BADVERS));

    let bytes = good.to_vec().unwrap();
    let outcome = |bytes: &[u8]| answer(bytes, FULL, Some(&index()), Transport::Udp, false);
    let Outcome::Reply(reply) = outcome(&bytes[..bytes.len() - 1]) else {
        panic!("no reply");
    };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(reply.metadata.id, 4711);
    assert!(matches!(outcome(&bytes[..11]), Outcome::Ignored));
    // An answer is never answered: two servers would go on for ever.
    let mut response = good;
    response.metadata.message_type = MessageType::Response;
    assert!(matches!(outcome(&response.to_vec().unwrap()), Outcome::Ignored));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_bring_it_down_and_no_answer_is_too_long(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        keep_header in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if keep_header && bytes.len() >= 12 {
            // One question and nothing else, so that the fuzz reaches the names.
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        match answer(&bytes, FULL, Some(&index()), Transport::Udp, true) {
            Outcome::Reply(reply) | Outcome::Refused(reply, _) => {
                prop_assert!(reply.len() <= usize::from(MAX_UDP));
                prop_assert_eq!(&reply[..2], &bytes[..2]);
                prop_assert!(Message::from_vec(&reply).is_ok());
            }
            Outcome::Forward(forward) => {
                prop_assert!(forward.failed().len() <= usize::from(MAX_UDP));
            }
            Outcome::Ignored => {}
            Outcome::Unknown(..) => prop_assert!(false, "a whole mesh lacks nothing"),
        }
    }

    #[test]
    fn changed_bytes_of_a_question_bring_nothing_down(
        changes in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6),
        which in 0_usize..4,
    ) {
        let names = [
            "web.full.svc.cluster.local.", "_http._tcp.db.full.svc.cluster.local.",
            "3.0.77.10.in-addr.arpa.", "there.full.svc.cluster.local.",
        ];
        let kinds = [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::AAAA];
        let mut message = query(names[which], kinds[which]);
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let _ = answer(&bytes, FULL, Some(&index()), Transport::Udp, true);
    }
}
