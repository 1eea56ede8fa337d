use std::time::Duration;

use admin::Exit;
use admin::verbs::{Desired, OutcomeKind, Status};
use serde_json::{Value, json};

use super::bed::{Bed, NAMESPACE, SOON, config_map, pod, policy};

async fn with_pods(nodes: &[&str], files: &[(&str, &str)]) -> Bed {
    let bed = Bed::start(nodes, files).await;
    let pods = json!([pod("x", "a", "10.0.0.1"), pod("z", "b", "10.0.0.2")]);
    let (_, result) = bed.call("report", json!({ "pods": pods })).await;
    assert_eq!(result, Ok(Value::Null));
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_returns_when_the_proxies_that_are_concerned_have_it() {
    let bed = with_pods(&["a", "b"], &[("n.yaml", NAMESPACE)]).await;
    let mut a = bed.proxy("a").await;
    a.until("mesh", true).await;
    // Node b is not there, and is not concerned.
    let outcomes = bed.apply(&policy("p", "x"), 5_000).await;
    let only = &outcomes[0];
    assert_eq!(
        (outcomes.len(), only.result, only.change.as_str()),
        (1, OutcomeKind::Accepted, "created")
    );
    assert_eq!((only.nodes, only.acknowledged), (1, 1));
    assert!(a.has("policy/demo/p"), "it is in force when apply returns");
    let status = bed.status().await.unwrap();
    assert_eq!(status.objects[0].targets, ["demo/x"]);
    assert_eq!(status.objects[0].origin, "mine.yaml:1:1");

    let again = bed.apply(&policy("p", "x"), 5_000).await;
    assert_eq!(again[0].change, "unchanged");
    let moved = bed.apply(&policy("p", "z"), 300).await;
    assert_eq!(
        (moved[0].result, moved[0].change.as_str()),
        (OutcomeKind::NotInForce, "configured")
    );
    assert_eq!(moved[0].why, ["node b is not connected"]);
    a.until("policy/demo/p", false).await;

    let mut b = bed.proxy("b").await;
    b.until("policy/demo/p", true).await;
    let gone = bed.delete("ap", "demo", "p").await;
    assert_eq!(
        (gone[0].result, gone[0].change.as_str()),
        (OutcomeKind::Accepted, "deleted")
    );
    assert!(!b.has("policy/demo/p"));
    let none = bed.delete("ap", "demo", "p").await;
    assert_eq!(none[0].result, OutcomeKind::Rejected);
    assert!(none[0].why[0].contains("there is no"), "{:?}", none[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p_48_a_proxy_that_refuses_is_named() {
    let bed = with_pods(&["a", "b"], &[("n.yaml", NAMESPACE)]).await;
    let mut a = bed.proxy("a").await;
    a.until("mesh", true).await;
    let outcomes = bed.apply(&policy("refused", "x"), 5_000).await;
    assert_eq!(outcomes[0].result, OutcomeKind::NotInForce);
    assert_eq!(
        outcomes[0].why,
        ["node a refused: the policy `demo/refused` is not understood"]
    );
    let status = bed.status().await.unwrap();
    assert_eq!(
        status.nodes[0].refused.as_deref(),
        Some("the policy `demo/refused` is not understood")
    );
    assert_eq!(status.objects[0].result, OutcomeKind::NotInForce);
    bed.delete("ap", "demo", "refused").await;
    let status = bed.until(|status| status.nodes[0].refused.is_none()).await;
    assert_eq!(status.nodes[0].acknowledged, status.nodes[0].published);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_was_applied_deleted_and_reported() {
    let files = [
        ("n.yaml", NAMESPACE),
        ("a.yaml", &config_map("a", "x")),
        ("b.yaml", &config_map("b", "x")),
    ];
    let mut bed = with_pods(&["a", "b"], &files).await;
    bed.apply(&policy("p", "x"), 0).await;
    bed.delete("cm", "demo", "a").await;
    bed.apply(&config_map("b", "mine"), 0).await;
    let before = bed
        .call("get", json!({"kind": "all", "namespace": null, "name": null}))
        .await;
    let status = bed.status().await.unwrap();
    let mut proxy = bed.proxy("a").await;
    proxy.until("policy/demo/p", true).await;

    bed.restart().await;
    let after = bed
        .call("get", json!({"kind": "all", "namespace": null, "name": null}))
        .await;
    assert_eq!(bed.names("cm").await, ["b"]);
    assert_eq!(strip(before.0), strip(after.0), "ages and places too");
    let again = bed
        .until(|status| status.nodes[0].connected && status.nodes[0].acknowledged > 0)
        .await;
    assert_eq!(again.problems, status.problems);
    tokio::time::sleep(Duration::from_millis(50)).await;
    while proxy.sets.try_recv().is_ok() {}
    assert!(proxy.has("policy/demo/p"));

    bed.write("a.yaml", &config_map("a", "newer"));
    bed.write("b.yaml", &config_map("b", "newer"));
    bed.until_names("cm", &["a", "b"]).await;
    let newest = |items: &[Value]| items[0]["object"]["data"]["text"].clone();
    let waited = tokio::time::timeout(SOON, async {
        while newest(
            &bed.call("get", json!({"kind": "cm", "namespace": "demo", "name": "b"}))
                .await
                .0,
        ) != "newer"
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "the newest change wins");
}

/// Acknowledgements are not what is compared.
fn strip(items: Vec<Value>) -> Vec<(Value, Value)> {
    items
        .into_iter()
        .map(|item| (item["object"].clone(), item["origin"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_is_rejected_with_its_place_and_the_rest_is_taken() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    let text = format!(
        "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: demo}}\nspec: {{ports: [{{port: eighty}}]}}\n---\n{}---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: demo}}\nspec: {{hosts: [x], tcp: [{{route: [{{destination: {{host: x}}}}]}}]}}\n",
        config_map("good", "x"),
        policy("bad", "x").replace("  action: DENY", "  action: DENY\n  action: DENY"),
    );
    let outcomes = bed.apply(&text, 0).await;
    let one = |kind: &str| outcomes.iter().find(|outcome| outcome.kind == kind).unwrap();
    assert_eq!(one("ConfigMap").result, OutcomeKind::Accepted);
    assert_eq!(one("VirtualService").result, OutcomeKind::NotInForce);
    let broken = one("AuthorizationPolicy");
    assert_eq!(broken.result, OutcomeKind::Rejected);
    assert!(broken.why[0].starts_with("mine.yaml:"), "{broken:?}");
    let status = bed.status().await.unwrap();
    let invalid = status.objects.iter().find(|object| object.name == "bad").unwrap();
    assert_eq!(
        (invalid.result, invalid.targets.as_slice()),
        (OutcomeKind::Rejected, &["demo/x".to_owned()][..])
    );
    assert_eq!(status.not_acted_on.len(), 1);

    // The value is the same without the second key: it is a change all the same.
    let mended = bed.apply(&policy("bad", "x"), 0).await;
    assert_eq!(
        (mended[0].result, mended[0].change.as_str()),
        (OutcomeKind::Accepted, "configured")
    );

    let outcomes = bed
        .apply(&format!("{}---\na: [\n", config_map("half", "x")), 0)
        .await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.result == OutcomeKind::Rejected),
        "{outcomes:?}"
    );
    assert_eq!(bed.names("cm").await, ["good"], "nothing is half applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    let body =
        json!({"documents": [{"file": "f", "text": policy("p", "x")}], "waitMs": 5000, "dryRun": true});
    let (items, result) = bed.call("apply", body).await;
    assert_eq!(result, Ok(Value::Null));
    assert_eq!(
        (&items[0]["result"], &items[0]["change"]),
        (&json!("accepted"), &json!("created"))
    );
    assert_eq!(bed.names("ap").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_written_changes_nothing() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    std::fs::remove_dir_all(bed.config.state.join("objects")).unwrap();
    std::fs::write(bed.config.state.join("objects"), "").unwrap();
    let body = json!({"documents": [{"file": "f", "text": policy("p", "x")}], "waitMs": 0});
    let (_, result) = bed.call("apply", body).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.exit, Exit::Undecided);
    assert!(failure.message.starts_with("nothing was applied"), "{failure}");
    assert_eq!(bed.names("ap").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_tells_what_there_is_to_run_and_each_problem_once() {
    let bed = Bed::start(&["a"], &[("n.yaml", NAMESPACE), ("bad.yaml", "kind: [")]).await;
    let mut answer = admin::call(&bed.config.socket, "desired", Value::Null, vec![])
        .await
        .unwrap();
    let mut next = async || -> Desired {
        let item = tokio::time::timeout(SOON, answer.item()).await.unwrap().unwrap();
        serde_json::from_value(item).unwrap()
    };
    let first = next().await;
    assert_eq!(
        (first.objects.len(), first.trust_domain.as_str()),
        (1, "cluster.local")
    );
    assert_eq!(first.problems.len(), 1);
    // A policy runs nowhere.
    bed.apply(&policy("p", "nobody"), 0).await;
    bed.apply(&config_map("c", "x"), 0).await;
    let mut second = next().await;
    if second.objects.len() == 1 {
        assert!(
            second.problems.iter().all(|problem| problem.file == "mine.yaml"),
            "{second:?}"
        );
        second = next().await;
    }
    assert_eq!(second.objects.len(), 2);
    assert!(second.version > first.version);
    assert!(
        second
            .problems
            .iter()
            .all(|problem| problem.file != "mesh/bad.yaml")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_are_none_are_answered() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    let get = async |kind: &str, name: Value| {
        bed.call("get", json!({"kind": kind, "namespace": null, "name": name}))
            .await
    };
    let failure = get("servise", Value::Null).await.1.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("`service`"), "{failure}");
    assert_eq!(get("svc", json!("none")).await.1.unwrap_err().exit, Exit::No);
    assert_eq!(
        bed.call("fly", Value::Null).await.1.unwrap_err().exit,
        Exit::Usage
    );
    let (pods, _) = get("po", json!("x")).await;
    assert_eq!(pods[0]["object"]["status"]["phase"], "Running");
    let (_, views) = bed.call("pods", Value::Null).await;
    assert_eq!(views.unwrap().as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_trust_domain_waits_for_a_restart() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomain: other.test\n";
    let outcomes = bed.apply(text, 0).await;
    assert_eq!(outcomes[0].result, OutcomeKind::NotInForce);
    assert!(outcomes[0].why[0].contains("other.test"), "{outcomes:?}");
    let status = bed.status().await.unwrap();
    assert!(
        status
            .problems
            .iter()
            .any(|problem| problem.code == "MW0603" && problem.line > 0)
    );
    assert!(
        status.defaults.iter().any(|line| line.contains("cluster.local")),
        "{:?}",
        status.defaults
    );
    let (_, pods) = bed.call("pods", Value::Null).await;
    let identity = pods.unwrap()[0]["identity"].clone();
    assert_eq!(identity, "spiffe://cluster.local/ns/demo/sa/x");
}

#[tokio::test(flavor = "multi_thread")]
async fn pa_13_an_object_is_as_old_as_it_is_and_no_older() {
    let bed = with_pods(&["a"], &[("n.yaml", NAMESPACE)]).await;
    let age = async || {
        let (items, _) = bed
            .call("get", json!({"kind": "ap", "namespace": "demo", "name": "p"}))
            .await;
        items[0]["object"]["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let later = async || tokio::time::sleep(Duration::from_millis(5)).await;
    let body =
        json!({"documents": [{"file": "f", "text": policy("p", "nobody")}], "waitMs": 0, "dryRun": true});
    bed.call("apply", body).await.1.unwrap();
    let rehearsed = std::time::SystemTime::now();
    later().await;
    bed.apply(&policy("p", "nobody"), 0).await;
    let first = age().await;
    let seen: api::Meta = serde_json::from_value(json!({"creationTimestamp": first})).unwrap();
    let rehearsed = rehearsed
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    assert!(
        u128::from(seen.creation.unwrap()) > rehearsed,
        "a dry run is no birth"
    );
    later().await;
    bed.apply(&policy("p", "no-one"), 0).await;
    assert_eq!(age().await, first, "a change does not make it younger");
    bed.delete("ap", "demo", "p").await;
    later().await;
    bed.apply(&policy("p", "nobody"), 0).await;
    assert_ne!(age().await, first, "what comes back is another one");
}

/// Many at once, by file and by hand: in the end there is what each left.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_changes_ends_in_what_was_said_last() {
    let bed = with_pods(&["a", "b"], &[("n.yaml", NAMESPACE)]).await;
    let (mut a, _b) = (bed.proxy("a").await, bed.proxy("b").await);
    let writer = async |n: usize| {
        let name = format!("w{n}");
        let text = |port: usize| policy(&name, "x").replace("\"9\"", &format!("\"{port}\""));
        for turn in 0..15 {
            match (turn + n) % 3 {
                0 => bed.write(&format!("{name}.yaml"), &text(turn + 1)),
                1 => drop(bed.apply(&text(turn + 100), 5_000).await),
                _ => drop(bed.delete("ap", "demo", &name).await),
            }
        }
        bed.apply(&policy(&format!("last{n}"), "x"), 5_000).await
    };
    let outcomes = tokio::join!(writer(0), writer(1), writer(2), writer(3));
    for outcome in [outcomes.0, outcomes.1, outcomes.2, outcomes.3] {
        assert_eq!(outcome[0].result, OutcomeKind::Accepted, "{outcome:?}");
    }
    for n in 0..4 {
        a.until(&format!("policy/demo/last{n}"), true).await;
        bed.write(&format!("w{n}.yaml"), &policy(&format!("w{n}"), "x"));
        a.until(&format!("policy/demo/w{n}"), true).await;
    }
    let wanted = ["last0", "last1", "last2", "last3", "w0", "w1", "w2", "w3"];
    let named = |status: &Status| {
        status
            .objects
            .iter()
            .map(|object| object.name.clone())
            .collect::<Vec<_>>()
    };
    let status = bed.until(|status| named(status) == wanted).await;
    assert!(
        status.problems.iter().all(|problem| problem.severity != "error"),
        "{:?}",
        status.problems
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_about_what_is_in_force_with_the_place_of_the_rule() {
    let bed = with_pods(&["a", "b"], &[("n.yaml", NAMESPACE)]).await;
    let question = |to: Value, path: &str| {
        let from = json!({"namespace": "demo", "serviceAccount": "web"});
        json!({"question": {"from": from, "to": to, "path": path}, "custom": {}})
    };
    let pod = |name: &str| json!({"namespace": "demo", "workload": name, "port": 9});
    let (_, answer) = bed.call("can-i", question(pod("x"), "/a")).await;
    let answer = answer.unwrap();
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("deny"), &json!("DENY_DEFAULT"))
    );
    assert_eq!(answer["steps"][0]["stage"], "capture");

    bed.apply(&policy("p", "x"), 0).await;
    let (_, answer) = bed.call("can-i", question(pod("x"), "/a")).await;
    let answer = answer.unwrap();
    assert_eq!(answer["policy"]["name"], "p", "{answer}");
    assert_eq!(answer["policy"]["file"], "mine.yaml");
    // The other node's pod is another one's business.
    let (_, answer) = bed.call("can-i", question(pod("z"), "/a")).await;
    assert_eq!(answer.unwrap()["policy"], Value::Null);
    let labels = json!({"namespace": "demo", "labels": {"app": "x"}, "port": 9});
    let (_, answer) = bed.call("can-i", question(labels, "/a")).await;
    assert_eq!(answer.unwrap()["policy"]["name"], "p");

    let (_, found) = bed.call("policy", pod("x")).await;
    let found = found.unwrap();
    assert_eq!(
        (&found[0]["pods"], &found[0]["policies"][0]["name"]),
        (&json!(["demo/x"]), &json!("p"))
    );
    let (_, none) = bed.call("policy", pod("nobody")).await;
    assert_eq!(none.unwrap_err().exit, Exit::No);
    let (_, broken) = bed
        .call("can-i", json!({"question": {"too": 1}, "custom": {}}))
        .await;
    assert_eq!(broken.unwrap_err().exit, Exit::Usage);
}
