//! How many decisions a second one core makes of lines of JSON.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a measurement asks the system and says what it heard"
)]

use std::fmt::Write as _;
use std::sync::Arc;

use analysis::{Eval, Offline, Providers};
use compiler::Options;

/// Decisions a second on one core that are asked for.
const WANTED: f64 = 200_000.0;

fn world() -> Offline {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n",
    );
    for number in 0..20 {
        write!(
            text,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: w{number}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: w{number}}}}}\n  template:\n    metadata: {{labels: {{app: w{number}}}}}\n    spec: {{serviceAccountName: w{number}, containers: [{{name: c, image: i}}]}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: w{number}, namespace: shop}}\nspec: {{selector: {{app: w{number}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
             ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{number}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: w{number}}}}}\n  rules:\n  - from: [{{source: {{serviceAccounts: [shop/w1, shop/w2]}}}}]\n    to: [{{operation: {{methods: [GET], paths: [/api/*, /static/*]}}}}]\n  - from: [{{source: {{principals: [\"*/sa/w3\"]}}}}]\n    when: [{{key: \"request.headers[x-tenant]\", values: [acme]}}]\n\
             ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: d{number}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: w{number}}}}}\n  action: DENY\n  rules:\n  - to: [{{operation: {{paths: [/admin*], notMethods: [OPTIONS]}}}}]\n"
        )
        .unwrap();
    }
    let parsed = api::parse("world.yaml", text.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.problems);
    let objects = parsed.objects.into_iter().map(Arc::new).collect();
    Offline::assuming(objects, Vec::new(), Options::default()).unwrap()
}

/// Seconds that this thread has had a core: what others do meanwhile does not count.
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

fn measure(what: &str, to: impl Fn(usize) -> String) -> f64 {
    let mut lines = String::new();
    for n in 0..20_000 {
        let path = ["/api/orders", "/static/a.css", "/admin/users", "/other"][n % 4];
        writeln!(
            lines,
            "{{\"id\":{n},\"from\":{{\"namespace\":\"shop\",\"serviceAccount\":\"w{}\"}},\"sourceIP\":\"10.0.0.7\",\"to\":{{\"namespace\":\"shop\",{},\"port\":80}},\"method\":\"GET\",\"path\":\"{path}\",\"host\":\"w.shop\",\"headers\":{{\"x-tenant\":[\"acme\"]}}}}",
            n % 5,
            to(n % 20),
        )
        .unwrap();
    }
    let mut eval = Eval::new(world(), Providers::new());
    let mut out = Vec::with_capacity(16 * 1024 * 1024);
    eval.lines(lines.as_bytes(), &mut out);
    let begin = on_cpu();
    for _ in 0..10 {
        out.clear();
        eval.lines(lines.as_bytes(), &mut out);
    }
    let rate = 200_000.0 / (on_cpu() - begin);
    println!("{what}: {rate:.0} decisions/s; {:?}", eval.tally());
    rate
}

#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    let service = measure("services", |n| format!("\"service\":\"w{n}\""));
    let workload = measure("workloads", |n| format!("\"workload\":\"w{n}\""));
    let labels = measure("labels", |n| {
        format!("\"labels\":{{\"app\":\"w{n}\",\"version\":\"v1\"}}")
    });
    let least = service.min(workload).min(labels);
    assert!(least >= WANTED, "{least:.0} decisions a second");
}
