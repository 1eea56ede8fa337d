//! Properties of all decisions, on policies and requests near one another's edges.

use std::sync::Arc;

use model::Reason;
use policy::path::Dialects;
use policy::{
    Action, Compat, ConditionSpec, Context, OperationSpec, Origin, PolicySet, PolicySpec, RuleSpec,
    SourceSpec, authorize, explain,
};
use proptest::prelude::*;
use serde_json::json;

use super::{compile, id};
use testkit::decisions::generate::*;
use testkit::decisions::reference::{Verdict, decide};
use testkit::decisions::{Claims, Headers, Request};

fn list(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(prop::sample::select(words).prop_map(str::to_owned), 1..3),
    ]
}

fn sources() -> impl Strategy<Value = SourceSpec> {
    let identity = (
        list(PRINCIPALS),
        list(PRINCIPALS),
        list(NAMESPACES),
        list(NAMESPACES),
        list(ACCOUNTS),
        list(DOMAINS),
    );
    let rest = (
        list(TOKENS),
        list(TOKENS),
        list(BLOCKS),
        list(BLOCKS),
        list(BLOCKS),
    );
    // Most sources speak of one or two fields, so that some match.
    (identity, rest, any::<u16>()).prop_map(|((p, np, n, nn, a, t), (rp, nrp, ip, nip, rip), keep)| {
        let on = |bit: u32, v: Vec<String>| {
            if keep >> bit & 1 == 1 && keep >> (15 - bit) & 1 == 1 {
                v
            } else {
                Vec::new()
            }
        };
        SourceSpec {
            principals: on(0, p),
            not_principals: on(1, np),
            namespaces: on(2, n),
            not_namespaces: on(3, nn),
            service_accounts: on(4, a),
            trust_domains: on(5, t),
            request_principals: on(6, rp),
            not_request_principals: on(7, nrp),
            ip_blocks: on(8, ip),
            not_ip_blocks: on(9, nip),
            remote_ip_blocks: on(10, rip),
            ..SourceSpec::default()
        }
    })
}

fn operations() -> impl Strategy<Value = OperationSpec> {
    (
        (list(HOSTS), list(HOSTS), list(PORTS), list(PORTS)),
        (list(METHODS), list(METHODS), list(PATHS), list(PATHS)),
        any::<u8>(),
    )
        .prop_map(|((h, nh, p, np), (m, nm, pa, npa), keep)| {
            let on = |bit: u32, v: Vec<String>| if keep >> bit & 1 == 1 { v } else { Vec::new() };
            OperationSpec {
                hosts: on(0, h),
                not_hosts: on(1, nh),
                ports: on(2, p),
                not_ports: on(3, np),
                methods: on(4, m),
                not_methods: on(5, nm),
                paths: on(6, pa),
                not_paths: on(7, npa),
            }
        })
}

fn conditions() -> impl Strategy<Value = ConditionSpec> {
    prop::sample::select(KEYS).prop_flat_map(|(key, values)| {
        let some = prop::collection::vec(prop::sample::select(values).prop_map(str::to_owned), 1..3);
        (some, any::<bool>()).prop_map(move |(list, not)| ConditionSpec {
            key: key.to_owned(),
            values: if not { Vec::new() } else { list.clone() },
            not_values: if not { list } else { Vec::new() },
            line: 0,
        })
    })
}

fn rules() -> impl Strategy<Value = RuleSpec> {
    (
        prop::collection::vec(sources(), 0..3),
        prop::collection::vec(operations(), 0..3),
        prop::collection::vec(conditions(), 0..2),
    )
        .prop_map(|(from, to, when)| RuleSpec {
            from,
            to,
            when,
            line: 0,
        })
}

