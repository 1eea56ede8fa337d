//! Connections that are not read, decided by Envoy's network filter and by us (semantics 2.11); dry runs by their counters.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use model::Reason;
use policy::{Action, Compat, Context, PolicySet, PolicySpec, Shadow, ShadowVerdict, authorize};
use serde_json::{Value, json};
use testkit::decisions::Request;
use testkit::decisions::generate::{Choices, PEERS};
use testkit::ports::free_port;

use crate::server::{self, Envoy, Ranges};
use crate::translate::{self, On};
use crate::{ADDRESSES, Bytes, here, names, number, seed};

/// One set of policies, and connections near its edges. Each has ports of its own, so that it has filters of its own.
struct Case {
    specs: Vec<PolicySpec>,
    ports: [u16; 2],
    connections: Vec<Request>,
}

fn generated(count: usize, connections: usize) -> Vec<Case> {
    let mut bytes = Bytes(seed().wrapping_add(1_000));
    let case = |_| {
        let ports = [free_port(), free_port()];
        let mut specs = here(&Choices(&bytes.take(600)).policies(), ports);
        for spec in &mut specs {
            spec.dry_run = bytes.next().is_multiple_of(4);
        }
        let peers: Vec<String> = PEERS.iter().map(|peer| (*peer).to_owned()).collect();
        let connection = |_| {
            let peer = bytes.pick(&peers).parse().ok();
            let source: IpAddr = bytes.pick(&ADDRESSES).parse().unwrap();
            Request {
                sni: bytes.pick(&names()).filter(|_| peer.is_some()),
                peer,
                source,
                // Nothing else is known of who is behind it.
                remote: source,
                destination: bytes.pick(&ADDRESSES).parse().unwrap(),
                port: bytes.pick(&ports),
                http: false,
                ..Request::default()
            }
        };
        Case {
            connections: (0..connections).map(connection).collect(),
            specs,
            ports,
        }
    };
    (0..count).map(case).collect()
}

/// Istio's filters: one an action, with what is in force and what is tried out.
fn filters(at: usize, specs: &[PolicySpec]) -> Vec<Value> {
    let filter = |action: Action, name: &str| {
        let of = |dry_run: bool| {
            let these: Vec<PolicySpec> = specs
                .iter()
                .filter(|spec| spec.dry_run == dry_run)
                .cloned()
                .collect();
            translate::of(&these, &action, On::Connections)
        };
        let (rules, shadow) = (of(false), of(true));
        (rules.is_some() || shadow.is_some()).then(|| {
            let mut config = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                "stat_prefix": format!("case{at}.{name}."),
            });
            if let Some(rules) = rules {
                config["rules"] = rules;
            }
            if let Some(shadow) = shadow {
                config["shadow_rules"] = shadow;
            }
            json!({"name": name, "typed_config": config})
        })
    };
    [filter(Action::Deny, "deny"), filter(Action::Allow, "allow")]
        .into_iter()
        .flatten()
        .collect()
}

/// How often a dry run of each action admitted and refused.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Tried {
    deny: [u64; 2],
    allow: [u64; 2],
}

impl Tried {
    fn count(&mut self, shadow: Shadow, by_deny: bool) {
        let add = |to: &mut [u64; 2], verdict: Option<ShadowVerdict>| match verdict {
            Some(ShadowVerdict::Allowed) => to[0] += 1,
            Some(ShadowVerdict::Denied) => to[1] += 1,
            None => {}
        };
        add(&mut self.deny, shadow.deny);
        // What a DENY has refused comes no further.
        if !by_deny {
            add(&mut self.allow, shadow.allow);
        }
    }

    fn of_envoy(envoy: &Envoy, at: usize) -> Self {
        let counters = envoy.counters(&format!("case{at}\\."));
        let of = |action: &str| {
            ["allowed", "denied"].map(|verdict| {
                let name = format!("case{at}.{action}.rbac.shadow_{verdict}");
                let found = counters.iter().find(|(known, _)| *known == name);
                found.map_or(0, |(_, count)| *count)
            })
        };
        Self {
            deny: of("deny"),
            allow: of("allow"),
        }
    }
}

#[test]
fn envoy_decides_connections_as_we_do() {
    let Some(program) = server::program() else {
        println!("envoy: skipped: no Envoy here (`./test` installs it, or set MESHWARD_ENVOY)");
        return;
    };
    let cases = generated(
        number("MESHWARD_ENVOY_CASES", 60).min(300),
        number("MESHWARD_ENVOY_REQUESTS", 30),
    );
    let ranges = Ranges {
        peers: PEERS.iter().skip(1).map(|peer| (*peer).to_owned()).collect(),
        names: names(),
        sources: ADDRESSES.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let deciding = |dir: &Path| {
        let listeners = cases.iter().enumerate().flat_map(|(at, case)| {
            let filters = filters(at, &case.specs);
            case.ports.map(|port| server::connections(port, &filters, dir))
        });
        listeners.collect()
    };
    let envoy = Envoy::start(&program, "connections", &ranges, deciding);
    let (asked, admitted, next) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let told = play(&envoy, at, case, &asked, &admitted);
                    wrong.lock().unwrap().extend(told);
                }
            });
        }
    });
    let (asked, admitted) = (asked.into_inner(), admitted.into_inner());
    let wrong = wrong.into_inner().unwrap();
    println!(
        "envoy: {asked} connections, {admitted} admitted, {} decided otherwise",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong[..wrong.len().min(5)].join("\n"));
    assert!(
        admitted > asked / 20 && admitted < asked,
        "the connections are near no edge"
    );
}

/// Plays a case and says what was decided otherwise.
fn play(envoy: &Envoy, at: usize, case: &Case, asked: &AtomicUsize, admitted: &AtomicUsize) -> Vec<String> {
    let specs: Vec<Arc<PolicySpec>> = case.specs.iter().cloned().map(Arc::new).collect();
    let [istio, secure] = [Compat::Istio, Compat::Secure].map(|compat| {
        let context = Context {
            compat,
            ..Context::default()
        };
        PolicySet::compile(&specs, &[], &context)
    });
    let mut wrong = Vec::new();
    let mut tried = Tried::default();
    for connection in &case.connections {
        let theirs = envoy.reach(connection);
        asked.fetch_add(1, Ordering::Relaxed);
        admitted.fetch_add(usize::from(theirs), Ordering::Relaxed);
        let facts = connection.facts();
        let ours = authorize(&facts, &istio);
        match &ours {
            Ok(permit) => tried.count(permit.shadow(), false),
            Err(denial) => tried.count(denial.shadow, denial.reason == Reason::DenyExplicit),
        }
        let told = match (theirs, ours.is_ok()) {
            (true, false) => "only Envoy admits",
            (false, true) => "only we admit",
            // The secure semantics open nothing.
            (false, false) if authorize(&facts, &secure).is_ok() => "the secure semantics open",
            _ => continue,
        };
        wrong.push(format!(
            "generated {at}: {told}: {connection:?}\n{:?}\n{:#?}",
            policy::explain(&facts, &istio).denied,
            case.specs
        ));
    }
    let theirs = Tried::of_envoy(envoy, at);
    if theirs != tried {
        wrong.push(format!(
            "generated {at}: dry runs: Envoy {theirs:?}, we {tried:?}\n{:#?}",
            case.specs
        ));
    }
    wrong
}
