//! Sets that were made of others: whatever a rule is found by, it is found there too.

use std::sync::Arc;

use policy::path::Dialects;
use policy::{Compat, Context, PolicySet, PolicySpec, authorize};
use serde_json::{Value, json};
use testkit::decisions::{Claims, Headers, Request};

use super::{named, operation, peer, source, when};

/// One kind of key each: rules, and a request that they refuse and no other row does.
fn rows() -> Vec<(Value, Request)> {
    let plain = Request::default;
    let from = |ip: [u8; 4]| Request {
        source: ip.into(),
        ..plain()
    };
    let path = |path: &str| super::get(path);
    let host = |host: &str| Request {
        authority: host.to_owned(),
        ..plain()
    };
    let header = |name: &str| Request {
        headers: Headers(vec![(name.to_owned(), "v".to_owned())]),
        ..plain()
    };
    let claim = |claims: Value| Request {
        claims: Some(Claims(claims)),
        ..plain()
    };
    vec![
        (
            source("principals", &["cluster.local/ns/a/sa/b"]),
            peer("cluster.local/ns/a/sa/b"),
        ),
        (
            source("principals", &["*/ns/c/sa/d"]),
            peer("cluster.local/ns/c/sa/d"),
        ),
        (source("principals", &["*/sa/e"]), peer("cluster.local/ns/x/sa/e")),
        (source("namespaces", &["f"]), peer("cluster.local/ns/f/sa/x")),
        (
            source("serviceAccounts", &["g/h"]),
            peer("cluster.local/ns/g/sa/h"),
        ),
        (source("trustDomains", &["other"]), peer("other/ns/x/sa/x")),
        (source("ipBlocks", &["10.0.0.0/8"]), from([10, 1, 2, 3])),
        (source("ipBlocks", &["11.1.0.0/16"]), from([11, 1, 2, 3])),
        (
            source("ipBlocks", &["2001:db8::/32"]),
            Request {
                source: "2001:db8::1".parse().unwrap(),
                ..plain()
            },
        ),
        (
            source("remoteIpBlocks", &["12.0.0.0/9"]),
            Request {
                remote: [12, 1, 2, 3].into(),
                ..plain()
            },
        ),
        (
            when("destination.ip", &["13.1.2.3"]),
            Request {
                destination: [13, 1, 2, 3].into(),
                ..plain()
            },
        ),
        (operation("ports", &["81"]), Request { port: 81, ..plain() }),
        (
            operation("methods", &["PUT"]),
            Request {
                method: "PUT".to_owned(),
                ..plain()
            },
        ),
        (operation("paths", &["/exact"]), path("/exact")),
        (operation("paths", &["/prefix/*"]), path("/prefix/x")),
        (operation("paths", &["/prefix2/*"]), path("/prefix2/x")),
        (operation("paths", &["*.suffix"]), path("/x.suffix")),
        (operation("paths", &["*.suffix2"]), path("/x.suffix2")),
        (operation("paths", &["/template/{*}/x"]), path("/template/y/x")),
        (operation("hosts", &["Exact.host"]), host("exact.host")),
        (operation("hosts", &["*.suffix.host"]), host("x.suffix.host")),
        (operation("hosts", &["*.second.host"]), host("x.second.host")),
        (operation("hosts", &["prefix.*"]), host("prefix.host")),
        (
            when("connection.sni", &["sni"]),
            Request {
                sni: Some("sni".to_owned()),
                ..plain()
            },
        ),
        (when("request.headers[x-a]", &["v"]), header("x-a")),
        (when("request.headers[x-b]", &["v"]), header("x-b")),
        (when("request.auth.claims[a]", &["v"]), claim(json!({"a": "v"}))),
        (
            when("request.auth.claims[b][c]", &["v"]),
            claim(json!({"b": {"c": ["v"]}})),
        ),
    ]
}

fn context() -> Context {
    Context {
        compat: Compat::Istio,
        ..Context::default()
    }
}

/// Which policy refuses.
fn refuses(set: &PolicySet, request: &Request) -> Option<String> {
    let denial = authorize(&request.facts(), set).err()?;
    Some(denial.policy().unwrap().name.clone())
}

/// Policies come one by one, each is replaced by one that says the same under its name, and they go one by one: at every
/// step each request is refused by its own policy, or by none.
#[test]
fn whatever_a_rule_is_found_by_an_updated_set_finds_it() {
    let (context, plain) = (context(), Dialects::default());
    let rows = rows();
    let spec = |at: usize| named(&format!("p{at:02}"), "DENY", rows[at].0.clone());
    let check = |set: &PolicySet, here: &dyn Fn(usize) -> bool, when: &str| {
        for (at, (rules, request)) in rows.iter().enumerate() {
            let expect = here(at).then(|| format!("p{at:02}"));
            assert_eq!(refuses(set, request), expect, "{when}: {rules}");
        }
    };
    // From the front and from the back: what is new stands behind what there is, and before it.
    for back in [false, true] {
        let order: Vec<usize> = match back {
            false => (0..rows.len()).collect(),
            true => (0..rows.len()).rev().collect(),
        };
        let mut set = PolicySet::compile(&[], &[], &context);
        let mut all: Vec<Arc<PolicySpec>> = Vec::new();
        for (count, &at) in order.iter().enumerate() {
            all.push(spec(at));
            set = set.update(&all, &[], &context, &plain);
            check(&set, &|other| order[..=count].contains(&other), "added");
        }
        for (place, &at) in order.iter().enumerate() {
            // Another line: the policy is not the same, its rules mean the same.
            let mut other = PolicySpec::clone(&spec(at));
            other.origin.line = 7;
            all[place] = Arc::new(other);
            set = set.update(&all, &[], &context, &plain);
            check(&set, &|_| true, "replaced");
        }
        for (count, _) in order.iter().enumerate() {
            all.remove(0);
            set = set.update(&all, &[], &context, &plain);
            check(&set, &|other| order[count + 1..].contains(&other), "removed");
        }
    }
}

/// Many rules under one key: those that stay, come and go are told apart by what else they ask for.
#[test]
fn of_the_rules_of_one_key_an_updated_set_has_those_that_are_there() {
    let (context, plain) = (context(), Dialects::default());
    let spec = |at: usize| {
        let mut rules = operation("paths", &["/same"]);
        rules[0]["when"] = json!([{"key": "request.headers[x-n]", "values": [format!("{at}*")]}]);
        named(&format!("p{at:02}"), "DENY", rules)
    };
    let request = |at: usize| Request {
        headers: Headers(vec![("x-n".to_owned(), format!("{at:02}"))]),
        ..super::get("/same")
    };
    let numbers = || 10..40_usize;
    let mut here: Vec<usize> = numbers().step_by(2).collect();
    let specs = |here: &[usize]| here.iter().map(|at| spec(*at)).collect::<Vec<_>>();
    let mut set = PolicySet::compile(&specs(&here), &[], &context);
    for at in numbers() {
        match here.iter().position(|other| *other == at) {
            Some(place) => drop(here.remove(place)),
            None => here.insert(0, at),
        }
        set = set.update(&specs(&here), &[], &context, &plain);
        for other in numbers() {
            let expect = here.contains(&other).then(|| format!("p{other:02}"));
            assert_eq!(refuses(&set, &request(other)), expect, "{other} after {at}");
        }
    }
}
