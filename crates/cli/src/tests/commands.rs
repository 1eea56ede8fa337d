use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use admin::Failure;
use serde_json::{Value, json};

use super::fake::{Desk, Fake, Kept, Script};
use crate::pods::ps::tests::{row, status};

const POLICY: &str =
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edit, namespace: m}\n";

fn outcome(result: &str, change: &str, why: &[&str]) -> Value {
    json!({
        "kind": "AuthorizationPolicy", "namespace": "m", "name": "edit", "result": result, "change": change,
        "why": why, "nodes": 2, "acknowledged": 2,
    })
}

#[tokio::test]
async fn where_no_mesh_runs_the_message_says_how_to_start_one() {
    let fake = Fake::new();
    std::fs::remove_dir_all(fake.dir.path().join("mesh")).unwrap();
    for words in [
        &["ps"][..],
        &["status"],
        &["get", "ap"],
        &["logs", "--access"],
        &["exec", "x", "--", "true"],
    ] {
        let said = fake.run(words).await;
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{words:?}");
        assert_eq!(
            said.stderr, "error: no mesh named `default` runs here: start one with `meshward up DIR`\n",
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn remains_of_a_mesh_are_told_from_none() {
    let said = Fake::new().run(&["ps"]).await;
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("`meshward down` clears"), "{said:?}");
}

#[tokio::test]
async fn ps_says_what_is_in_force_and_goes_on_without_the_control_plane() {
    let fake = Fake::new();
    let rows = json!([row("full", "httpbin"), row("legacy", "sleep")]);
    fake.up(Desk::default().answers("ps", Script::ok(rows))).await;
    let said = fake.run(&["ps"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("spiffe://cluster.local/ns/full/sa/httpbin"),
        "{said:?}"
    );
    assert!(said.stderr.contains("the control plane"), "{said:?}");
    let status = serde_json::to_value(status()).unwrap();
    fake.control(Desk::default().answers("status", Script::ok(status)))
        .await;
    let said = fake.run(&["ps"]).await;
    assert!(
        said.stdout.contains("\nprofile secure: mTLS STRICT, deny"),
        "{said:?}"
    );
    assert_eq!(said.stderr, "");
    let said = fake.run(&["ps", "-n", "legacy", "-o", "json"]).await;
    let rows = said.json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    for field in [
        "namespace",
        "name",
        "workload",
        "serviceAccount",
        "ip",
        "ip6",
        "netns",
    ] {
        assert!(rows[0][field].is_string(), "{field}: {rows}");
    }
    assert_eq!(
        (&rows[0]["inMesh"], &rows[0]["mtls"], &rows[0]["ready"]),
        (&json!(false), &Value::Null, &json!(true))
    );
}

#[tokio::test]
async fn apply_sends_the_texts_and_tells_what_becomes_of_each() {
    let fake = Fake::new();
    let file = fake.dir.path().join("a.yaml");
    std::fs::write(&file, POLICY).unwrap();
    let file = file.display().to_string();
    let items = [outcome("accepted", "created", &[])];
    let control = fake
        .control(Desk::default().answers("apply", Script::items(items)))
        .await;
    let said = fake.run(&["apply", "--wait=5s", "-f", &file]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        said.stdout,
        "AuthorizationPolicy m/edit: accepted (created, 2/2 nodes)\n"
    );
    let (verb, body) = control.asked().pop().unwrap();
    assert_eq!(verb, "apply");
    let wanted = json!({"documents": [{"file": file, "text": POLICY}], "waitMs": 5000, "dryRun": false});
    assert_eq!(body, wanted);
    let said = fake.run(&["apply", "-f", &file, "-o", "json"]).await;
    assert_eq!(said.json(), json!([outcome("accepted", "created", &[])]));
}

#[tokio::test]
async fn apply_of_what_is_broken_is_bad_input() {
    let fake = Fake::new();
    let good = fake.dir.path().join("a.yaml");
    std::fs::write(&good, POLICY).unwrap();
    let why = "a.yaml:7:3: error[MW0302]: `x` is no address";
    let items = [outcome("rejected", "created", &[why])];
    fake.control(Desk::default().answers("apply", Script::items(items)))
        .await;
    let good = good.display().to_string();
    let said = fake.run(&["apply", "-f", &good]).await;
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stdout.ends_with(&format!("{why}\n")), "{said:?}");
    // What is no text never leaves.
    let binary = fake.dir.path().join("b.yaml");
    std::fs::write(&binary, b"\xff\xfe\x00").unwrap();
    let binary = binary.display().to_string();
    let said = fake.run(&["apply", "-f", &binary]).await;
    assert_eq!(said.code, 65, "{said:?}");
    assert!(
        said.stdout.contains("rejected") && said.stdout.contains("UTF-16"),
        "{said:?}"
    );
    let empty = fake.dir.path().join("c.yaml");
    std::fs::write(&empty, "").unwrap();
    let said = fake.run(&["apply", "-f", "/nowhere.yaml"]).await;
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("cannot read `/nowhere.yaml`"), "{said:?}");
}

#[tokio::test]
async fn delete_by_name_and_by_text() {
    let fake = Fake::new();
    let control = fake
        .control(Desk::default().answers("delete", Script::items([outcome("accepted", "deleted", &[])])))
        .await;
    let said = fake.run(&["delete", "ap", "edit", "-n", "m"]).await;
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "AuthorizationPolicy m/edit: deleted (2/2 nodes)\n")
    );
    let (_, body) = control.asked().pop().unwrap();
    assert_eq!(
        body["objects"],
        json!([{"kind": "ap", "namespace": "m", "name": "edit"}])
    );
}

