//! PeerAuthentication: PA-01 to PA-21, the floor, and what is told.

use super::*;

/// The profile `istio`, a pod `web` in namespace `n`, and what `scene` adds.
fn check(id: &str, scene: impl FnOnce(Scene) -> Scene, expect: &str) {
    let compiled = scene(istio()).pod("n/web", "web").compile();
    assert_eq!(compiled.mtls("web"), expect, "{id}");
}

fn check_secure(id: &str, scene: impl FnOnce(Scene) -> Scene, expect: &str) -> Compiled {
    let compiled = scene(secure()).pod("n/web", "web").compile();
    assert_eq!(compiled.mtls("web"), expect, "{id}");
    compiled
}

const WEB: &str = "selector: {matchLabels: {app: web}}";

fn mode(mode: &str) -> String {
    format!("mtls: {{mode: {mode}}}")
}

#[test]
fn pa_01_to_06_scopes() {
    check("PA-01", |s| s, "PERMISSIVE");
    check("PA-02", |s| s.peer("istio-system/m", &mode("STRICT")), "STRICT");
    check(
        "PA-03",
        |s| {
            s.peer("istio-system/m", &mode("STRICT"))
                .peer("n/p", &mode("PERMISSIVE"))
        },
        "PERMISSIVE",
    );
    check(
        "PA-04",
        |s| {
            s.peer("istio-system/m", &mode("STRICT"))
                .peer("n/p", &mode("UNSET"))
        },
        "STRICT",
    );
    check(
        "PA-05",
        |s| s.peer("istio-system/m", &mode("DISABLE")).peer("n/p", ""),
        "DISABLE",
    );
    check(
        "PA-06",
        |s| s.peer("istio-system/m", &mode("UNSET")),
        "PERMISSIVE",
    );
}

#[test]
fn pa_07_to_09_workload_and_ports() {
    let wl = |rest: &str| format!("{WEB}, {rest}");
    let strict = |s: Scene| s.peer("n/p", &mode("STRICT"));
    check(
        "PA-07",
        |s| strict(s).peer("n/w", &wl(&mode("DISABLE"))),
        "DISABLE",
    );
    check(
        "PA-08",
        |s| {
            strict(s).peer(
                "n/w",
                &wl("mtls: {mode: UNSET}, portLevelMtls: {8080: {mode: DISABLE}}"),
            )
        },
        "8080:DISABLE,*:STRICT",
    );
    let scene = |s| {
        strict(s).peer(
            "n/w",
            &wl("mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: UNSET}}"),
        )
    };
    check("PA-09", scene, "PERMISSIVE");
    let compiled = scene(istio()).pod("n/web", "web").compile();
    let inbound = compiled.workload("web").inbound.unwrap();
    assert_eq!(inbound.port(8080).0, model::MtlsMode::Permissive, "PA-09");
    assert_eq!(
        inbound.ports.len(),
        1,
        "a port that is only named here has an entry of its own"
    );
}

#[test]
fn pa_10_to_13_the_oldest_wins() {
    let two = |first, second| {
        move |s: Scene| {
            s.peer("istio-system/a", &mode(first))
                .peer("istio-system/b", &mode(second))
        }
    };
    check("PA-10", two("STRICT", "PERMISSIVE"), "STRICT");
    check("PA-11", two("PERMISSIVE", "STRICT"), "PERMISSIVE");
    let maps = |s: Scene| {
        s.peer(
            "n/older",
            &format!("{WEB}, mtls: {{mode: PERMISSIVE}}, portLevelMtls: {{80: {{mode: DISABLE}}}}"),
        )
        .peer(
            "n/younger",
            &format!("{WEB}, portLevelMtls: {{90: {{mode: STRICT}}}}"),
        )
    };
    check("PA-12", maps, "80:DISABLE,*:PERMISSIVE");
    let mut same_age = istio()
        .peer("istio-system/b", &mode("STRICT"))
        .peer("istio-system/a", &mode("DISABLE"));
    same_age.yaml = same_age.yaml.replace("00:00:02Z", "00:00:01Z");
    check("PA-13", |_| same_age, "DISABLE");
}

