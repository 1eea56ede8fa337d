use super::*;

fn said(entries: &[(&str, bool, u64, Option<u64>)]) -> BTreeMap<String, NodeStatus> {
    entries
        .iter()
        .map(|(node, connected, acked, nacked)| {
            let status = NodeStatus {
                connected: *connected,
                acked: *acked,
                nacked: nacked.map(|version| (version, "why".to_owned())),
                ..NodeStatus::default()
            };
            ((*node).to_owned(), status)
        })
        .collect()
}

/// Its name; whether the node is connected, what it has acknowledged and refused; how many count; why the others do not.
type Case = (
    &'static str,
    Option<(bool, u64, Option<u64>)>,
    usize,
    &'static [&'static str],
);

/// One node `a` that is to have version 5: what it said, and what that comes to.
#[test]
fn acks_and_nacks_are_joined_with_what_was_published() {
    let versions = BTreeMap::from([("a".to_owned(), 5)]);
    let cases: &[Case] = &[
        ("it has it", Some((true, 5, None)), 1, &[]),
        ("it has a later one", Some((true, 7, None)), 1, &[]),
        ("it had it and went away", Some((false, 5, None)), 1, &[]),
        (
            "not yet",
            Some((true, 4, None)),
            0,
            &["node a has not acknowledged it yet"],
        ),
        ("away", Some((false, 4, None)), 0, &["node a is not connected"]),
        ("never seen", None, 0, &["node a is not connected"]),
        ("refused", Some((true, 4, Some(5))), 0, &["node a refused: why"]),
        (
            "refused a later one",
            Some((true, 4, Some(6))),
            0,
            &["node a refused: why"],
        ),
        (
            "refused an earlier one",
            Some((true, 3, Some(4))),
            0,
            &["node a has not acknowledged it yet"],
        ),
        (
            "has it, and refused a later one",
            Some((true, 5, Some(6))),
            1,
            &[],
        ),
    ];
    for (name, status, acknowledged, why) in cases {
        let entries: Vec<_> = status.iter().map(|(c, a, n)| ("a", *c, *a, *n)).collect();
        let standing = standing(["a"].into_iter(), &versions, &said(&entries));
        assert_eq!(
            (standing.nodes, standing.acknowledged),
            (1, *acknowledged),
            "{name}"
        );
        assert_eq!(standing.why(), *why, "{name}");
    }
    let unpublished = standing(["b"].into_iter(), &versions, &said(&[("b", true, 9, None)]));
    assert!(
        !unpublished.is_settled(),
        "what was not published cannot be acknowledged"
    );
}

fn held(text: &str) -> Held {
    let mut parsed = crate::world::parse("f.yaml", text.as_bytes());
    Held::new(parsed.objects.remove(0), &parsed.problems, |_| 1)
}

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\nspec: {}\n";

fn effect(in_force: bool, why: &[&str], shadowed: bool) -> Effect {
    let object = held(POLICY).key.reference();
    Effect {
        in_force,
        why: why.iter().map(|why| (*why).to_owned()).collect(),
        targets: vec![],
        nodes: vec![],
        shadowed_by: Vec::from_iter(shadowed.then(|| object.clone())),
        object,
    }
}

#[test]
fn r38_every_object_gets_its_word_and_its_why() {
    let policy = held(POLICY);
    let all = Standing {
        nodes: 1,
        acknowledged: 1,
        ..Standing::default()
    };
    let some = Standing {
        acknowledged: 0,
        missing: vec![("a".to_owned(), true)],
        ..all.clone()
    };
    let mut finding = Problem::new(Severity::Error, "MW0501", "it leads nowhere");
    (finding.file, finding.line, finding.column) = ("f.yaml".to_owned(), 4, 1);
    let check = |held: &Held, effect: Option<&Effect>, found: &[Problem], standing, word, says: &[&str]| {
        let (result, why) = verdict(held, Profile::Secure, effect, found, standing);
        assert_eq!(result, word, "{why:?}");
        assert_eq!(why.len(), says.len(), "{why:?}");
        assert!(
            why.iter().zip(says).all(|(why, says)| why.contains(says)),
            "{why:?}"
        );
    };
    use OutcomeKind::{Accepted, NotInForce, Rejected};
    check(&policy, Some(&effect(true, &[], false)), &[], &all, Accepted, &[]);
    check(
        &policy,
        Some(&effect(true, &["in part"], false)),
        &[],
        &all,
        Accepted,
        &["f.yaml:1:1: in part"],
    );
    check(
        &policy,
        Some(&effect(false, &["not"], false)),
        &[],
        &all,
        NotInForce,
        &["f.yaml:1:1: not"],
    );
    check(
        &policy,
        Some(&effect(true, &[], true)),
        &[],
        &all,
        NotInForce,
        &["older objects"],
    );
    check(
        &policy,
        Some(&effect(true, &[], false)),
        &[],
        &some,
        NotInForce,
        &["node a"],
    );
    check(
        &policy,
        None,
        std::slice::from_ref(&finding),
        &all,
        NotInForce,
        &["f.yaml:4:1: it leads nowhere"],
    );
    let broken = held(&POLICY.replace("spec: {}", "spec: {}\nspec: {}"));
    check(
        &broken,
        Some(&effect(true, &[], false)),
        &[],
        &all,
        Rejected,
        &["f.yaml:5:1: "],
    );
    let route = held(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: demo}\nspec: {hosts: [x], tcp: [{route: [{destination: {host: x}}]}]}\n",
    );
    check(&route, None, &[], &all, NotInForce, &["not acted on"]);
    let network = held(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: v, namespace: demo}\nspec: {podSelector: {}}\n",
    );
    check(
        &network,
        None,
        &[],
        &all,
        NotInForce,
        &["is not enforced here yet"],
    );
}
