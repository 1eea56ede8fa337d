//! The survey: ways into and out of a mesh, judged by what victims received (semantics 11).

use std::process::Command;

use serde_json::Value;
use testkit::mesh::unavailable;

use crate::world::program;

/// What `lab survey` says under a profile, and its exit code; `None` after saying why where no mesh can run.
fn survey(profile: &str) -> Option<(Vec<Value>, i32)> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    let words = ["lab", "survey", "--profile", profile, "-o", "json"];
    let output = Command::new(program()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let rows: Result<Vec<Value>, _> = serde_json::from_slice(&output.stdout);
    assert!(rows.is_ok(), "{said}");
    Some((rows.unwrap(), output.status.code().unwrap_or(-1)))
}

/// Each attempt works between twins that are not in the mesh: one that could not work would prove nothing.
fn each_has_teeth(rows: &[Value]) {
    let blunt: Vec<_> = rows
        .iter()
        .filter(|row| row["evidence"]["twin"] != true)
        .collect();
    assert!(blunt.is_empty(), "{blunt:#?}");
    assert!(rows.len() > 50, "{}", rows.len());
}

/// Each refusal is told by a line of the log and a counter, or by a sentence that says why there is none.
fn each_refusal_is_told(rows: &[Value]) {
    let silent: Vec<_> = rows
        .iter()
        .filter(|row| row["through"] == false)
        .filter(|row| {
            let has = |what: &str| row["evidence"][what].is_string();
            !(has("note") || has("log") && has("metric"))
        })
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
    // Where no proxy stands between, and where there was an answer and no refusal.
    let noted = rows.iter().filter(|row| row["evidence"]["note"].is_string());
    assert!(noted.count() <= 6, "{rows:#?}");
}

fn row<'a>(rows: &'a [Value], id: &str) -> &'a Value {
    rows.iter().find(|row| row["id"] == id).unwrap()
}

#[test]
fn p_1_to_p_36_nothing_gets_through_under_our_defaults() {
    let Some((rows, code)) = survey("secure") else {
        return;
    };
    let through: Vec<_> = rows.iter().filter(|row| row["through"] != false).collect();
    assert!(through.is_empty(), "{through:#?}");
    assert_eq!(code, 0);
    each_has_teeth(&rows);
    each_refusal_is_told(&rows);
    for row in &rows {
        for field in ["id", "title", "expect", "got"] {
            assert!(
                row[field].as_str().is_some_and(|text| !text.is_empty()),
                "{row:#}"
            );
        }
    }
    let carried = row(&rows, "auto-mtls");
    assert!(
        carried["evidence"]["note"]
            .as_str()
            .unwrap()
            .contains("spiffe://cluster.local/ns/full/sa/sleep"),
        "{carried:#}"
    );
    // P19: the tenant is told.
    let held = row(&rows, "narrower-mode");
    assert!(
        held["evidence"]["status"].as_str().unwrap().contains("floor"),
        "{held:#}"
    );
}

#[test]
fn istios_defaults_let_through_what_istio_does_and_no_more() {
    let Some((rows, code)) = survey("istio") else {
        return;
    };
    each_has_teeth(&rows);
    each_refusal_is_told(&rows);
    assert_eq!(code, 0, "{rows:#?}");
    for row in &rows {
        let lets = row["expect"].as_str().unwrap().starts_with("let through");
        assert_eq!(row["through"], lets, "{row:#}");
    }
    // What Istio lets slip whatever is configured is refused under its defaults too: P16, P25, P30.
    for id in ["udp-in", "registry-only-udp", "registry-only-icmp", "user-1337"] {
        let row = row(&rows, id);
        assert!(
            row["expect"]
                .as_str()
                .unwrap()
                .starts_with("refused, which Istio does not"),
            "{row:#}"
        );
        assert_eq!(row["through"], false, "{row:#}");
    }
    // What its defaults let through, by name: no attempt drops out of this list unseen.
    let through: Vec<_> = rows
        .iter()
        .filter(|row| row["through"] == true)
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        through,
        [
            "no-certificate",
            "no-grant",
            "undeclared-port-mesh",
            "additive-allow",
            "additive-allow-mesh",
            "narrower-mode",
            "narrower-mode-and-allow",
            "merged-slashes",
            "egress-default",
            "fronted-sni",
            "claimed-host",
            "claimed-sni",
            "claimed-nothing",
            "metrics-pages",
            "metrics-pages-mesh",
        ]
    );
}
