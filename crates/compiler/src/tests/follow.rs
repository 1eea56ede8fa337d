//! A compilation that follows the world is the same as one of the world anew, and what it tells of a change is what has changed.
//!
//! Worlds and edits are made of a few names, so that objects meet: they select one another's pods, claim one another's addresses and
//! speak of one another's hosts, in and out of the root namespace.

use proptest::prelude::*;
use snapshot::Delta;

use super::*;

/// One change: which kind of thing, where, which of several, and what becomes of it.
type Edit = (u8, u8, u8, u16);

/// Namespaces; the first two may be the root one.
const NAMESPACES: [&str; 5] = ["istio-system", "root", "a", "a-b", "b"];

/// The world as it is edited: what nobody touches keeps its place in memory.
#[derive(Default)]
struct Editor {
    objects: BTreeMap<(String, String), Arc<Object>>,
    pods: BTreeMap<(String, String), Arc<Pod>>,
    spaces: Spaces,
    dirty: std::collections::BTreeSet<String>,
}

impl Editor {
    fn new() -> Self {
        let mut editor = Self::default();
        editor.spaces.nodes = Arc::new(["n0", "n1", "n2"].map(str::to_owned).into());
        editor.spaces.roots = Arc::new(vec!["ROOT".to_owned()]);
        editor
    }

