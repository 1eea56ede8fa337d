use super::*;
use crate::spec::{Action, OperationSpec, RuleSpec};

fn spec(name: usize, ports: &[&str], paths: &[&str]) -> Arc<PolicySpec> {
    let operation = |values: &[&str], path: bool| {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        let (ports, paths) = if path { (vec![], values) } else { (values, vec![]) };
        RuleSpec {
            to: vec![OperationSpec {
                ports,
                paths,
                ..OperationSpec::default()
            }],
            ..RuleSpec::default()
        }
    };
    let each = ports.iter().map(|port| operation(&[port], false));
    Arc::new(PolicySpec {
        id: PolicyId {
            namespace: "n".to_owned(),
            name: format!("p{name:03}"),
        },
        action: Action::Deny,
        dry_run: false,
        rules: each
            .chain(paths.iter().map(|path| operation(&[path], true)))
            .collect(),
        invalid: None,
        origin: crate::spec::Origin::default(),
    })
}

fn specs(count: usize) -> Vec<Arc<PolicySpec>> {
    (0..count).map(|i| spec(i, &["80", "81"], &["/A"])).collect()
}

fn updated(set: &PolicySet, specs: &[Arc<PolicySpec>]) -> PolicySet {
    set.update(specs, &[], &Context::default(), &Dialects::default())
}

fn compiled(specs: &[Arc<PolicySpec>]) -> PolicySet {
    PolicySet::compile(specs, &[], &Context::default())
}

/// How many rules of a set are the very ones of another.
fn shared(a: &Inner, b: &Inner) -> usize {
    let of = |rule: &Rule| Arc::as_ptr(&rule.operations);
    let known: Vec<_> = a.rules.iter().map(of).collect();
    b.rules.iter().filter(|rule| known.contains(&of(rule))).count()
}

#[test]
fn what_stayed_is_not_compiled_again() {
    let mut all = specs(40);
    let before = compiled(&all);
    all[7] = spec(7, &["90"], &[]);
    let after = updated(&before, &all);
    assert_eq!(shared(&before.inner, &after.inner), 39 * 3);
    assert_eq!((after.inner.replaced, after.inner.rules.len()), (1, 39 * 3 + 1));
    // Each rule still knows its policy, and each policy its rules.
    for (at, policy) in after.inner.policies.iter().enumerate() {
        let own = &after.inner.rules[policy.first_rule..policy.first_rule + policy.rules];
        let (first, count) = if at > 7 {
            (at * 3 - 2, 3)
        } else {
            (at * 3, if at == 7 { 1 } else { 3 })
        };
        assert_eq!((policy.first_rule, policy.rules), (first, count), "{at}");
        for rule in own {
            assert_eq!(usize::try_from(rule.policy).unwrap(), at);
        }
    }
}

#[test]
fn a_set_of_which_nothing_changed_is_that_set() {
    let all = specs(20);
    let missing = [PolicyId {
        namespace: "n".to_owned(),
        name: "late".to_owned(),
    }];
    let (context, plain) = (Context::default(), Dialects::default());
    let before = PolicySet::compile(&all, &missing, &context);
    // Equal ones are as good as the same.
    let equal: Vec<_> = all.iter().map(|spec| Arc::new(PolicySpec::clone(spec))).collect();
    for specs in [&all, &equal] {
        let after = before.update(specs, &missing, &context, &plain);
        assert!(Arc::ptr_eq(&before.inner, &after.inner));
    }
    for (specs, missing) in [(&all[1..], &missing[..]), (&all[..], &[])] {
        let after = before.update(specs, missing, &context, &plain);
        assert!(!Arc::ptr_eq(&before.inner, &after.inner));
        assert_eq!(after.inner.policies.len(), 20);
        assert_eq!(after.inner.replaced, 1);
    }
}

/// An eighth and 16 more; what is replaced, what goes and what comes each count as one.
#[test]
fn when_more_than_an_eighth_and_a_few_changed_all_is_compiled() {
    let all = specs(80);
    let before = compiled(&all);
    let room = 80 / ONE_OF + FEW;
    let with = |changed: usize| {
        let mut now = all.clone();
        for (at, old) in now.iter_mut().enumerate().take(changed) {
            *old = spec(at, &["90"], &[]);
        }
        now
    };
    let most = updated(&before, &with(room));
    assert_eq!(most.inner.replaced, room);
    // What was replaced before counts with what is replaced now.
    let mut more = with(room);
    more[79] = spec(79, &["91"], &[]);
    let anew = updated(&most, &more);
    assert_eq!((anew.inner.replaced, shared(&most.inner, &anew.inner)), (0, 0));
    let anew = updated(&before, &with(room + 1));
    assert_eq!((anew.inner.replaced, shared(&before.inner, &anew.inner)), (0, 0));

    let fewer = updated(&before, &all[room..]);
    assert_eq!(fewer.inner.replaced, room);
    assert_eq!(updated(&before, &all[room + 1..]).inner.replaced, 0);
    let fewer = updated(&before, &all[..80 - room]);
    assert_eq!(fewer.inner.replaced, room);
    assert_eq!(updated(&before, &all[..80 - room - 1]).inner.replaced, 0);

    let larger = specs(80 + room + 1);
    assert_eq!(updated(&before, &larger[..80 + room]).inner.replaced, room);
    assert_eq!(updated(&before, &larger).inner.replaced, 0);
}

#[test]
fn what_reads_paths_otherwise_is_patched_with_its_folded_policies() {
    let (context, folds): (_, Dialects) = (Context::default(), "case-insensitive".parse().unwrap());
    let mut all = specs(40);
    let before = PolicySet::compile_for(&all, &[], &context, &folds);
    all[3] = spec(3, &[], &["/B"]);
    let after = before.update(&all, &[], &context, &folds);
    let folded = |set: &PolicySet| {
        let backend = set.backend.clone().unwrap();
        assert_eq!(backend.dialects, folds);
        backend
    };
    let (old, new) = (folded(&before), folded(&after));
    let (old, new) = (old.folded.as_ref().unwrap(), new.folded.as_ref().unwrap());
    assert_eq!((shared(old, new), new.replaced), (39 * 3, 1));
    assert_eq!(shared(&before.inner, &after.inner), 39 * 3);
    // Read in another way, nothing of it is taken.
    for other in ["plain", "case-insensitive,collapse"] {
        let other: Dialects = other.parse().unwrap();
        let after = before.update(&all, &[], &context, &other);
        assert_eq!(
            (shared(&before.inner, &after.inner), after.inner.replaced),
            (0, 0)
        );
    }
    let plain = PolicySet::compile(&all, &[], &context);
    let after = plain.update(&all, &[], &context, &folds);
    assert!(!Arc::ptr_eq(&plain.inner, &after.inner) && after.backend.is_some());
}
