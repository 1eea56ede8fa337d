use std::time::SystemTime;

use prometheus_client::registry::Registry;

use model::Reason;

use super::labels::{BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH, security};
use super::*;
use crate::{Decision, HttpEvent, Peer, Reporter, Wire};

fn peer(workload: &str, pod: &str) -> Arc<Peer> {
    Arc::new(Peer {
        address: Some("10.0.0.1:1234".parse().unwrap()),
        namespace: "full".into(),
        pod: pod.into(),
        workload: workload.into(),
        ..Peer::default()
    })
}

fn event(kind: EventKind, reporter: Reporter) -> Event {
    let mut event = Event::new(
        kind,
        reporter,
        SystemTime::UNIX_EPOCH,
        peer("sleep", "sleep-1"),
        peer("httpbin", "httpbin-1"),
    );
    event.service = Some("httpbin.full.svc.cluster.local".into());
    event.wire = Wire::MutualTls;
    event.decision = Decision::Allow;
    if kind == EventKind::Request {
        event.protocol = "http";
        event.http = Some(Box::new(HttpEvent {
            code: 200,
            ..HttpEvent::default()
        }));
    }
    event
}

fn text(traffic: &Traffic) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(traffic.clone()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// The samples of one name, without those of others that begin with it.
fn samples(traffic: &Traffic, name: &str) -> Vec<String> {
    let text = text(traffic);
    let begin = format!("{name}{{");
    let lines = text.lines().filter(|line| line.starts_with(&begin));
    lines.map(str::to_owned).collect()
}

fn only(traffic: &Traffic, name: &str) -> String {
    let found = samples(traffic, name);
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found.into_iter().next().unwrap()
}

#[test]
fn what_no_label_says_makes_no_series_of_its_own() {
    let traffic = Traffic::default();
    let mut one = event(EventKind::Request, Reporter::Destination);
    traffic.record(&one, None);
    one.destination = peer("httpbin", "httpbin-2");
    one.wire = Wire::Local;
    traffic.record(&one, None);
    assert!(only(&traffic, "istio_requests_total").ends_with(" 2"));
}

#[test]
fn connections_that_are_not_http_are_tcp_to_istio() {
    let traffic = Traffic::default();
    for protocol in ["tcp", "tls"] {
        let mut one = event(EventKind::Connection, Reporter::Source);
        one.protocol = protocol;
        one.bytes_sent = 5;
        traffic.record(&one, None);
    }
    let line = only(&traffic, "istio_tcp_sent_bytes_total");
    assert!(line.contains("request_protocol=\"tcp\""), "{line}");
    assert!(line.ends_with(" 10"), "{line}");
    assert!(!line.contains("response_code"), "{line}");
    assert!(samples(&traffic, "istio_requests_total").is_empty());
}

#[test]
fn bytes_of_an_open_connection_are_counted_as_they_go_by() {
    let traffic = Traffic::default();
    let mut one = event(EventKind::Connection, Reporter::Source);
    let progress = Arc::new(Progress::default());
    let flow = traffic.opened(&one, &progress).unwrap();
    progress.received.store(7, Ordering::Relaxed);
    let end = |name: &str| only(&traffic, name).rsplit(' ').next().unwrap().to_owned();
    assert_eq!(end("istio_tcp_connections_opened_total"), "1");
    assert_eq!(end("istio_tcp_connections_closed_total"), "0");
    assert_eq!(end("istio_tcp_received_bytes_total"), "7");
    assert_eq!(end("istio_tcp_received_bytes_total"), "7");
    progress.received.store(10, Ordering::Relaxed);
    progress.sent.store(3, Ordering::Relaxed);
    one.bytes_received = 10;
    traffic.closed(&one, flow);
    assert_eq!(end("istio_tcp_connections_opened_total"), "1");
    // How it ended is another label where it ended badly; here it is the same series.
    one.flags = "-";
    assert_eq!(end("istio_tcp_connections_closed_total"), "1");
    assert_eq!(end("istio_tcp_received_bytes_total"), "10");
    assert_eq!(end("istio_tcp_sent_bytes_total"), "3");
    assert!(locked(&traffic.0.live).is_empty());
}

#[test]
fn messages_are_counted_of_grpc_alone() {
    let traffic = Traffic::default();
    let mut one = event(EventKind::Request, Reporter::Destination);
    traffic.record(&one, None);
    one.protocol = "grpc";
    if let Some(http) = one.http.as_deref_mut() {
        (http.request_messages, http.response_messages, http.grpc_status) = (1, 3, Some(0));
    }
    traffic.record(&one, None);
    assert!(only(&traffic, "istio_request_messages_total").ends_with(" 1"));
    let line = only(&traffic, "istio_response_messages_total");
    assert!(line.ends_with(" 3"), "{line}");
    assert!(line.contains("grpc_response_status=\"0\""), "{line}");
}

#[test]
fn the_security_policy_is_what_was_and_the_source_does_not_know_of_plaintext() {
    for (reporter, wire, expect) in [
        (Reporter::Destination, Wire::MutualTls, "mutual_tls"),
        (Reporter::Destination, Wire::Local, "mutual_tls"),
        (Reporter::Destination, Wire::Plaintext, "none"),
        (Reporter::Destination, Wire::Foreign, "none"),
        (Reporter::Source, Wire::MutualTls, "mutual_tls"),
        (Reporter::Source, Wire::Plaintext, "unknown"),
    ] {
        assert_eq!(security(reporter, wire), expect, "{reporter:?} {wire:?}");
    }
}

#[test]
fn destinations_without_a_service_have_istios_names() {
    let check = |reporter, known: bool, reason, expect: &str| {
        let traffic = Traffic::default();
        let mut one = event(EventKind::Request, reporter);
        one.service = None;
        one.reason = reason;
        if !known {
            one.destination = Arc::default();
        }
        traffic.record(&one, None);
        let line = only(&traffic, "istio_requests_total");
        let name = format!("destination_service_name=\"{expect}\"");
        assert!(line.contains(&name), "{name} not in {line}");
        assert!(line.contains("destination_service=\"unknown\""), "{line}");
    };
    check(Reporter::Source, false, None, PASSTHROUGH);
    check(Reporter::Source, false, Some(Reason::EgressUnknown), BLACK_HOLE);
    check(Reporter::Source, true, None, "unknown");
    check(Reporter::Destination, true, None, INBOUND_PASSTHROUGH);
}

#[test]
fn events_of_a_connection_are_counted_as_all_others_are() {
    let (traffic, plain) = (Traffic::default(), Traffic::default());
    let known = Known::default();
    let mut one = event(EventKind::Request, Reporter::Destination);
    let edits: [fn(&mut Event); 9] = [
        |_| (),
        |one| one.http.as_deref_mut().unwrap().code = 404,
        |one| one.http.as_deref_mut().unwrap().grpc_status = Some(5),
        |one| one.flags = "DC",
        |one| one.wire = Wire::Plaintext,
        |one| one.protocol = "grpc",
        |one| one.destination = peer("other", "other-1"),
        |one| one.service = Some("other.full.svc.cluster.local".into()),
        |one| one.service = None,
    ];
    for edit in edits {
        edit(&mut one);
        for _ in 0..3 {
            traffic.record(&one, Some(&known));
            plain.record(&one, None);
        }
        assert!(locked(&known.0).len() <= KNOWN);
    }
    let sorted = |traffic: &Traffic| {
        let mut lines = samples(traffic, "istio_requests_total");
        lines.sort();
        lines
    };
    assert_eq!(sorted(&traffic), sorted(&plain));
    assert_eq!(sorted(&plain).len(), edits.len());
    // Other ends that say the same are counted in the same series.
    one.source = peer("sleep", "sleep-2");
    traffic.record(&one, Some(&known));
    assert_eq!(sorted(&traffic).len(), edits.len());
}

#[test]
fn series_are_bounded() {
    let traffic = Traffic::default();
    let mut one = event(EventKind::Connection, Reporter::Source);
    for n in 0..SERIES + 5 {
        one.service = Some(Arc::from(n.to_string()));
        traffic.record(&one, None);
    }
    assert_eq!(traffic.dropped().get(), 5);
    let none = traffic.opened(&one, &Arc::default());
    assert!(none.is_none());
}