    fn edit(&mut self, edit: Edit) {
        let (kind, at, which, how) = edit;
        let namespace = NAMESPACES[usize::from(at) % NAMESPACES.len()];
        match kind % 32 {
            0..6 => self.pod(namespace, which % 5, how),
            6 => self.around(how),
            7..9 => self.object("Namespace", namespace, which % 2, how, &[
                "META , labels: {istio-injection: enabled}\n",
                "META , labels: {istio-injection: enabled}, annotations: {meshward.dev/path-dialect: \"collapse\"}\n",
                "META , labels: {istio-injection: disabled, istio.io/rev: x}\n",
                "META , labels: {istio.io/dataplane-mode: ambient}\n",
                "META , annotations: {meshward.dev/path-dialect: \"nonsense\"}\n",
            ]),
            9..13 => self.service(namespace, which % 4, how),
            13 => self.backing(namespace, which % 4, how),
            14..16 => self.object("PeerAuthentication", namespace, which % 3, how, &[
                "spec: {mtls: {mode: STRICT}}",
                "spec: {mtls: {mode: PERMISSIVE}}",
                "spec: {selector: {matchLabels: {app: s0}}, mtls: {mode: DISABLE}, portLevelMtls: {8080: {mode: STRICT}}}",
                "spec: {selector: {matchLabels: {app: s1}}, portLevelMtls: {8080: {mode: DISABLE}}}",
                "META , annotations: {meshward.dev/floor: \"false\"}\nspec: {mtls: {mode: STRICT}}",
                "spec: {selector: {matchLabels: {app: none}}, mtls: {mode: WRONG}}",
            ]),
            16..19 => self.object("AuthorizationPolicy", namespace, which % 4, how, &[
                "spec: {}",
                "spec: {rules: [{}]}",
                "spec: {selector: {matchLabels: {app: s0}}, rules: [{from: [{source: {namespaces: [a]}}]}]}",
                "spec: {action: DENY, selector: {matchLabels: {app: s1}}, rules: [{to: [{operation: {paths: [/x]}}]}]}",
                "spec: {action: CUSTOM, provider: {name: opa}, rules: [{}]}",
                "spec: {action: CUSTOM, provider: {name: nobody}, rules: [{}]}",
                "spec: {rules: [{when: [{key: \"request.auth.claims[a]\", values: [b]}]}]}",
                "spec: {selector: {matchLabels: {app: none}}, action: AUDIT, rules: [{}]}",
                "spec: {action: SIDEWAYS}",
                "spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]}",
            ]),
            19 => self.object("Guardrail", namespace, which % 2, how, &[
                "spec: {namespaces: [a], mtls: {mode: STRICT}}",
                "spec: {namespaces: [\"a*\"], deny: [{to: [{operation: {methods: [DELETE]}}]}]}",
                "spec: {namespaces: [\"*\"], notNamespaces: [b], ceiling: [{from: [{source: {namespaces: [b]}}]}]}",
                "spec: {namespaces: [b], mtls: {mode: PERMISSIVE}, ceiling: [{}]}",
                "spec: {namespaces: 7}",
            ]),
            20 => self.object("RequestAuthentication", namespace, which % 2, how, &[
                "spec: {jwtRules: [{issuer: i, jwks: '{\"keys\":[]}'}]}",
                "spec: {selector: {matchLabels: {app: s0}}, jwtRules: [{issuer: i, jwksUri: \"https://keys\", timeout: 2s}]}",
                "spec: {jwtRules: [{issuer: i, jwksUri: \"http://keys\"}]}",
                "spec: {selector: {matchLabels: {app: none}}, jwtRules: [{issuer: \"https://i\"}]}",
                "spec: {jwtRules: [{issuer: i, presence: REQUIRED}]}",
            ]),
            21..23 => self.object("DestinationRule", namespace, which % 3, how, &[
                "spec: {host: s0, trafficPolicy: {tls: {mode: DISABLE}}}",
                "spec: {host: s0.a.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}",
                "spec: {host: s1.a-b.svc.cluster.local, exportTo: [b, \".\"], trafficPolicy: {tls: {mode: DISABLE}}}",
                "spec: {host: \"*.a.svc.cluster.local\", trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}}",
                "spec: {host: \"*\", trafficPolicy: {tls: {mode: SIMPLE}}}",
                "spec: {host: ext.example.com, trafficPolicy: {tls: {mode: DISABLE}}}",
                "spec: {host: s1, workloadSelector: {matchLabels: {a: b}}}",
                "spec: {host: \"a*b\"}",
            ]),
            23 => self.object("Telemetry", namespace, which % 3, how, &[
                "spec: {tracing: [{providers: [{name: otel}], randomSamplingPercentage: 50}]}",
                "spec: {selector: {matchLabels: {app: s0}}, accessLogging: [{disabled: true}]}",
                "spec: {selector: {matchLabels: {app: none}}, tracing: [{disableSpanReporting: true}]}",
                "spec: {tracing: [{providers: [{name: nobody}]}]}",
                "spec: {metrics: [{}]}",
            ]),
            24..26 => self.object("ServiceEntry", namespace, which % 2, how, &[
                "spec: {hosts: [ext.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.1.0.1}, {address: 192.0.2.1}]}",
                "spec: {hosts: [ext.example.com, other.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: NONE, addresses: [192.0.2.0/24]}",
                "spec: {hosts: [third.example.com], exportTo: [\".\"], ports: [{number: 90, name: t, protocol: TCP}], resolution: STATIC, endpoints: [{address: 10.1.0.2}]}",
                "spec: {hosts: [third.example.com], ports: [{number: 90, name: t, protocol: TCP}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}",
                "spec: {hosts: [dns.example.com], ports: [{number: 90, name: t, protocol: TCP}], resolution: DNS}",
            ]),
            26..28 => self.object("Sidecar", namespace, which % 2, how, &[
                "spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}",
                "spec: {outboundTrafficPolicy: {}, egress: [{hosts: [\"a/*\", \"./*\"]}]}",
                "spec: {workloadSelector: {labels: {app: s0}}}",
                "spec: {egress: [{hosts: [\"wrong\"]}]}",
            ]),
            28 => self.object("Deployment", namespace, which % 2, how, &[
                "spec: {selector: {matchLabels: {app: none}}, template: {metadata: {labels: {app: none}}, spec: {containers: [{name: c, image: i}]}}}",
                "spec: {selector: {matchLabels: {app: s0}}, template: {metadata: {labels: {app: s0}}, spec: {containers: [{name: c, image: i}]}}}",
            ]),
            29 => self.object("NetworkPolicy", namespace, which % 2, how, &[
                "spec: {podSelector: {}}",
                "spec: {podSelector: {}, ingress: []}",
            ]),
            _ => self.object("ConfigMap", "istio-system", which % 2, how, &[
                "data:\n  mesh: |\n    rootNamespace: root\n",
                "data:\n  mesh: |\n    trustDomainAliases: [td2]\n    extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: s0.a.svc.cluster.local, port: 80}}]\n",
                "data:\n  mesh: |\n    extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: ext.example.com, port: 80}}, {name: otel, opentelemetry: {service: b/s1.b.svc.cluster.local, port: 80}}]\n    defaultProviders: {tracing: [otel]}\n",
                "data:\n  mesh: |\n    outboundTrafficPolicy: {mode: ALLOW_ANY}\n    trustDomain: \"!\"\n    connectTimeout: soon\n",
            ]),
        }
    }