fn policies() -> impl Strategy<Value = Vec<PolicySpec>> {
    let action = prop_oneof![
        4 => Just(Action::Allow),
        2 => Just(Action::Deny),
        1 => Just(Action::Custom { provider: "opa".to_owned() }),
    ];
    let one = (
        action,
        prop::collection::vec(rules(), 0..3),
        prop::sample::select(&["a", "b"][..]),
    );
    prop::collection::vec(one, 0..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(i, (action, rules, namespace))| PolicySpec {
                id: id(namespace, &format!("p{}", (i * 7) % 10)),
                action,
                dry_run: false,
                rules,
                invalid: None,
                origin: Origin::default(),
            })
            .collect()
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let pick = |words: &'static [&'static str]| prop::sample::select(words);
    let peers: &'static [&'static str] = &[
        "",
        "spiffe://cluster.local/ns/a/sa/x",
        "spiffe://cluster.local/ns/a/sa/xy",
        "spiffe://td/ns/b/sa/x",
        "spiffe://td/ns/ns/sa/x",
        "spiffe://td/ns/ab/sa/y",
    ];
    let ips: &'static [&'static str] = &[
        "10.1.1.1",
        "10.2.0.1",
        "11.0.0.1",
        "::ffff:10.1.1.1",
        "fd00::1",
        "fd01::1",
    ];
    let connection = (
        pick(peers),
        pick(ips),
        pick(ips),
        pick(ips),
        prop::sample::select(&[80_u16, 81, 65535][..]),
    );
    let request = (
        pick(&["GET", "POST", ""]),
        pick(&["a.com", "A.COM", "b.com", "a.com:80", ""]),
        pick(&[
            "/", "/a", "/a?b", "/a/", "/a/b", "/a/b/c", "/a/b=c", "/x/b", "", "/a//b", "/a;x/b", "/a%2fb",
            "/a/..;/b",
        ]),
        pick(&["", "v", "vw", "xv"]),
        any::<[bool; 3]>(),
        pick(&["u", "uv", ""]),
    );
    (connection, request).prop_map(
        |((peer, source, remote, destination, port), (method, host, path, word, [http, token, sni], sub))| {
            Request {
                peer: peer.parse().ok(),
                source: source.parse().unwrap(),
                remote: remote.parse().unwrap(),
                destination: destination.parse().unwrap(),
                port,
                sni: sni.then(|| host.to_owned()),
                http,
                method: method.to_owned(),
                authority: host.to_owned(),
                path: path.to_owned(),
                headers: Headers(if word == "xv" {
                    Vec::new()
                } else {
                    vec![("x-a".to_owned(), word.to_owned())]
                }),
                claims: token.then(|| Claims(json!({"iss": "i", "sub": sub, "aud": word}))),
            }
        },
    )
}

fn shared(specs: &[PolicySpec]) -> Vec<Arc<PolicySpec>> {
    specs.iter().cloned().map(Arc::new).collect()
}

fn verdict(compat: Compat, specs: &[PolicySpec], request: &Request) -> Verdict {
    let set = compile(compat, &shared(specs));
    match authorize(&request.facts(), &set) {
        Ok(permit) => Verdict::Allowed(
            permit
                .policy()
                .map(|id| (id.name.clone(), permit.rule().unwrap())),
        ),
        Err(denial) => {
            let found = || (denial.policy().unwrap().name.clone(), denial.rule.unwrap());
            match denial.reason {
                Reason::DenyCustom => Verdict::Custom(found().0, found().1),
                Reason::DenyExplicit => Verdict::Denied(found().0, found().1),
                Reason::DenyNoAllow => Verdict::NoAllow,
                other => panic!("{other}"),
            }
        }
    }
}