#[tokio::test]
async fn get_prints_what_apply_takes() {
    let fake = Fake::new();
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "edit", "namespace": "m"}, "spec": {"rules": [{"to": [{"operation": {"paths": ["/*"]}}]}]},
    });
    let found = json!({"object": object, "result": "accepted", "why": [], "origin": "a.yaml:1:1"});
    let control = fake
        .control(Desk::default().answers("get", Script::items([found])))
        .await;
    let said = fake.run(&["get", "ap", "-A"]).await;
    assert_eq!(
        said.stdout,
        "NAMESPACE  NAME  ACTION  STATE\nm          edit  ALLOW   accepted\n"
    );
    assert_eq!(
        control.asked().pop().unwrap().1,
        json!({"kind": "ap", "namespace": null, "name": null})
    );
    let said = fake.run(&["get", "ap/edit", "-n", "m", "-o", "yaml"]).await;
    let read = api::parse("printed", said.stdout.as_bytes());
    assert_eq!(read.objects[0].json, object, "{}", said.stdout);
    let said = fake.run(&["get", "ap", "-o", "json"]).await;
    assert_eq!(said.json()["items"], json!([object]));
    assert_eq!(control.asked().pop().unwrap().1["namespace"], "default");
    let said = fake.run(&["get", "ap", "-o", "name"]).await;
    assert_eq!(said.stdout, "authorizationpolicy.security.istio.io/edit\n");
    let said = fake.run(&["get"]).await;
    assert!(said.stdout.contains("security.istio.io/v1"), "{said:?}");
}

#[tokio::test]
async fn the_other_sides_refusal_is_ours() {
    let fake = Fake::new();
    let no = Failure::no("there is no ap `x\u{1b}[2J`");
    fake.control(Desk::default().answers("get", Script::fails(no)))
        .await;
    let said = fake.run(&["get", "ap", "x"]).await;
    assert_eq!(said.code, 1);
    assert_eq!(said.stderr, "error: there is no ap `x\\u{1b}[2J`\n");
}

#[tokio::test]
async fn status_as_text_and_as_one_document() {
    let fake = Fake::new();
    let status = serde_json::to_value(status()).unwrap();
    fake.control(Desk::default().answers("status", Script::ok(status.clone())))
        .await;
    let said = fake.run(&["status"]).await;
    assert!(said.stdout.starts_with("profile secure\n"), "{said:?}");
    assert_eq!(fake.run(&["status", "-o", "json"]).await.json(), status);
}

#[tokio::test]
async fn a_rotation_is_begun_waited_for_and_refused() {
    let fake = Fake::new();
    let mut renewing = crate::inspect::ca::tests::renewing();
    let begun = serde_json::to_value(&renewing).unwrap();
    renewing.stage = "steady".to_owned();
    renewing.waiting_for.clear();
    let over = serde_json::to_value(&renewing).unwrap();
    let desk = Desk::default()
        .answers("rotate", Script::ok(begun.clone()))
        .answers("status", Script::ok(over.clone()));
    let desk = fake.ca(desk).await;
    assert_eq!(fake.run(&["ca", "rotate", "-o", "json"]).await.json(), begun);
    let waited = fake.run(&["ca", "rotate", "--wait", "10s", "-o", "json"]).await;
    assert_eq!((waited.code, waited.json()), (0, over.clone()));
    assert_eq!(
        waited.stderr,
        "renewing: node-0 has 1 certificates of the old root\n"
    );
    assert_eq!(fake.run(&["ca", "status", "-o", "json"]).await.json(), over);
    let verbs: Vec<String> = desk.asked().into_iter().map(|(verb, _)| verb).collect();
    assert_eq!(verbs, ["rotate", "rotate", "status", "status"]);

    let fake = Fake::new();
    let no = Failure::no("a rotation is under way: renewing");
    fake.ca(Desk::default().answers("rotate", Script::fails(no)))
        .await;
    assert_eq!(fake.run(&["ca", "rotate"]).await.code, 1);
}

