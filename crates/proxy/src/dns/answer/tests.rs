use std::sync::Arc;

use hickory_proto::op::Query;
use proptest::prelude::*;
use snapshot::{Resource, Resources};

use super::*;

fn index() -> Index {
    let service = |json: serde_json::Value| -> Arc<Resource> {
        let service: snapshot::Service = serde_json::from_value(json).unwrap();
        Arc::new(Resource::from(service))
    };
    let endpoint = |uid: &str, ip: &str, hostname: Option<&str>| {
        serde_json::json!({
            "uid": uid, "workload": null, "addresses": [ip, format!("fd77:1::{}", ip.rsplit('.').next().unwrap())],
            "ports": {"80": 8080}, "ready": true, "node": null, "identity": null, "plaintext_ports": [],
            "mtls_ports": [], "hostname": hostname,
        })
    };
    let port = serde_json::json!({"name": "http", "port": 80, "protocol": "http", "tls": null});
    let named = |name: &str, host: &str| {
        serde_json::json!({
            "name": format!("full/{name}"), "host": host, "vips": [], "headless": false, "external_name": null,
            "ports": [port], "endpoints": [], "identities": [],
        })
    };
    let mut web = named("web", "web.full.svc.cluster.local");
    web["vips"] = serde_json::json!(["10.96.0.20", "fd77:96::20"]);
    let mut set = named("set", "set.full.svc.cluster.local");
    set["headless"] = true.into();
    set["endpoints"] = serde_json::json!([
        endpoint("a", "10.77.0.2", Some("set-0")),
        endpoint("b", "10.77.1.3", Some("set-1")),
    ]);
    let mut many = named("many", "many.full.svc.cluster.local");
    many["headless"] = true.into();
    many["endpoints"] = (2..102)
        .map(|n| endpoint(&format!("m{n:03}"), &format!("10.77.2.{n}"), None))
        .collect();
    let mut alias = named("alias", "alias.full.svc.cluster.local");
    alias["external_name"] = "web.full.svc.cluster.local".into();
    let mut outside = named("outside", "outside.full.svc.cluster.local");
    outside["external_name"] = "example.com".into();
    let services = [web, set, many, alias, outside].map(service);
    let resources: Resources = services
        .into_iter()
        .chain(std::iter::once(Arc::new(Resource::from(
            crate::store::tests::mesh(),
        ))))
        .collect();
    Index::build(&resources).unwrap()
}

/// The settings of a mesh, and nothing in it.
fn bare() -> Index {
    let resources: Resources = [Resource::from(crate::store::tests::mesh())]
        .into_iter()
        .collect();
    Index::build(&resources).unwrap()
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 77;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

const ASKER: Asker<'static> = Asker {
    namespace: "full",
    stream: false,
    forwards: false,
};

/// The code and what the answers say.
fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let verdict = answer(&question(name, kind), ASKER, Some(&index()));
    let (Verdict::Reply(bytes) | Verdict::Refused(bytes, _)) = verdict else {
        panic!("{name}: {verdict:?}");
    };
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(reply.metadata.id, 77);
    let answers = reply.answers.iter().map(|r| r.data.to_string());
    (reply.metadata.response_code, answers.collect())
}

#[test]
fn names_of_the_cluster_in_every_form_and_both_families() {
    use RecordType::{A, AAAA};
    for name in [
        "web.",
        "web.full.",
        "web.full.svc.",
        "web.full.svc.cluster.local.",
        "WEB.Full.svc.cluster.local.",
    ] {
        assert_eq!(
            ask(name, A),
            (ResponseCode::NoError, vec!["10.96.0.20".to_owned()]),
            "{name}"
        );
        assert_eq!(
            ask(name, AAAA),
            (ResponseCode::NoError, vec!["fd77:96::20".to_owned()]),
            "{name}"
        );
    }
    let (code, found) = ask("set.full.svc.cluster.local.", A);
    assert_eq!((code, found.len()), (ResponseCode::NoError, 2));
    assert_eq!(ask("set-1.set.full.svc.cluster.local.", A).1, ["10.77.1.3"]);
    assert_eq!(
        ask("no.full.svc.cluster.local.", A),
        (ResponseCode::NXDomain, vec![])
    );
    assert_eq!(
        ask("web.full.svc.cluster.local.", RecordType::MX),
        (ResponseCode::NoError, vec![])
    );
    assert_eq!(ask("example.com.", A), (ResponseCode::Refused, vec![]));
}