/// `PROPTEST_CASES`, else as many as find what is broken.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn index_and_reference_agree(specs in policies(), request in requests()) {
        prop_assert_eq!(verdict(Compat::Istio, &specs, &request), decide(&specs, &request));
    }

    #[test]
    fn explain_agrees(specs in policies(), request in requests(), secure in any::<bool>()) {
        let set = compile(if secure { Compat::Secure } else { Compat::Istio }, &shared(&specs));
        let answer = authorize(&request.facts(), &set);
        let explained = explain(&request.facts(), &set);
        let (reason, policy, rule) = match &answer {
            Ok(permit) => (None, permit.policy(), permit.rule()),
            Err(denial) => (Some(denial.reason), denial.policy(), denial.rule),
        };
        prop_assert_eq!((explained.denied, explained.policy.as_ref(), explained.rule), (reason, policy, rule));
        let matched = |action: fn(&Action) -> bool| {
            explained.steps.iter().find(|s| s.matched && action(&s.action)).map(|s| (s.policy.name.clone(), s.rule))
        };
        let custom = matched(|a| matches!(a, Action::Custom { .. }));
        let deny = matched(|a| *a == Action::Deny);
        let allow = matched(|a| *a == Action::Allow);
        match explained.denied {
            Some(Reason::DenyCustom) => prop_assert_eq!(custom.map(|c| c.1), Some(rule)),
            Some(Reason::DenyExplicit) => prop_assert_eq!((custom, deny.map(|d| d.1)), (None, Some(rule))),
            Some(_) => {
                prop_assert_eq!((custom, deny, allow), (None, None, None));
                let near = explained.near_miss;
                prop_assert!(near.is_none_or(|near| !near.failed.is_empty()));
            }
            None => prop_assert_eq!((custom, deny, allow.and_then(|a| a.1)), (None, None, rule)),
        }
    }

    #[test]
    fn a_deny_never_admits_more(specs in policies(), rule in rules(), request in requests(), secure in any::<bool>()) {
        let compat = if secure { Compat::Secure } else { Compat::Istio };
        let mut more = specs.clone();
        more.push(PolicySpec { id: id("a", "q"), action: Action::Deny, rules: vec![rule], dry_run: false, invalid: None, origin: Origin::default() });
        let admits = |specs: &[PolicySpec]| matches!(verdict(compat, specs, &request), Verdict::Allowed(_));
        prop_assert!(admits(&specs) || !admits(&more));
    }

    #[test]
    fn a_rule_of_an_allow_never_admits_less(specs in policies(), rule in rules(), request in requests()) {
        let mut more = specs.clone();
        if let Some(allow) = more.iter_mut().find(|s| s.action == Action::Allow) {
            allow.rules.push(rule);
        }
        let admits = |specs: &[PolicySpec]| matches!(verdict(Compat::Secure, specs, &request), Verdict::Allowed(_));
        prop_assert!(!admits(&specs) || admits(&more));
    }

    /// However a set came about, it decides, explains and names what decided as one that was compiled at once.
    #[test]
    fn an_updated_set_is_as_a_new_one(
        steps in prop::collection::vec((policies(), any::<u8>()), 1..5),
        gone in prop::collection::vec(any::<bool>(), 8),
        requests in prop::collection::vec(requests(), 1..6),
        secure in any::<bool>(),
        dialect in prop::sample::select(&["plain", "case-insensitive,strip-params"][..]),
    ) {
        let context = Context { compat: if secure { Compat::Secure } else { Compat::Istio }, ..Context::default() };
        let dialects: Dialects = dialect.parse().unwrap();
        let mut held = PolicySet::compile_for(&[], &[], &context, &dialects);
        let mut specs: Vec<Arc<PolicySpec>> = Vec::new();
        for (new, keep) in steps {
            // Some stay, some are replaced, some are new; of those that stay some are named only.
            specs.retain(|spec| keep >> (spec.id.name.len() + spec.rules.len()) & 1 == 1);
            specs.retain(|spec| !new.iter().any(|new| new.id == spec.id));
            specs.extend(new.into_iter().map(Arc::new));
            let (here, missing): (Vec<_>, Vec<_>) = specs.iter().cloned().enumerate()
                .partition(|(at, _)| !(keep & 7 == 7 && gone.get(*at) == Some(&true)));
            let here: Vec<_> = here.into_iter().map(|(_, spec)| spec).collect();
            let missing: Vec<_> = missing.into_iter().map(|(_, spec)| spec.id.clone()).collect();
            held = held.update(&here, &missing, &context, &dialects);
            let new = PolicySet::compile_for(&here, &missing, &context, &dialects);
            for request in &requests {
                let facts = request.facts();
                let (a, b) = (authorize(&facts, &held), authorize(&facts, &new));
                prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
                prop_assert_eq!(explain(&facts, &held), explain(&facts, &new));
            }
            prop_assert_eq!(held.needs_http(), new.needs_http());
            prop_assert_eq!(held.is_empty(), new.is_empty());
            prop_assert_eq!(held.defects().collect::<Vec<_>>(), new.defects().collect::<Vec<_>>());
        }
    }

    #[test]
    fn order_has_no_influence(specs in policies().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())), request in requests()) {
        let (specs, shuffled) = specs;
        for compat in [Compat::Istio, Compat::Secure] {
            prop_assert_eq!(verdict(compat, &specs, &request), verdict(compat, &shuffled, &request));
        }
    }
}