#[tokio::test]
async fn status_without_the_control_plane_says_what_the_proxies_go_by() {
    let fake = Fake::new();
    fake.nodes(&["node-0"]).await;
    let proxy = json!({
        "node": "node-0", "version": 7, "controlSilentS": 75, "certificates": [], "connections": 0, "drops": {},
        "workloads": {},
    });
    fake.proxy("node-0", Desk::default().answers("proxy", Script::ok(proxy)))
        .await;
    let said = fake.run(&["status"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stdout.contains("node-0  7        not heard of for 75s"),
        "{said:?}"
    );
    assert!(said.stderr.contains("does not answer"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_passes_descriptors_and_the_exit_code() {
    let fake = Fake::new();
    let desk = Desk::default()
        .answers("exec", Script::ok(json!({"code": 7})))
        .with_fds(|fds| {
            assert_eq!(fds.len(), 3);
            // Without -i the command's input is empty, whatever ours is.
            let mut input = String::new();
            File::from(fds[0].try_clone().unwrap())
                .read_to_string(&mut input)
                .unwrap();
            assert_eq!(input, "");
        });
    let up = fake.up(desk).await;
    let said = fake
        .run(&[
            "exec", "-n", "full", "sleep", "-c", "main", "--", "sh", "-c", "exit 7",
        ])
        .await;
    assert_eq!((said.code, said.stderr.as_str()), (7, ""));
    let wanted = json!({
        "namespace": "full", "target": "sleep", "container": "main", "command": ["sh", "-c", "exit 7"], "tty": false,
        "env": {},
    });
    assert_eq!(up.asked().pop().unwrap(), ("exec".to_owned(), wanted));
}

#[tokio::test]
async fn exec_hangs_up_when_it_is_given_up() {
    let fake = Fake::new();
    let script = Script {
        stays: true,
        ..Script::items([])
    };
    let up = fake.up(Desk::default().answers("exec", script)).await;
    let command = fake.run(&["exec", "sleep", "--", "sleep", "1000"]);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), command)
            .await
            .is_err()
    );
    tokio::time::timeout(Duration::from_secs(5), up.hung_up())
        .await
        .unwrap();
}

fn access(time: &str, who: &str) -> Value {
    json!({"text": format!("{time} {who}\u{1b}"), "event": {"time": time, "who": who}})
}

#[tokio::test]
async fn access_logs_of_all_nodes_are_merged() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1"]).await;
    let first = Script::items([
        access("2026-01-01T00:00:01.000Z", "a"),
        access("2026-01-01T00:00:03.000Z", "c"),
    ]);
    let second = Script::items([access("2026-01-01T00:00:02.000Z", "b")]);
    let one = fake
        .proxy("node-0", Desk::default().answers("access", first))
        .await;
    fake.proxy("node-1", Desk::default().answers("access", second))
        .await;
    let said = fake
        .run(&["logs", "-n", "full", "deploy/httpbin", "--denied"])
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let wanted = "2026-01-01T00:00:01.000Z a\\u{1b}\n2026-01-01T00:00:02.000Z b\\u{1b}\n2026-01-01T00:00:03.000Z c\\u{1b}\n";
    assert_eq!(said.stdout, wanted);
    let wanted = json!({"follow": false, "denied": true, "namespace": "full", "workload": "httpbin"});
    assert_eq!(one.asked().pop().unwrap().1, wanted);
    let said = fake.run(&["logs", "--access", "-o", "json", "--tail", "2"]).await;
    let who: Vec<_> = said
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["who"].clone())
        .collect();
    assert_eq!(who, ["b", "c"]);
}