    /// Puts one of the texts, takes the object away, or puts a second one of its name.
    fn object(&mut self, kind: &str, namespace: &str, which: u8, how: u16, texts: &[&str]) {
        let name = format!("{}{which}", kind.to_lowercase());
        let of = usize::from(how) % (texts.len() + 2);
        let twin = if how & 0x400 == 0 { "one" } else { "twin" };
        let (place, space) = match kind {
            "Namespace" => (namespace.to_owned(), namespace),
            _ => (format!("{namespace}/{name}"), namespace),
        };
        let key = (format!("{kind} {place} {twin}"), space.to_owned());
        self.dirty.insert(space.to_owned());
        let Some(text) = texts.get(of) else {
            self.objects.remove(&key);
            return;
        };
        let mut scene = istio();
        scene.age = u32::from(how >> 11);
        let scene = scene.object(kind, &place, text);
        let parsed = api::parse(&format!("{twin}.yaml"), scene.yaml.as_bytes());
        match parsed.objects.into_iter().next() {
            Some(object) => self.objects.insert(key, Arc::new(object)),
            None => self.objects.remove(&key),
        };
    }

    fn service(&mut self, namespace: &str, which: u8, how: u16) {
        let app = format!("s{which}");
        let texts = [
            format!("spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}"),
            format!("spec: {{selector: {{app: {app}}}, ports: [{{name: tcp, port: 81, targetPort: 8080}}, {{name: u, port: 82, protocol: UDP}}]}}"),
            format!("spec: {{selector: {{app: {app}}}, clusterIP: 10.96.0.1{}, ports: [{{name: http, port: 80}}]}}", which % 2),
            format!("spec: {{selector: {{app: {app}}}, clusterIP: 10.96.0.10, ports: [{{name: http, port: 80, targetPort: web}}]}}"),
            format!("spec: {{selector: {{app: {app}}}, clusterIP: None, ports: [{{name: http, port: 80}}]}}"),
            "spec: {ports: [{name: http, port: 80}]}".to_owned(),
            "META , annotations: {meshward.dev/path-dialect: \"nonsense\"}\nspec: {ports: [{name: tcp, port: 80}]}".to_owned(),
            "spec: {type: ExternalName, externalName: ext.example.com}".to_owned(),
            format!("spec: {{selector: {{app: none, x: {app}}}, clusterIP: 9.9.9.9, ports: [{{name: http, port: 80}}]}}"),
        ];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.named("Service", namespace, &app, how, &texts);
    }

    fn named(&mut self, kind: &str, namespace: &str, name: &str, how: u16, texts: &[&str]) {
        let key = (format!("{kind} {namespace}/{name}"), namespace.to_owned());
        self.dirty.insert(namespace.to_owned());
        let Some(text) = texts.get(usize::from(how) % (texts.len() + 2)) else {
            self.objects.remove(&key);
            return;
        };
        let mut scene = istio();
        scene.age = u32::from(how >> 11);
        let scene = scene.object(kind, &format!("{namespace}/{name}"), text);
        let parsed = api::parse("named.yaml", scene.yaml.as_bytes());
        if let Some(object) = parsed.objects.into_iter().next() {
            self.objects.insert(key, Arc::new(object));
        }
    }

    /// Addresses that somebody lists for a Service: of pods here and elsewhere, and others.
    fn backing(&mut self, namespace: &str, which: u8, how: u16) {
        let name = format!("s{which}");
        self.named("Endpoints", namespace, &name, how, &[
            "subsets: [{addresses: [{ip: 10.1.0.1}, {ip: 10.1.0.4}], ports: [{name: http, port: 8080}]}]",
            "subsets: [{addresses: [{ip: 10.1.0.2}], notReadyAddresses: [{ip: 192.0.2.9}], ports: [{name: tcp, port: 8080}, {name: http, port: 9}]}]",
            "subsets: [{addresses: [{ip: 127.0.0.1}, {ip: 10.1.0.3}], ports: [{name: http, port: 80}]}]",
        ]);
    }

