use admin::verbs::Desired;
use serde_json::{Value, json};

use super::*;

/// A world that the plan is carried out in at once: what is deleted is gone, what is made is ready unless held back.
struct World {
    objects: Vec<Value>,
    pods: Vec<Seen>,
    born: BTreeMap<OwnerKey, u32>,
    nodes: Vec<String>,
    /// Whether new pods become ready.
    healthy: bool,
}

impl World {
    fn new(objects: Vec<Value>) -> Self {
        Self {
            objects,
            pods: Vec::new(),
            born: BTreeMap::new(),
            nodes: vec!["node-0".to_owned(), "node-1".to_owned()],
            healthy: true,
        }
    }

    fn wanted(&self) -> Wanted {
        let objects = self.objects.clone();
        Wanted::read(&Desired {
            objects,
            ..Desired::default()
        })
    }

    fn plan(&self) -> Plan {
        plan(&self.wanted(), &self.pods, &self.born, &self.nodes)
    }

    /// One step: `(created, deleted)`.
    fn step(&mut self) -> (Vec<String>, Vec<String>) {
        let plan = self.plan();
        let deleted = self.pods.iter().filter(|pod| plan.delete.contains(&pod.uid));
        let deleted: Vec<String> = deleted.map(|pod| pod.name.clone()).collect();
        self.pods.retain(|pod| !plan.delete.contains(&pod.uid));
        let created = plan.create.iter().map(|new| new.name.clone()).collect();
        for new in plan.create {
            self.born.insert(new.owner.clone(), new.sequence + 1);
            self.pods.push(Seen {
                uid: format!("{}/{}/{}", new.name, new.hash, new.sequence),
                name: new.name,
                owner: new.owner,
                hash: new.hash,
                sequence: new.sequence,
                node: new.node,
                ready: self.healthy,
                end: None,
                leaving: false,
            });
        }
        (created, deleted)
    }

    /// Steps until nothing is to be done; the fewest pods that were ready after a step.
    fn settle(&mut self) -> usize {
        let mut least = usize::MAX;
        for _ in 0..50 {
            if self.step() == (Vec::new(), Vec::new()) {
                return least;
            }
            least = least.min(self.pods.iter().filter(|pod| pod.ready).count());
        }
        panic!("it never settles");
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.pods.iter().map(|pod| pod.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn on(&self, node: u8) -> usize {
        self.pods.iter().filter(|pod| pod.node == node).count()
    }
}

fn workload(kind: &str, name: &str, image: &str, more: Value) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    });
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}, "spec": spec})
}