#[tokio::test]
async fn following_prints_what_there_is_in_order_and_then_what_comes() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1"]).await;
    let stays = |items: Vec<Value>| Script {
        stays: true,
        ..Script::items(items)
    };
    let first = stays(vec![
        access("2026-01-01T00:00:02.000Z", "b"),
        access("2026-01-01T00:00:03.000Z", "c"),
    ]);
    let second = stays(vec![access("2026-01-01T00:00:01.000Z", "a")]);
    let one = fake
        .proxy("node-0", Desk::default().answers("access", first))
        .await;
    fake.proxy("node-1", Desk::default().answers("access", second))
        .await;
    let stdout = Kept::default();
    let (kept, wait) = (stdout.clone(), async {
        while stdout.text().lines().count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::select! {
        code = fake.run_to(&["logs", "--access", "-f", "-o", "json"], kept, Kept::default()) => panic!("ended: {code}"),
        waited = tokio::time::timeout(Duration::from_secs(5), wait) => waited.unwrap(),
    }
    let who: Vec<_> = stdout
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["who"].clone())
        .collect();
    assert_eq!(who, ["a", "b", "c"]);
    tokio::time::timeout(Duration::from_secs(5), one.hung_up())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_that_is_silent_does_not_hide_the_others() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1"]).await;
    let items = Script::items([access("2026-01-01T00:00:01.000Z", "a")]);
    fake.proxy("node-0", Desk::default().answers("access", items))
        .await;
    let said = fake.run(&["logs", "--access"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(said.stdout.lines().count(), 1);
    assert!(said.stderr.contains("the proxy of node node-1"), "{said:?}");
}

#[tokio::test]
async fn what_a_pod_printed() {
    let fake = Fake::new();
    let lines = Script::items([json!("one\ttab"), json!("\u{1b}[31mred\r\n")]);
    let up = fake.up(Desk::default().answers("logs", lines)).await;
    let said = fake.run(&["logs", "web", "--tail", "2"]).await;
    assert_eq!(said.stdout, "one\ttab\n\\u{1b}[31mred\n");
    let wanted =
        json!({"namespace": "default", "target": "web", "container": null, "follow": false, "tail": 2});
    assert_eq!(up.asked().pop().unwrap().1, wanted);
    let said = fake.run(&["logs", "web", "-o", "json"]).await;
    assert_eq!(said.json(), json!(["one\ttab", "\u{1b}[31mred\r\n"]));
}

#[tokio::test]
async fn metrics_and_proxies_of_a_node_and_of_all() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1"]).await;
    fake.control(Desk::default().answers("metrics", Script::ok(json!("pilot_xds 2\n# EOF\n"))))
        .await;
    for node in ["node-0", "node-1"] {
        let proxy = json!({
            "node": node, "version": 3, "controlSilentS": null, "certificates": [], "connections": 0, "drops": {},
            "workloads": {},
        });
        let desk = Desk::default()
            .answers(
                "metrics",
                Script::ok(json!(format!("up{{node=\"{node}\"}} 1\n# EOF\n"))),
            )
            .answers("proxy", Script::ok(proxy));
        fake.proxy(node, desk).await;
    }
    let said = fake.run(&["metrics", "node-1"]).await;
    assert_eq!(said.stdout, "up{node=\"node-1\"} 1\n# EOF\n");
    assert_eq!(
        fake.run(&["metrics", "-o", "json"])
            .await
            .json()
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["ca", "control", "node-0", "node-1"]
    );
    let said = fake.run(&["metrics", "control"]).await;
    assert_eq!(said.stdout, "pilot_xds 2\n# EOF\n");
    assert_eq!(
        fake.run(&["proxies", "-o", "json"]).await.json()[1]["node"],
        "node-1"
    );
    let said = fake.run(&["proxies", "node-9"]).await;
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("the nodes are node-0, node-1"), "{said:?}");
}

#[tokio::test]
async fn lint_needs_no_mesh() {
    let fake = Fake::new();
    std::fs::remove_dir_all(fake.dir.path().join("mesh")).unwrap();
    let file = fake.dir.path().join("a.yaml");
    std::fs::write(&file, format!("{POLICY}spec: {{rulez: []}}\n")).unwrap();
    let name = file.display().to_string();
    let said = fake.run(&["lint", &name]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains(&format!("--> {name}:4:8")), "{said:?}");
    assert!(said.stderr.ends_with("in 1 file\n"), "{said:?}");
    let said = fake.run(&["lint", "-f", &name, "-o", "json"]).await;
    assert_eq!(said.json()[0]["line"], 4);
    std::fs::write(&file, format!("{POLICY}spec: {{}}\n")).unwrap();
    let said = fake.run(&["lint", &name]).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
    assert!(
        said.stderr.starts_with("no mistakes in 1 file, 1 object"),
        "{said:?}"
    );
}

/// A reader that is gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_is_gone_is_no_failure() {
    let fake = Fake::new();
    let stderr = Kept::default();
    let code = fake.run_to(&["version"], Closed, stderr.clone()).await;
    assert_eq!((code, stderr.text().as_str()), (0, ""));
}