    fn pod(&mut self, namespace: &str, which: u8, how: u16) {
        let name = format!("p{which}");
        self.dirty.insert(namespace.to_owned());
        let key = (namespace.to_owned(), name.clone());
        if how.is_multiple_of(5) {
            self.pods.remove(&key);
            return;
        }
        let mut pod = Pod::default();
        pod.metadata.name.clone_from(&name);
        pod.metadata.namespace = namespace.to_owned();
        pod.metadata.uid = (!how.is_multiple_of(7)).then(|| match how % 11 {
            // Which is wrong, and must not matter to others.
            0 => format!("uid-{name}"),
            _ => format!("uid-{namespace}-{name}-{}", how % 2),
        });
        pod.metadata.labels = labels(&[("app", ["s0", "s1", "s2", "none", "x"][usize::from(how >> 3) % 5])]);
        match (how >> 6) % 5 {
            0 | 1 => drop(
                pod.metadata
                    .labels
                    .insert("sidecar.istio.io/inject".to_owned(), "true".to_owned()),
            ),
            2 => drop(
                pod.metadata
                    .labels
                    .insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned()),
            ),
            _ => {}
        }
        if how & 0x200 != 0 {
            pod.metadata
                .annotations
                .insert("meshward.dev/path-dialect".to_owned(), "decode=2".to_owned());
        }
        pod.spec.node_name = ["n0", "n1", "n2", ""][usize::from(how >> 9) % 4].to_owned();
        pod.spec.service_account_name = ["default", "web", "A!"][usize::from(how >> 5) % 3].to_owned();
        pod.spec.containers = vec![api::Container {
            ports: vec![ContainerPort {
                name: "web".to_owned(),
                container_port: 8080,
                ..ContainerPort::default()
            }],
            ..api::Container::default()
        }];
        pod.status.phase = if how >> 12 == 15 { "Failed" } else { "Running" }.to_owned();
        // Few addresses, so that pods of several namespaces claim one.
        pod.status.pod_ip = format!("10.1.0.{}", (how >> 4) % 7);
        pod.status.set_ready(how & 0x100 == 0);
        self.pods.insert(key, Arc::new(pod));
    }

    /// What is no object.
    fn around(&mut self, how: u16) {
        let spaces = &mut self.spaces;
        match how % 6 {
            0 => spaces.roots = Arc::new(vec![format!("ROOT {}", how >> 8)]),
            1 => spaces.nodes = Arc::new(["n0", "n1"].map(str::to_owned).into()),
            2 => spaces.nodes = Arc::new(["n0", "n1", "n2", "n3"].map(str::to_owned).into()),
            3 => {
                let jwks = Jwks {
                    source: "https://keys".to_owned(),
                    keys: (how & 0x100 == 0).then(|| "{\"keys\":[]}".to_owned()),
                    why: (how & 0x200 == 0).then(|| "it is away".to_owned()),
                };
                spaces.jwks = Arc::new([(jwks.source.clone(), Arc::new(jwks))].into());
            }
            4 => {
                let profile = if how & 0x100 == 0 {
                    Profile::Istio
                } else {
                    Profile::Secure
                };
                let mut options = Options {
                    profile,
                    ..Options::default()
                };
                options.injection.enable_namespaces_by_default = how & 0x200 == 0;
                if how & 0x400 == 0 {
                    options.cluster_domain = "other.local".to_owned();
                }
                spaces.options = Arc::new(options);
            }
            _ => spaces.jwks = Arc::default(),
        }
    }

    /// The world by namespaces, of which those are new that were edited.
    fn spaces(&mut self) -> Spaces {
        for name in std::mem::take(&mut self.dirty) {
            let objects = self.objects.iter().filter(|((_, space), _)| *space == name);
            let objects: Vec<_> = objects.map(|(_, object)| Arc::clone(object)).collect();
            let pods = self.pods.iter().filter(|((space, _), _)| *space == name);
            let pods: Vec<_> = pods.map(|(_, pod)| Arc::clone(pod)).collect();
            if objects.is_empty() && pods.is_empty() {
                self.spaces.by_name.remove(name.as_str());
            } else {
                let space = Space::new(objects, pods);
                self.spaces.by_name.insert(Arc::from(name), Arc::new(space));
            }
        }
        self.spaces.clone()
    }

    fn world(&self) -> World {
        World {
            objects: self.objects.values().cloned().collect(),
            pods: self.pods.values().cloned().collect(),
            nodes: self.spaces.nodes.iter().cloned().collect(),
            roots: self.spaces.roots.to_vec(),
            jwks: self.spaces.jwks.as_ref().clone(),
            options: self.spaces.options.as_ref().clone(),
        }
    }
}