fn job(completions: u32, parallelism: u32, backoff_limit: u32) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "n"},
        "spec": {
            "completions": completions, "parallelism": parallelism, "backoffLimit": backoff_limit,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

fn deployment(image: &str, replicas: u32) -> Value {
    workload("Deployment", "web", image, json!({"replicas": replicas}))
}

#[test]
fn a_deployment_is_spread_scaled_and_taken_away() {
    let mut world = World::new(vec![deployment("a", 4)]);
    world.settle();
    assert_eq!((world.on(0), world.on(1)), (2, 2));
    let first = world.names().first().copied().unwrap().to_owned();
    let mut parts = first.rsplitn(3, '-');
    assert_eq!(parts.next().unwrap().len(), 5, "{first}");
    assert_eq!(parts.next().unwrap().len(), 10, "{first}");
    assert_eq!(parts.next().unwrap(), "web", "{first}");

    world.objects = vec![deployment("a", 1)];
    let (created, deleted) = world.step();
    assert!(created.is_empty());
    assert_eq!(deleted.len(), 3);
    // The oldest stays.
    assert_eq!(world.pods[0].sequence, 0);
    world.objects = vec![deployment("a", 0)];
    world.settle();
    assert!(world.pods.is_empty());
    world.objects = vec![deployment("a", 2)];
    world.settle();
    assert!(
        !world.names().contains(&first.as_str()),
        "a name does not come again"
    );
    world.objects.clear();
    world.settle();
    assert!(world.pods.is_empty());
}

#[test]
fn names_are_the_same_each_time() {
    let names = || {
        let mut world = World::new(vec![deployment("a", 2)]);
        world.settle();
        world.names().join(" ")
    };
    assert_eq!(names(), names());
}

#[test]
fn a_new_template_comes_before_the_old_one_goes() {
    let mut world = World::new(vec![deployment("a", 3)]);
    world.settle();
    let old = world.names().join(" ");
    world.objects = vec![deployment("b", 3)];
    assert!(world.settle() >= 3, "ready pods were missing meanwhile");
    assert_eq!(world.pods.len(), 3);
    assert!(world.names().iter().all(|name| !old.contains(name)));
}

#[test]
fn a_new_template_that_never_is_ready_leaves_the_old_one() {
    let mut world = World::new(vec![deployment("a", 3)]);
    world.settle();
    world.objects = vec![deployment("b", 3)];
    world.healthy = false;
    world.settle();
    assert_eq!(world.pods.iter().filter(|pod| pod.ready).count(), 3);
    // And back: what never was ready goes.
    world.objects = vec![deployment("a", 3)];
    world.settle();
    assert_eq!(world.pods.len(), 3);
    assert!(world.pods.iter().all(|pod| pod.ready));
}

#[test]
fn a_stateful_set_goes_one_by_one() {
    let set = |image: &str, replicas: u32| {
        workload(
            "StatefulSet",
            "db",
            image,
            json!({"replicas": replicas, "serviceName": "db"}),
        )
    };
    let mut world = World::new(vec![set("a", 3)]);
    assert_eq!(world.step().0, ["db-0"]);
    world.pods[0].ready = false;
    assert_eq!(world.step().0, [""; 0]);
    world.pods[0].ready = true;
    assert_eq!(world.step().0, ["db-1"]);
    world.settle();
    assert_eq!(world.names(), ["db-0", "db-1", "db-2"]);
    world.objects = vec![set("b", 3)];
    assert_eq!(world.step().1, ["db-2"]);
    assert_eq!(world.step().0, ["db-2"]);
    assert_eq!(world.step().1, ["db-1"]);
    world.settle();
    world.objects = vec![set("b", 1)];
    world.settle();
    assert_eq!(world.names(), ["db-0"]);
}

#[test]
fn a_daemon_set_is_on_every_node() {
    let set = |image: &str| workload("DaemonSet", "agent", image, json!({}));
    let mut world = World::new(vec![set("a")]);
    world.settle();
    assert_eq!((world.on(0), world.on(1)), (1, 1));
    world.nodes.push("node-2".to_owned());
    world.settle();
    assert_eq!(world.on(2), 1);
    world.objects = vec![set("b")];
    world.settle();
    assert_eq!((world.pods.len(), world.on(0), world.on(1)), (3, 1, 1));
}

#[test]
fn a_job_runs_until_it_is_done_or_given_up() {
    let mut world = World::new(vec![job(3, 2, 1)]);
    assert_eq!(world.step().0.len(), 2);
    assert_eq!(world.step().0.len(), 0);
    world.pods[0].end = Some(End::Succeeded);
    assert_eq!(world.step().0.len(), 1);
    world.pods[1].end = Some(End::Failed);
    assert_eq!(world.step().0.len(), 1, "one failure is below the limit");
    world.pods[2].end = Some(End::Succeeded);
    world.pods[3].end = Some(End::Succeeded);
    assert_eq!(world.step(), (Vec::new(), Vec::new()), "done");

    let mut world = World::new(vec![job(1, 1, 0)]);
    world.step();
    world.pods[0].end = Some(End::Failed);
    assert_eq!(world.step(), (Vec::new(), Vec::new()), "given up");
}

#[test]
fn a_pod_whose_spec_changes_comes_again_under_its_name_when_that_is_free() {
    let pod = |image: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "image": image}]},
        })
    };
    let mut world = World::new(vec![pod("a")]);
    world.settle();
    world.objects = vec![pod("b")];
    let plan = world.plan();
    assert_eq!((plan.create.len(), plan.delete.len()), (0, 1));
    world.pods[0].leaving = true;
    assert_eq!(world.plan(), Plan::default(), "it is on its way out already");
    world.pods.clear();
    assert_eq!(world.step().0, ["one"]);
}

#[test]
fn a_node_is_chosen_by_name_and_selector() {
    let pinned = |spec: Value| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        World::new(vec![pod]).plan()
    };
    assert_eq!(pinned(json!({"nodeName": "node-1"})).create[0].node, 1);
    let selector = json!({"nodeSelector": {"kubernetes.io/hostname": "node-1", "kubernetes.io/os": "linux"}});
    assert_eq!(pinned(selector).create[0].node, 1);
    let nowhere = pinned(json!({"nodeSelector": {"disk": "ssd"}}));
    assert!(nowhere.create.is_empty());
    assert_eq!(
        nowhere.unplaced.values().next().unwrap(),
        "its node name or selector fits no node; there are `node-0`, `node-1`"
    );
}

#[test]
fn a_full_node_gets_no_more() {
    let most = u32::try_from(2 * MAX_PODS).unwrap();
    let mut world = World::new(vec![deployment("a", most + 1)]);
    world.step();
    assert_eq!((world.on(0), world.on(1)), (MAX_PODS, MAX_PODS));
    assert_eq!(world.plan().unplaced.len(), 1);
}

proptest::proptest! {
    /// Whatever was there before, carrying the plan out leads to what is wanted, and then to nothing to be done.
    #[test]
    fn every_world_settles(steps in proptest::collection::vec((0_u32..5, 0_u8..3, proptest::bool::ANY), 1..6)) {
        let mut world = World::new(Vec::new());
        let mut last = 0;
        for (replicas, image, healthy) in steps {
            world.healthy = healthy;
            world.objects = vec![deployment(&format!("i{image}"), replicas)];
            world.settle();
            last = replicas;
        }
        world.healthy = true;
        world.pods.iter_mut().for_each(|pod| pod.ready = true);
        world.settle();
        proptest::prop_assert_eq!(world.pods.len(), usize::try_from(last).unwrap());
    }
}