#[test]
fn r38_the_shadowed_object_is_told() {
    let compiled = istio()
        .peer("istio-system/a", &mode("PERMISSIVE"))
        .peer("istio-system/b", &mode("STRICT"))
        .pod("n/web", "web")
        .compile();
    let effect = compiled.effect("PeerAuthentication/istio-system/b");
    assert_eq!(effect.shadowed_by[0].name, "a");
    assert!(effect.targets.is_empty());
    assert_eq!(
        compiled.effect("PeerAuthentication/istio-system/a").targets,
        ["n/web"]
    );
    told(
        &compiled,
        "MW0502",
        "`PeerAuthentication/istio-system/a` is older",
    );
}

#[test]
fn pa_14_to_16_what_selectors_reach() {
    let root = |s: Scene| s.peer("istio-system/r", &format!("{WEB}, {}", mode("STRICT")));
    check("PA-14", root, "PERMISSIVE");
    let compiled = root(istio()).pod("n/web", "web").compile();
    told(&compiled, "MW0501", "no effect under the profile `istio`");
    assert!(!compiled.effect("PeerAuthentication/istio-system/r").in_force);
    check(
        "PA-15",
        |s| s.peer("other/w", &format!("{WEB}, {}", mode("STRICT"))),
        "PERMISSIVE",
    );
    check(
        "PA-16",
        |s| s.peer("n/w", &format!("selector: {{}}, {}", mode("STRICT"))),
        "STRICT",
    );
}

#[test]
fn pa_14_workloads_of_the_root_namespace_know_only_the_mesh_object() {
    let compiled = istio()
        .peer("istio-system/m", &mode("STRICT"))
        .peer("istio-system/r", &format!("{WEB}, {}", mode("DISABLE")))
        .pod("istio-system/web", "web")
        .compile();
    assert_eq!(compiled.mtls("web"), "STRICT");
}

#[test]
fn pa_17_port_keys_are_workload_ports() {
    let compiled = istio()
        .service("n/web", "{name: http, port: 80, targetPort: 8080}")
        .peer("n/w", &format!("{WEB}, portLevelMtls: {{80: {{mode: STRICT}}}}"))
        .pod("n/web", "web")
        .compile();
    let inbound = compiled.workload("web").inbound.unwrap();
    assert_eq!(
        inbound.port(8080),
        (model::MtlsMode::Permissive, model::Protocol::Http),
        "PA-17"
    );
    assert_eq!(
        inbound.port(80),
        (model::MtlsMode::Strict, model::Protocol::Auto),
        "PA-17"
    );
}

#[test]
fn pa_18_19_deletion_and_changed_labels() {
    let older = istio().peer("n/a", &mode("STRICT"));
    let both = older.clone().peer("n/b", &mode("DISABLE"));
    assert_eq!(both.pod("n/web", "web").compile().mtls("web"), "STRICT", "PA-18");
    check("PA-18", |s| s.peer("n/b", &mode("DISABLE")), "DISABLE");
    let labelled = older
        .peer("n/w", &format!("{WEB}, {}", mode("DISABLE")))
        .pod("n/web", "web");
    assert_eq!(labelled.clone().compile().mtls("web"), "DISABLE", "PA-19");
    let changed = labelled.last(|pod| {
        pod.metadata.labels.insert("app".to_owned(), "other".to_owned());
    });
    assert_eq!(changed.compile().mtls("web"), "STRICT", "PA-19");
}

#[test]
fn pa_20_21_undeclared_ports() {
    let wl = |a: &str, b: &str| format!("{WEB}, {}, portLevelMtls: {{9000: {{mode: {b}}}}}", mode(a));
    check(
        "PA-20",
        |s| s.peer("n/w", &wl("STRICT", "PERMISSIVE")),
        "9000:PERMISSIVE,*:STRICT",
    );
    check(
        "PA-21",
        |s| s.peer("n/w", &wl("DISABLE", "STRICT")),
        "9000:STRICT,*:DISABLE",
    );
}

