//! The commands that explain, against files.

use serde_json::{Value, json};

use super::fake::{Desk, Fake, Said, Script};

const SHOP: &str = include_str!("explain/shop.yaml");

struct Files {
    fake: Fake,
    file: String,
}

fn shop() -> Files {
    let fake = Fake::new();
    let file = fake.dir.path().join("shop.yaml");
    std::fs::write(&file, SHOP).unwrap();
    Files {
        file: file.display().to_string(),
        fake,
    }
}

impl Files {
    /// Runs a command with `-f`; the directory of the file is left out of what it says.
    async fn run(&self, words: &[&str]) -> Said {
        let words: Vec<&str> = words.iter().copied().chain(["-f", &self.file]).collect();
        let mut said = self.fake.run(&words).await;
        let dir = format!("{}/", self.fake.dir.path().display());
        said.stdout = said.stdout.replace(&dir, "");
        said.stderr = said.stderr.replace(&dir, "");
        said
    }
}

/// What people read, kept beside this file.
#[tokio::test(flavor = "multi_thread")]
async fn what_people_read() {
    let shop = shop();
    let mut told = String::new();
    for words in [
        "can-i --from shop/web --to shop/cart:80 --path /items/1",
        "can-i --from shop/web --to shop/cart:80 --path /orders",
        "can-i --from shop/web --to shop/cart --path /items//../admin;x",
        "can-i --from shop/web --to shop/cart --path /admin --plaintext",
        "can-i --from shop/web --to shop/cart --path /admin --profile istio",
        "can-i --from shop/web --to shop/cart --path /items;x=1/2",
        "can-i --from ip:10.1.1.1 --to shop/cart",
        "can-i --from shop/web --to shop/nobody:80",
        "can-i --from shop/web --to shop/cart:81",
        "can-i --from shop/web --to shop/cart:80 --jwt x.y.z",
        "can-i --from a/b --to shop/deploy/cart:8080 --claim role=auditor",
        "can-i --from a/b --to shop/app=other:8080 --tcp",
        "can-i --from a/b --to shop/ext --path /x",
        "can-i --from a/b --to shop/ext --path /x --custom opa=allow",
        "can-i --from a/b --to shop/ext --path /x --custom opa=deny",
        "can-i --from a/b --to shop/both --path /x",
        "can-i --from a/b --to shop/both:80 --path /x",
        "explain policy -n shop cart",
        "explain policy -n shop svc/both",
        "explain policy -n shop nobody",
    ] {
        let list: Vec<&str> = words.split_whitespace().collect();
        let said = shop.run(&list).await;
        told += &format!(
            "$ meshward {words}\n{}{}exit code {}\n\n",
            said.stdout, said.stderr, said.code
        );
    }
    let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/explain/session.txt");
    assert_eq!(testkit::golden::differs(&kept, &told), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_it_where_nothing_is_printed() {
    let shop = shop();
    let base = ["can-i", "-q", "--from", "shop/web", "--to", "shop/cart", "--path"];
    let nobody = [
        "can-i",
        "-q",
        "--from",
        "shop/web",
        "--to",
        "shop/nobody",
        "--path",
    ];
    for (base, path, code) in [(base, "/items", 0), (base, "/other", 1), (nobody, "/other", 2)] {
        let said = shop.run(&[&base[..], &[path]].concat()).await;
        assert_eq!(
            (said.code, said.stdout.as_str(), said.stderr.as_str()),
            (code, "", ""),
            "{path}"
        );
    }
    let broken = shop.fake.dir.path().join("broken.yaml");
    std::fs::write(&broken, "a: [").unwrap();
    let said = shop
        .run(&[&base[..], &["/", "-f", broken.to_str().unwrap()]].concat())
        .await;
    assert_eq!(said.code, 65, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_the_decision_the_rule_and_its_place() {
    let said = shop()
        .run(&[
            "can-i",
            "--from",
            "shop/web",
            "--to",
            "shop/cart",
            "--path",
            "/admin",
            "-o",
            "json",
        ])
        .await;
    let answer = said.json();
    assert_eq!((said.code, &answer["decision"]), (1, &json!("deny")));
    assert_eq!(
        (&answer["code"], &answer["reason"]),
        (&json!(403), &json!("DENY_EXPLICIT"))
    );
    let policy = &answer["policy"];
    assert_eq!(
        policy,
        &json!({"kind": "AuthorizationPolicy", "namespace": "shop", "name": "no-admin", "rule": 0, "file": "shop.yaml", "line": policy["line"]})
    );
    let line = SHOP
        .lines()
        .nth(usize::try_from(policy["line"].as_u64().unwrap()).unwrap() - 1)
        .unwrap();
    assert!(line.contains("/admin*"), "{line}");
    assert_eq!(
        answer["path"],
        json!({"received": "/admin", "normalized": "/admin"})
    );
    let stages: Vec<&str> = answer["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["capture", "tls", "path", "jwt", "deny", "allow", "allow"]
    );
}

fn lines(said: &Said) -> Vec<Value> {
    said.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn eval_answers_each_line_in_order_and_goes_on_after_a_broken_one() {
    let shop = shop();
    let requests = shop.fake.dir.path().join("r.jsonl");
    let text = r#"{"id": "a", "from": {"namespace": "shop", "serviceAccount": "web"}, "to": {"namespace": "shop", "service": "cart", "port": 80}, "method": "GET", "path": "/items"}
{"id": "b", "from": {"namespace": "shop", "serviceAccount": "web"}, "to": {"namespace": "shop", "workload": "cart", "port": 8080}, "method": "POST", "path": "/items"}
{"id": {"c": [1, "\u00e9"]}, "to": {"namespace": "shop", "service": "cart", "port": 80}, "methood": "GET"}
{"id": 4,

{"from": null, "plaintext": true, "to": {"namespace": "elsewhere", "labels": {"app": "x"}, "port": 1}, "sourceIP": "10.0.0.1", "headers": {"A": ["b", "\""]}, "claims": {"iss": "i"}, "sni": "x", "time": 7, "protocol": "http", "remoteIP": "::1", "host": "h"}
"#;
    std::fs::write(&requests, text).unwrap();
    let said = shop
        .run(&["eval", "--requests", requests.to_str().unwrap()])
        .await;
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("2 of the lines cannot be read"), "{said:?}");
    let answers = lines(&said);
    let of = |field: &str| answers.iter().map(|a| a[field].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("id"),
        [
            json!("a"),
            json!("b"),
            json!({"c": [1, "\u{e9}"]}),
            json!(null),
            json!(null)
        ]
    );
    assert_eq!(of("decision"), ["allow", "deny", "unknown", "unknown", "deny"]);
    assert_eq!(of("reason")[..2], ["ALLOW", "DENY_NO_ALLOW"]);
    assert_eq!(of("reason")[4], "PLAINTEXT_REFUSED");
    assert_eq!(
        answers[1]["nearMiss"]["failed"],
        json!(["methods: `POST` is not among `GET`"])
    );
    assert_eq!(answers[0]["nearMiss"], Value::Null);
    for field in ["id", "decision", "code", "reason", "policy", "path", "nearMiss"] {
        assert!(answers.iter().all(|a| a.get(field).is_some()), "{field}");
    }
    let error = answers[2]["error"].as_str().unwrap();
    assert!(
        error.starts_with("line 3 column ") && error.contains("unknown field `methood`"),
        "{error}"
    );
    assert!(
        answers[3]["error"]
            .as_str()
            .unwrap()
            .starts_with("line 4 column "),
        "{answers:?}"
    );
}

#[tokio::test]
async fn eval_does_not_take_policies_and_requests_from_one_stream() {
    let said = Fake::new().run(&["eval", "-f", "-"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (64, ""), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eval_ends_well_where_all_is_decided_and_says_where_something_is_not() {
    let shop = shop();
    let requests = shop.fake.dir.path().join("r.jsonl");
    let line = |more: &str| {
        format!(
            "{{\"to\": {{\"namespace\": \"shop\", \"service\": \"ext\", \"port\": 80}}, \"from\": {{\"namespace\": \"a\", \"serviceAccount\": \"b\"}}, \"path\": \"/x\"{more}}}\n"
        )
    };
    for (text, custom, code, decision) in [
        (line(""), "opa=deny", 0, "deny"),
        (line(""), "opa=allow", 0, "allow"),
        (line(""), "other=allow", 2, "unknown"),
        (line(", \"token\": \"x.y.z\""), "opa=allow", 0, "allow"),
        (
            line(", \"token\": \"x.y.z\", \"claims\": {}"),
            "opa=allow",
            0,
            "allow",
        ),
    ] {
        std::fs::write(&requests, &text).unwrap();
        let said = shop
            .run(&[
                "eval",
                "--custom",
                custom,
                "--requests",
                requests.to_str().unwrap(),
            ])
            .await;
        assert_eq!(
            (said.code, lines(&said)[0]["decision"].as_str()),
            (code, Some(decision)),
            "{custom}: {said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_the_control_plane_is_asked() {
    let fake = Fake::new();
    let answer = json!({
        "id": null, "decision": "deny", "code": 403, "reason": "DENY_DEFAULT", "policy": null,
        "path": {"received": "/", "normalized": "/"}, "nearMiss": null,
    });
    let control = fake
        .control(
            Desk::default()
                .answers("can-i", Script::ok(answer))
                .answers("policy", Script::ok(json!([]))),
        )
        .await;
    let said = fake
        .run(&[
            "can-i", "--from", "a/b", "--to", "c/d:80", "--path", "/", "--custom", "opa=deny",
        ])
        .await;
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (
            1,
            "no: a/b may not GET / of c/d:80\nbecause: DENY_DEFAULT (403)\n"
        )
    );
    let (verb, body) = control.asked().pop().unwrap();
    assert_eq!(verb, "can-i");
    assert_eq!(
        body["question"]["to"],
        json!({"namespace": "c", "service": "d", "port": 80})
    );
    assert_eq!(body["custom"], json!({"opa": "deny"}));
    fake.run(&["explain", "policy", "-n", "c", "d"]).await;
    let (verb, body) = control.asked().pop().unwrap();
    assert_eq!(
        (verb.as_str(), body),
        ("policy", json!({"namespace": "c", "workload": "d", "port": 0}))
    );
}

fn refused(id: &str, time: &str) -> Value {
    json!({
        "id": id, "node": "node-1", "time": time, "port": 8080, "wire": "mutual_tls", "sni": null, "code": 403,
        "source": {"namespace": "shop", "pod": "web-0", "address": "10.0.0.1:5", "principal": "spiffe://cluster.local/ns/shop/sa/web"},
        "destination": {"namespace": "shop", "pod": "cart-0"},
        "reason": "DENY_NO_ALLOW", "policy": null, "readings": [],
        "request": {"method": "GET", "authority": "cart", "received": "/a//b", "normalized": "/a/b", "requestId": "r",
            "headers": [["authorization", "(not shown)"]]},
        "steps": [{"stage": "allow", "said": "shop/cart rule 0 does not match: paths: `/a/b` is not among `/x`\u{1b}", "at": "p.yaml:3"}],
        "nearMiss": {"namespace": "shop", "name": "cart", "rule": 0, "file": "p.yaml", "line": 3, "failed": ["paths: `/a/b` is not among `/x`"]},
    })
}

#[tokio::test]
async fn why_asks_every_node_and_tells_what_was_decided_then() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1", "node-2"]).await;
    let none = || Desk::default().answers("why", Script::items([]));
    fake.proxy("node-0", none()).await;
    let found = [
        refused("abc", "2026-01-01T00:00:00Z"),
        refused("old", "2025-01-01T00:00:00Z"),
    ];
    let proxy = fake
        .proxy("node-1", Desk::default().answers("why", Script::items(found)))
        .await;
    fake.proxy("node-2", none()).await;
    let said = fake.run(&["why", "--last", "-n", "shop", "cart"]).await;
    let wanted = "shop/web-0 was refused GET /a//b of shop/cart-0:8080
because: DENY_NO_ALLOW (403)
closest: AuthorizationPolicy shop/cart rule 0 at p.yaml:3 would allow it, were it not for
  - paths: `/a/b` is not among `/x`

when      2026-01-01T00:00:00Z
decision  abc on node-1
caller    spiffe://cluster.local/ns/shop/sa/web, 10.0.0.1:5, mutual TLS
host      cart
path      /a//b becomes /a/b
header    authorization: (not shown)
allow     shop/cart rule 0 does not match: paths: `/a/b` is not among `/x`\\u{1b} (p.yaml:3)
";
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (0, wanted, "")
    );
    let (_, body) = proxy.asked().pop().unwrap();
    assert_eq!(body, json!({"id": null, "namespace": "shop", "workload": "cart"}));
    let said = fake.run(&["why", "abc", "-o", "json"]).await;
    assert_eq!(said.json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn why_of_what_nobody_refused_is_no_and_of_what_cannot_be_asked_undecided() {
    let fake = Fake::new();
    fake.nodes(&["node-0", "node-1"]).await;
    fake.proxy("node-0", Desk::default().answers("why", Script::items([])))
        .await;
    let said = fake.run(&["why", "abc"]).await;
    assert_eq!(said.code, 2, "{said:?}");
    fake.proxy("node-1", Desk::default().answers("why", Script::items([])))
        .await;
    let said = fake.run(&["why", "abc"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("no proxy keeps a refusal `abc`"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_gives_sarif_and_tells_what_is_wrong_from_what_cannot_be_read() {
    let shop = shop();
    let file = |name: &str, text: &str| {
        let path = shop.fake.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let policy = |path: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec:\n  rules:\n  - to: [{{operation: {{paths: [\"{path}\"]}}}}]\n"
        )
    };
    let wrong = file("wrong.yaml", &policy("/a/../b"));
    let said = shop.fake.run(&["lint", "-f", &wrong, "-o", "sarif"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let document = said.json();
    let results = document["runs"][0]["results"].as_array().unwrap();
    let result = results.iter().find(|r| r["ruleId"] == "MW0701").unwrap();
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&json!("MW0701"), &json!("error"))
    );
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!(
        (&region["startLine"], &region["startColumn"]),
        (&json!(6), &json!(31))
    );
    assert_eq!(result["properties"]["remedy"], "write `/b`");
    let good = file("good.yaml", &policy("/b"));
    let said = shop.fake.run(&["lint", "-f", &good, "-o", "sarif"]).await;
    assert_eq!((said.code, &said.json()["runs"][0]["results"]), (0, &json!([])));
    let unreadable = file("unreadable.yaml", "a: [");
    assert_eq!(shop.fake.run(&["lint", &unreadable, &wrong]).await.code, 65);
}
