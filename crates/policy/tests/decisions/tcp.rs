//! Fields that only a request has, on a connection that is none (semantics 2.11).

use policy::Compat;
use serde_json::{Value, json};

use super::{admitted, operation, peer, policy, source};
use testkit::decisions::Request;

fn connection(who: Option<&str>, port: u16, ip: &str) -> Request {
    Request {
        http: false,
        port,
        source: ip.parse().unwrap(),
        ..who.map_or_else(Request::default, peer)
    }
}

const A: &str = "cluster.local/ns/n/sa/a";
const B: &str = "cluster.local/ns/n/sa/b";

#[test]
fn az_057_to_067() {
    let one = |source: Value, operation: Value| json!([{"from": [{"source": source}], "to": [{"operation": operation}]}]);
    // Row, action, rules, then for A on 9000, B on 9000, A on 80: admitted?
    let rows: &[(&str, &str, Value, [bool; 3])] = &[
        ("AZ-057", "ALLOW", source("principals", &[A]), [true, false, true]),
        (
            "AZ-058",
            "ALLOW",
            one(json!({"principals": [A]}), json!({"methods": ["GET"]})),
            [false; 3],
        ),
        (
            "AZ-059",
            "ALLOW",
            json!([{"from": [{"source": {"principals": [A]}}]}, {"to": [{"operation": {"paths": ["/x"]}}]}]),
            [true, false, true],
        ),
        (
            "AZ-060",
            "ALLOW",
            operation("ports", &["9000"]),
            [true, true, false],
        ),
        ("AZ-061, R6", "DENY", operation("methods", &["POST"]), [false; 3]),
        (
            "AZ-062",
            "DENY",
            json!([{"to": [{"operation": {"methods": ["POST"], "ports": ["9000"]}}]}]),
            [false, false, true],
        ),
        (
            "AZ-063",
            "DENY",
            one(json!({"principals": [A]}), json!({"paths": ["/admin"]})),
            [false, true, false],
        ),
        (
            "AZ-064",
            "DENY",
            source("notRequestPrincipals", &["*"]),
            [false; 3],
        ),
        (
            "AZ-065",
            "DENY",
            json!([{"from": [{"source": {"principals": [A]}}, {"source": {"requestPrincipals": ["x/y"]}}]}]),
            [false; 3],
        ),
        (
            "AZ-066",
            "DENY",
            one(json!({"ipBlocks": ["10.0.0.0/8"]}), json!({"hosts": ["h"]})),
            [false; 3],
        ),
        (
            "AZ-066",
            "DENY",
            one(json!({"ipBlocks": ["11.0.0.0/8"]}), json!({"hosts": ["h"]})),
            [true; 3],
        ),
        ("AZ-067", "CUSTOM", operation("paths", &["/x"]), [false; 3]),
    ];
    for (row, action, rules, expect) in rows {
        let specs = [policy(action, rules.clone())];
        let requests = [(A, 9000), (B, 9000), (A, 80)];
        for ((who, port), expect) in requests.into_iter().zip(expect) {
            let request = connection(Some(who), port, "10.1.1.1");
            for compat in [Compat::Istio, Compat::Secure] {
                assert_eq!(
                    admitted(compat, &specs, &request),
                    *expect,
                    "{row} {who} {port} {compat:?}"
                );
            }
        }
    }
}

#[test]
fn az_070_no_bypass_by_another_protocol() {
    let by_path = policy("ALLOW", operation("paths", &["/public"]));
    let deny = policy("DENY", operation("paths", &["/admin"]));
    let request = connection(Some(A), 9000, "10.1.1.1");
    assert!(!admitted(Compat::Secure, &[by_path], &request));
    assert!(!admitted(Compat::Secure, &[deny], &request));
}

#[test]
fn s2_11_values_that_cannot_be_generated() {
    let request = connection(Some(A), 9000, "10.1.1.1");
    let both = || source("ipBlocks", &["10.0.0/8", "10.0.0.0/8"]);
    assert!(
        !admitted(Compat::Istio, &[policy("ALLOW", both())], &request),
        "the rule goes"
    );
    assert!(
        !admitted(Compat::Istio, &[policy("DENY", both())], &request),
        "the value goes"
    );
    let other = source("ipBlocks", &["10.0.0/8", "11.0.0.0/8"]);
    assert!(
        admitted(Compat::Istio, &[policy("DENY", other)], &request),
        "the good value stays"
    );
    let bad = source("ipBlocks", &["10.0.0/8"]);
    assert!(
        !admitted(Compat::Istio, &[policy("DENY", bad)], &request),
        "nothing left is any"
    );
}
