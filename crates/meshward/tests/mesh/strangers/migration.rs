//! A trust domain that moves (5.1, 2.15): while the old one is an alias, whoever proves it calls and is called; before and after,
//! nobody does, on connections that are new or old.

use std::time::Duration;

use testkit::mesh::within;

use super::certificate::{Forged, Signer, forge};
use super::{World, only, peer_authentication};

const HOUR: i64 = 3600;
/// The stranger, as it was named before the mesh moved.
const OLD: &[&str] = &["spiffe://old.example/ns/legacy/sa/sidecar"];

fn aliases(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    trustDomainAliases: [{text}]\n"
    )
}

#[test]
fn an_alias_of_the_trust_domain_is_believed_both_ways_while_it_is_one() {
    let Some(world) = World::start("migration") else {
        return;
    };
    world.mesh.apply(&peer_authentication("STRICT"));
    world.mesh.apply(&only("cluster.local/ns/legacy/sa/sidecar"));
    let forged = Forged {
        signer: Signer::Mesh,
        uris: OLD,
        valid: (-HOUR, HOUR),
    };
    let certificate = forge(&world.mesh, forged, &world.directory.path().join("old"));
    let _envoy = world.sidecar(true, &certificate, None);
    let called = || {
        world
            .mesh
            .curl("m", "client", &["http://sidecar.legacy:8000/"])
            .code
    };
    let calls = || {
        world
            .mesh
            .curl("legacy", "sidecar", &["http://127.0.0.1:28000/"])
            .code
    };
    let refused = |code: i64| code == 503;
    assert!(
        refused(called().into()) && refused(calls().into()),
        "{} {}",
        called(),
        calls()
    );
    let log = world.mesh.access_log();
    for reporter in ["source", "destination"] {
        let line = log
            .iter()
            .rfind(|l| l["reporter"] == reporter && l["reason"] == "PEER_IDENTITY");
        let line = line.unwrap_or_else(|| panic!("{reporter}: {:#?}", log.last()));
        assert!(line.to_string().contains("old.example"), "{line:#}");
    }

    // From the moment that the alias is in force nothing fails, and policy that names the mesh's own trust domain holds for it.
    world.mesh.apply(&aliases("old.example"));
    for _ in 0..20 {
        assert_eq!((called(), calls()), (200, 200));
    }
    let seen = world.mesh.access_log();
    let by = |reporter: &str, side: &str| {
        let line = seen
            .iter()
            .rfind(|l| l["reporter"] == reporter && l["decision"] == "allow");
        line.unwrap()[side]["principal"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(by("destination", "source"), OLD[0]);
    // And for no other account of it.
    world.mesh.apply(&only("cluster.local/ns/m/sa/client"));
    assert_eq!(calls(), 403);
    world.mesh.apply(&only("cluster.local/ns/legacy/sa/sidecar"));
    assert_eq!(calls(), 200);

    // When it ends it ends for connections that are there, too: the stranger's proxy keeps its own.
    world.mesh.apply(&aliases("another.example"));
    within(Duration::from_secs(20), "the alias has ended both ways", || {
        called() != 200 && calls() != 200
    });
    for _ in 0..5 {
        assert!(called() != 200 && calls() != 200, "it does not come back");
    }
}