#[test]
fn aliases_are_followed_as_far_as_the_cluster_goes() {
    let (code, found) = ask("alias.full.svc.cluster.local.", RecordType::A);
    assert_eq!(code, ResponseCode::NoError);
    assert_eq!(found, ["web.full.svc.cluster.local.", "10.96.0.20"]);
    let (_, found) = ask("outside.full.svc.cluster.local.", RecordType::A);
    assert_eq!(found, ["example.com."]);
}

#[test]
fn the_other_way_round_and_by_port() {
    let (_, found) = ask("20.0.96.10.in-addr.arpa.", RecordType::PTR);
    assert_eq!(found, ["web.full.svc.cluster.local."]);
    let (_, found) = ask("_http._tcp.web.full.svc.cluster.local.", RecordType::SRV);
    assert_eq!(found, ["0 100 80 web.full.svc.cluster.local."]);
    let (_, found) = ask("_http._tcp.set.full.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        found,
        [
            "0 100 8080 set-0.set.full.svc.cluster.local.",
            "0 100 8080 set-1.set.full.svc.cluster.local."
        ]
    );
    let (code, _) = ask("_no._tcp.web.full.svc.cluster.local.", RecordType::SRV);
    assert_eq!(code, ResponseCode::NXDomain);
}

#[test]
fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    let question = question("many.full.svc.cluster.local.", RecordType::A);
    let index = index();
    let Verdict::Reply(short) = answer(&question, ASKER, Some(&index)) else {
        panic!()
    };
    let reply = Message::from_vec(&short).unwrap();
    assert!(short.len() <= 512 && reply.metadata.truncation);
    let stream = Asker {
        stream: true,
        ..ASKER
    };
    let Verdict::Reply(whole) = answer(&question, stream, Some(&index)) else {
        panic!()
    };
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 100);
}

#[test]
fn before_the_first_snapshot_it_fails_and_other_names_go_elsewhere_where_there_is_one() {
    let ours = question("web.full.svc.cluster.local.", RecordType::A);
    let Verdict::Reply(bytes) = answer(&ours, ASKER, None) else {
        panic!()
    };
    assert_eq!(
        Message::from_vec(&bytes).unwrap().metadata.response_code,
        ResponseCode::ServFail
    );
    let other = question("example.com.", RecordType::A);
    let forwards = Asker {
        forwards: true,
        ..ASKER
    };
    assert_eq!(answer(&other, forwards, Some(&index())), Verdict::Forward);
    assert!(
        matches!(answer(&other, ASKER, Some(&index())), Verdict::Refused(_, name) if name == "example.com")
    );
}

#[test]
fn only_a_reply_to_the_very_question_counts() {
    let asked = question("example.com.", RecordType::A);
    let reply = failed(&asked).unwrap();
    assert!(replies(&asked, &reply));
    assert!(!replies(&question("example.org.", RecordType::A), &reply));
    assert!(!replies(&asked, &asked));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let index = bare();
        let _ = answer(&bytes, ASKER, Some(&index));
    }

    #[test]
    fn no_change_of_a_question_makes_it_panic(at in 0_usize..45, byte in any::<u8>()) {
        let mut bytes = question("web.full.svc.cluster.local.", RecordType::A);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let index = bare();
        let _ = answer(&bytes, ASKER, Some(&index));
    }
}