/// What somebody holds who is told of changes alone.
#[derive(Default)]
struct Follower {
    shared: Resources,
    nodes: BTreeMap<String, Resources>,
}

impl Follower {
    fn take(&mut self, touched: Touched) {
        let Touched { shared, nodes, .. } = touched;
        self.shared = self.shared.apply(&shared);
        self.nodes.extend(nodes);
    }
}

fn own(resources: &Resources) -> Resources {
    resources
        .own()
        .map(|(_, resource)| Arc::clone(resource))
        .collect()
}

/// A compilation, and who follows it.
#[derive(Default)]
struct Followed {
    editor: Editor,
    whole: Compilation,
    follower: Follower,
}

impl Followed {
    fn new() -> Self {
        Self {
            editor: Editor::new(),
            ..Self::default()
        }
    }

    /// Follows what was edited, and compares all that can be asked with what comes out of the world anew. Returns the namespaces
    /// that were compiled.
    fn follow(&mut self, why: &str) -> Vec<String> {
        let Self {
            editor,
            whole,
            follower,
        } = self;
        let before = whole.flat();
        let touched = whole.update(editor.spaces());
        let compiled = touched
            .compiled
            .iter()
            .map(|name| name.as_ref().to_owned())
            .collect();
        follower.take(touched);
        let (flat, expect) = (whole.flat(), compile(&editor.world()));
        assert_eq!(flat.effects, expect.effects, "{why}");
        assert_eq!(flat.problems, expect.problems, "{why}");
        assert_eq!(flat.pods, expect.pods, "{why}");
        assert_eq!(flat.shared, expect.shared, "{why}");
        assert_eq!(flat, expect, "{why}");
        assert_eq!(follower.shared, expect.shared, "{why}");
        for (node, resources) in &expect.nodes {
            assert_eq!(follower.nodes[node], own(resources), "{why} {node}");
        }
        for effect in &expect.effects {
            assert_eq!(whole.effect(&effect.object).as_ref(), Some(effect), "{why}");
        }
        let gone = before
            .effects
            .iter()
            .filter(|old| !expect.effects.iter().any(|new| new.object == old.object));
        for gone in gone {
            assert_eq!(whole.effect(&gone.object), None, "{why}");
        }
        for object in expect
            .problems
            .iter()
            .filter_map(|problem| problem.object.as_ref())
        {
            let about = expect
                .problems
                .iter()
                .filter(|problem| problem.object.as_ref() == Some(object));
            let about: Vec<_> = about.cloned().collect();
            assert_eq!(whole.problems_of(object), about, "{why} {object}");
        }
        // Nothing is told where nothing has changed.
        let again = whole.update(editor.spaces());
        assert_eq!(again.shared, Delta::default(), "{why}");
        assert!(again.nodes.is_empty() && again.compiled.is_empty(), "{why}");
        compiled
    }
}