#[test]
fn p1_secure_is_strict_where_nothing_is_said() {
    check_secure("P1", |s| s, "STRICT");
    check_secure("P1", |s| s.peer("istio-system/m", &mode("UNSET")), "STRICT");
    check_secure(
        "a namespace may choose where the root says nothing",
        |s| s.peer("n/p", &mode("PERMISSIVE")),
        "PERMISSIVE",
    );
}

#[test]
fn p19_the_root_is_a_floor() {
    let strict = |s: Scene| s.peer("istio-system/m", &mode("STRICT"));
    let compiled = check_secure(
        "namespace",
        |s| strict(s).peer("n/p", &mode("PERMISSIVE")),
        "STRICT",
    );
    told(
        &compiled,
        "MW0503",
        "PERMISSIVE would weaken STRICT, which `istio-system/m` demands",
    );
    assert_eq!(
        compiled.effect("PeerAuthentication/n/p").why,
        ["PERMISSIVE held to the floor STRICT of `istio-system/m`"]
    );
    let wl = format!("{WEB}, portLevelMtls: {{8080: {{mode: DISABLE}}}}");
    let compiled = check_secure("port", |s| strict(s).peer("n/w", &wl), "STRICT");
    told(&compiled, "MW0503", "DISABLE would weaken STRICT");
    check_secure(
        "raised",
        |s| {
            s.peer("istio-system/m", &mode("PERMISSIVE"))
                .peer("n/p", &mode("STRICT"))
        },
        "STRICT",
    );
    let exempt = "META , annotations: {meshward.dev/floor: \"false\"}\nspec: {mtls: {mode: STRICT}}";
    let compiled = check_secure(
        "exempted",
        |s| {
            s.object("PeerAuthentication", "istio-system/m", exempt)
                .peer("n/p", &mode("PERMISSIVE"))
        },
        "PERMISSIVE",
    );
    assert!(!compiled.problems().iter().any(|p| p.starts_with("MW0503")));
}

#[test]
fn r5_root_selectors_are_honoured_and_are_a_floor() {
    let root = |ports: &str| format!("{WEB}, mtls: {{mode: STRICT}}{ports}");
    let open = |s: Scene| s.peer("istio-system/m", &mode("PERMISSIVE"));
    check_secure("R5", |s| open(s).peer("istio-system/r", &root("")), "STRICT");
    check_secure(
        "R5",
        |s| {
            open(s)
                .peer("istio-system/r", &root(""))
                .peer("n/p", &mode("DISABLE"))
        },
        "STRICT",
    );
    let ports = ", portLevelMtls: {15020: {mode: PERMISSIVE}}";
    check_secure(
        "R5 port",
        |s| open(s).peer("istio-system/r", &root(ports)),
        "15020:PERMISSIVE,*:STRICT",
    );
    let lower = |s| {
        open(s).peer("istio-system/r", &root(ports)).peer(
            "n/w",
            &format!("{WEB}, portLevelMtls: {{15020: {{mode: DISABLE}}}}"),
        )
    };
    check_secure("R5 port floor", lower, "15020:PERMISSIVE,*:STRICT");
}

#[test]
fn a_selector_that_selects_nothing_is_told() {
    let compiled = secure()
        .peer("n/w", &format!("{WEB}, {}", mode("STRICT")))
        .compile();
    told(&compiled, "IST0127", "no pod has the labels `app=web`");
    let made = "spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}";
    let compiled = secure()
        .peer("n/w", &format!("{WEB}, {}", mode("STRICT")))
        .object("Deployment", "n/d", made)
        .compile();
    assert_eq!(
        compiled.problems(),
        Vec::<String>::new(),
        "a Deployment would make such pods"
    );
}

#[test]
fn an_invalid_object_is_strict_for_what_it_selects() {
    let mut world = secure().peer("n/p", &mode("DISABLE")).pod("n/web", "web").world();
    let mut object = world.objects[0].as_ref().clone();
    object.invalid = Some("broken".to_owned());
    world.objects = vec![Arc::new(object)];
    assert_eq!(compile(&world).mtls("web"), "STRICT");
    world.options.profile = Profile::Istio;
    assert_eq!(
        compile(&world).mtls("web"),
        "PERMISSIVE",
        "Istio would not have stored it"
    );
}