fn check(steps: Vec<Vec<Edit>>) {
    let mut followed = Followed::new();
    for (number, step) in steps.into_iter().enumerate() {
        for edit in &step {
            followed.editor.edit(*edit);
        }
        followed.follow(&format!("step {number}: {step:?}"));
    }
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let first = proptest::collection::vec(any::<Edit>(), 0..60);
    let later = proptest::collection::vec(proptest::collection::vec(any::<Edit>(), 1..4), 1..14);
    (first, later).prop_map(|(first, mut later)| {
        later.insert(0, first);
        later
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_world_that_is_followed_compiles_as_it_does_anew(steps in edits()) {
        check(steps);
    }
}

/// A mesh of two namespaces, with a pod and a Service each, and one that has nothing to do with them.
fn two() -> Followed {
    let mut followed = Followed::new();
    for (number, namespace) in ["a", "b", "c"].into_iter().enumerate() {
        followed.put(
            "Namespace",
            namespace,
            "META , labels: {istio-injection: enabled}\n",
        );
        followed.put(
            "Service",
            &format!("{namespace}/web"),
            "spec: {selector: {app: web}, ports: [{name: http, port: 80}]}",
        );
        followed.pod(namespace, "web", &format!("10.1.0.{number}"));
    }
    followed.put(
        "ConfigMap",
        "istio-system/istio",
        "data:\n  mesh: |\n    extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: opa.a.svc.cluster.local, port: 80}}]\n",
    );
    followed.follow("first");
    followed
}

impl Followed {
    fn put(&mut self, kind: &str, place: &str, rest: &str) {
        let mut scene = istio();
        scene.age = u32::try_from(self.editor.objects.len()).unwrap();
        let scene = scene.object(kind, place, rest);
        let object = api::parse("put.yaml", scene.yaml.as_bytes()).objects.remove(0);
        let space = Space::of(&object).to_owned();
        self.editor.dirty.insert(space.clone());
        self.editor
            .objects
            .insert((format!("{kind} {place}"), space), Arc::new(object));
    }

    fn take(&mut self, kind: &str, place: &str) {
        let space = place.split_once('/').map_or(place, |(space, _)| space);
        self.editor.dirty.insert(space.to_owned());
        let key = (format!("{kind} {place}"), space.to_owned());
        assert!(self.editor.objects.remove(&key).is_some(), "{kind} {place}");
    }

    fn pod(&mut self, namespace: &str, app: &str, ip: &str) {
        let mut pod = Pod::default();
        pod.metadata.name = format!("{app}-{ip}");
        pod.metadata.namespace = namespace.to_owned();
        pod.metadata.labels = labels(&[("app", app)]);
        pod.spec.node_name = "n0".to_owned();
        pod.status.pod_ip = ip.to_owned();
        pod.status.set_ready(true);
        self.editor.dirty.insert(namespace.to_owned());
        let key = (namespace.to_owned(), pod.metadata.name.clone());
        self.editor.pods.insert(key, Arc::new(pod));
    }

    /// One more change, and which namespaces it has to compile again.
    fn then(&mut self, kind: &str, place: &str, rest: &str, expect: &[&str]) {
        self.put(kind, place, rest);
        assert_eq!(self.follow(&format!("{kind} {place}")), expect, "{kind} {place}");
    }

    fn without(&mut self, kind: &str, place: &str, expect: &[&str]) {
        self.take(kind, place);
        assert_eq!(
            self.follow(&format!("without {kind} {place}")),
            expect,
            "without {kind} {place}"
        );
    }
}

const ALL: &[&str] = &["a", "b", "c", "istio-system"];

#[test]
fn what_concerns_one_namespace_compiles_no_other() {
    let mut mesh = two();
    mesh.then("AuthorizationPolicy", "a/p", "spec: {rules: [{}]}", &["a"]);
    mesh.then(
        "PeerAuthentication",
        "a/p",
        "spec: {mtls: {mode: PERMISSIVE}}",
        &["a"],
    );
    mesh.then(
        "Service",
        "b/more",
        "spec: {selector: {app: web}, ports: [{port: 81}]}",
        &["b"],
    );
    mesh.pod("c", "web", "10.1.0.9");
    assert_eq!(mesh.follow("a pod"), ["c"]);
    mesh.then(
        "Namespace",
        "b",
        "META , labels: {istio-injection: disabled}\n",
        &["b"],
    );
    mesh.then(
        "Deployment",
        "istio-system/d",
        "spec: {selector: {matchLabels: {app: d}}, template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, image: i}]}}}",
        &["istio-system"],
    );
    mesh.without("AuthorizationPolicy", "a/p", &["a"]);
}

#[test]
fn what_counts_everywhere_compiles_all() {
    let mut mesh = two();
    mesh.then("AuthorizationPolicy", "istio-system/p", "spec: {}", ALL);
    mesh.then(
        "Guardrail",
        "istio-system/g",
        "spec: {namespaces: [\"*\"], mtls: {mode: STRICT}}",
        ALL,
    );
    mesh.then(
        "ConfigMap",
        "istio-system/istio",
        "data:\n  mesh: |\n    rootNamespace: a\n",
        ALL,
    );
    mesh.then(
        "AuthorizationPolicy",
        "istio-system/p",
        "spec: {rules: [{}]}",
        &["istio-system"],
    );
    mesh.then("AuthorizationPolicy", "a/p", "spec: {rules: [{}]}", ALL);
    // What every proxy has, and nothing is compiled from.
    mesh.then(
        "Sidecar",
        "b/s",
        "spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}",
        &["b"],
    );
}

#[test]
fn a_rule_compiles_the_namespaces_of_its_hosts_and_a_host_those_of_its_rules() {
    let mut mesh = two();
    let to = |host: &str| format!("spec: {{host: {host}, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}");
    mesh.then(
        "DestinationRule",
        "c/r",
        &to("web.a.svc.cluster.local"),
        &["a", "c"],
    );
    mesh.then(
        "DestinationRule",
        "c/r",
        &to("new.b.svc.cluster.local"),
        &["a", "c"],
    );
    mesh.then(
        "Service",
        "b/new",
        "spec: {selector: {app: web}, ports: [{port: 82}]}",
        &["b", "c"],
    );
    mesh.without("Service", "b/new", &["b", "c"]);
    mesh.without("DestinationRule", "c/r", &["c"]);
}

#[test]
fn a_listed_address_ties_namespaces_together() {
    let mut mesh = two();
    mesh.then(
        "Service",
        "b/list",
        "spec: {ports: [{name: http, port: 80}]}",
        &["b"],
    );
    let list =
        |ip: &str| format!("subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{name: http, port: 8080}}]}}]");
    // The pod in `a` is told which port the Service in `b` ends at.
    mesh.then("Endpoints", "b/list", &list("10.1.0.0"), &["a", "b"]);
    mesh.then(
        "PeerAuthentication",
        "a/p",
        "spec: {mtls: {mode: PERMISSIVE}}",
        &["a", "b"],
    );
    mesh.then("Endpoints", "b/list", &list("10.1.0.7"), &["a", "b"]);
    // What was nobody's becomes a pod's, which the Service hears of, and then another one's.
    mesh.pod("c", "new", "10.1.0.7");
    assert_eq!(mesh.follow("a pod at a listed address"), ["b", "c"]);
    mesh.pod("a", "new", "10.1.0.7");
    assert_eq!(mesh.follow("an earlier one"), ["a", "b", "c"]);
    mesh.take("Service", "b/list");
    mesh.take("Endpoints", "b/list");
    assert_eq!(mesh.follow("the list is gone"), ["a", "b"]);
}

#[test]
fn a_provider_that_can_be_asked_or_no_more_compiles_all() {
    let mut mesh = two();
    mesh.then(
        "AuthorizationPolicy",
        "b/custom",
        "spec: {action: CUSTOM, provider: {name: opa}, rules: [{}]}",
        &["b"],
    );
    let port = |port: u16| format!("spec: {{selector: {{app: opa}}, ports: [{{name: grpc, port: {port}}}]}}");
    mesh.then("Service", "a/opa", &port(80), ALL);
    mesh.then("Service", "a/opa", &port(81), ALL);
    mesh.then("Service", "a/other", &port(81), &["a"]);
}

#[test]
fn what_was_tried_of_a_policy_is_tried_again_when_the_settings_are_others() {
    let mut mesh = two();
    let source = |kind: &str, domain: &str| {
        format!("{kind}: [{{from: [{{source: {{principals: [\"{domain}/ns/a/sa/w\"]}}}}]}}]")
    };
    mesh.put(
        "Guardrail",
        "istio-system/g",
        &format!(
            "spec: {{namespaces: [\"*\"], {}}}",
            source("ceiling", "cluster.local")
        ),
    );
    mesh.put(
        "AuthorizationPolicy",
        "b/p",
        &format!("spec: {{{}}}", source("rules", "td2")),
    );
    mesh.follow("a policy beyond a ceiling");
    let why = |mesh: &Followed| {
        let reference =
            mesh.editor.objects[&("AuthorizationPolicy b/p".to_owned(), "b".to_owned())].reference();
        mesh.whole.effect(&reference).unwrap().why
    };
    assert_eq!(why(&mesh).len(), 1, "{:?}", why(&mesh));
    mesh.then(
        "ConfigMap",
        "istio-system/istio",
        "data:\n  mesh: |\n    trustDomainAliases: [td2]\n",
        ALL,
    );
    assert_eq!(why(&mesh).len(), 0, "{:?}", why(&mesh));
}

#[test]
fn a_selector_of_the_root_namespace_is_told_when_it_finds_nothing_more() {
    let mut mesh = two();
    mesh.then(
        "PeerAuthentication",
        "istio-system/p",
        "spec: {selector: {matchLabels: {app: late}}, mtls: {mode: STRICT}}",
        ALL,
    );
    let told = |mesh: &Followed| {
        mesh.whole
            .problems()
            .iter()
            .any(|problem| problem.code == "IST0127")
    };
    mesh.editor.spaces.options = Arc::new(Options::default());
    mesh.follow("the secure profile");
    assert!(told(&mesh));
    mesh.pod("c", "late", "10.1.0.8");
    assert_eq!(mesh.follow("it comes"), ["c", "istio-system"]);
    assert!(!told(&mesh));
}
