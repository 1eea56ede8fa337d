//! What is tested, each with a mesh of its own.

use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::mesh::{Mesh, ask, exec};

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("a_life", a_life),
    ("kill_9_of_up_leaves_nothing_that_down_does_not_find", kill_up),
    ("kill_9_of_a_part_or_a_pod_is_survived", kill_part),
    ("up_clears_remains_and_refuses_to_start_twice", twice),
    ("edits_are_followed", edits),
    ("containers_have_what_they_ask_for_and_no_more", rights),
    ("a_caller_that_hangs_up_ends_its_command", hang_up),
    ("what_cannot_run_is_said", cannot_run),
    ("jobs_and_init_containers_run_to_their_end", jobs),
    ("sigint_takes_everything_down", sigint),
    ("rootless", rootless),
];

/// As `cargo test` does: names that contain one of the words, all without.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let mut failed = 0;
    for (name, case) in CASES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if words.iter().any(|word| word == "--list") {
            println!("{name}: test");
            continue;
        }
        if !rustix::process::geteuid().is_root() {
            println!("test {name} ... skipped: needs root");
            continue;
        }
        let since = std::time::Instant::now();
        let passed = std::panic::catch_unwind(case).is_ok();
        println!(
            "test {name} ... {} ({:.1}s)",
            if passed { "ok" } else { "FAILED" },
            since.elapsed().as_secs_f64()
        );
        failed += u8::from(!passed);
    }
    ExitCode::from(failed)
}

const NAMESPACE: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, labels: {istio-injection: enabled}}\n---\n";

fn web(replicas: u32, version: &str) -> String {
    format!(
        "{NAMESPACE}apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: ns}}\n\
         spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n\
         \x20   metadata: {{labels: {{app: web, version: {version}}}}}\n    spec:\n      containers:\n\
         \x20     - {{name: c, image: x/httpbin, ports: [{{containerPort: 8080}}]}}\n---\n"
    )
}

fn pod(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns}}\nspec:\n\
         \x20 containers:\n  - name: c\n    image: curl\n{more}---\n"
    )
}

fn a_life() {
    let plain = "apiVersion: v1\nkind: Pod\nmetadata: {name: out, namespace: ns, labels: {sidecar.istio.io/inject: \"false\"}}\n\
                 spec: {containers: [{name: c, image: sleep}]}\n";
    let mut mesh = Mesh::new("t-life", &format!("{}{}{plain}", web(3, "v1"), pod("tool", "")));
    mesh.up();
    let rows = mesh.ps();
    assert_eq!(rows.len(), 5);
    assert!(
        rows.iter().all(|row| row.ready && row.phase == "Running"),
        "{rows:?}"
    );
    let nodes = |node: &str| rows.iter().filter(|row| row.node == node).count();
    assert!(nodes("node-0") >= 2 && nodes("node-1") >= 2);
    let tool = mesh.pod("tool", |_| true);
    assert_eq!(
        tool.identity.as_deref(),
        Some("spiffe://cluster.local/ns/ns/sa/default")
    );
    let out = mesh.pod("out", |_| true);
    assert!(!out.in_mesh && out.identity.is_none());
    for row in &rows {
        assert!(std::path::Path::new(&row.netns).exists(), "{}", row.netns);
        assert_ne!(row.ip, None);
        assert_ne!(row.ip6, None);
    }

    assert_eq!(
        mesh.exec("tool", "cat; exit 7", "hello").unwrap(),
        (7, "hello".to_owned())
    );
    assert_eq!(mesh.exec("tool", "kill -KILL $$", "").unwrap().0, 137);
    let (_, resolv) = mesh.exec("tool", "cat /etc/resolv.conf; hostname", "").unwrap();
    assert_eq!(
        resolv,
        "nameserver 10.96.0.10\nnameserver fd77:96::a\n\
         search ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\ntool\n"
    );
    let first = &mesh.pods("web")[0];
    assert_eq!(mesh.logs(&first.name), ["listening on port 8080"]);
    let (_, uid) = mesh
        .exec("deploy/web", "curl -s http://localhost:8080/uuid", "")
        .unwrap();
    assert!(uid.contains("uuid"), "{uid}");

    let reported = mesh.wait("the report", || {
        Some(mesh.reported()).filter(|pods| pods.len() == 5)
    });
    let web: Vec<&Value> = reported
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == "web")
        .collect();
    assert_eq!(web.len(), 3);
    for pod in web {
        let owner = &pod["metadata"]["ownerReferences"][0];
        let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
        assert_eq!(
            (owner["kind"].as_str(), owner["name"].as_str()),
            (Some("ReplicaSet"), Some(&*format!("web-{hash}")))
        );
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["podIPs"].as_array().unwrap().len(), 2);
    }
    mesh.down();
}

fn kill_up() {
    let mut mesh = Mesh::new("t-kill", &web(2, "v1"));
    mesh.up();
    assert_eq!(mesh.namespaces().len(), 5);
    mesh.signal(Signal::KILL);
    mesh.wait("all processes to end", || {
        mesh.processes().is_empty().then_some(())
    });
    assert_eq!(mesh.namespaces().len(), 5);
    mesh.down();
}

fn kill_part() {
    let mut mesh = Mesh::new("t-part", &web(1, "v1"));
    mesh.up();
    for part in ["ca", "control", "proxy-node-0", "proxy-node-1"] {
        let before = mesh.pid(part).unwrap();
        kill(before);
        let after = mesh.wait(part, || mesh.pid(part).filter(|pid| *pid != before));
        assert_ne!(before, after);
        assert!(
            mesh.told()
                .contains(&format!("{part}: ended with exit code 137; starting it again")),
            "{}",
            mesh.told()
        );
    }
    mesh.wait("the report to the new control plane", || {
        let asked = ask(&mesh.run().control_socket(), "reported", Value::Null, Vec::new()).ok()?;
        (asked.as_array()?.len() == 1).then_some(())
    });
    let row = mesh.pod("web", |row| row.ready);
    let netns = capture::Netns::open(std::path::Path::new(&row.netns)).unwrap();
    for pid in inside(&netns) {
        kill(pid);
    }
    let row = mesh.pod("web", |row| row.ready && row.restarts == 1);
    assert_eq!(mesh.logs(&row.name).len(), 2, "both attempts are in the log");
    mesh.down();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// The processes in a network namespace.
fn inside(netns: &capture::Netns) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let wanted = std::fs::metadata(netns.path()).unwrap().ino();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found.ino() == wanted)
    })
    .collect()
}

fn twice() {
    let mut mesh = Mesh::new("t-twice", &web(1, "v1"));
    mesh.up();
    let pid = mesh.pid("up").unwrap();
    let sources = mesh.dir.path().join("sources");
    let second = mesh
        .command(&["up", mesh.name(), sources.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(
        text.contains(&format!("mesh `{}` runs already, process {pid}", mesh.name())),
        "{text}"
    );
    assert!(mesh.info().unwrap().ready);
    let elsewhere = mesh
        .command(&["up", mesh.name(), sources.to_str().unwrap()])
        .env(admin::BASE_VARIABLE, mesh.dir.path().join("elsewhere"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(
        text.contains(&format!(
            "a mesh `{}` runs already, with its files elsewhere",
            mesh.name()
        )),
        "{text}"
    );
    assert!(mesh.info().unwrap().ready);
    mesh.signal(Signal::KILL);
    mesh.up();
    assert!(
        mesh.told()
            .contains("remains of an earlier run: removed 4 network namespaces"),
        "{}",
        mesh.told()
    );
    mesh.down();
}

fn edits() {
    let mut mesh = Mesh::new("t-edits", &web(2, "v1"));
    mesh.up();
    let names = |mesh: &Mesh| -> Vec<String> { mesh.pods("web").into_iter().map(|row| row.name).collect() };
    let old = names(&mesh);
    mesh.write(&web(3, "v1"));
    mesh.wait("a third pod", || {
        (names(&mesh).len() == 3 && mesh.info()?.ready).then_some(())
    });
    assert!(
        old.iter().all(|name| names(&mesh).contains(name)),
        "scaling replaces nothing"
    );
    mesh.write(&web(1, "v2"));
    mesh.wait("the new template", || {
        let now = names(&mesh);
        (now.len() == 1 && !old.contains(&now[0]) && mesh.info()?.ready).then_some(())
    });
    // A namespace that leaves the mesh takes its pods with it.
    mesh.write(&web(1, "v2").replace("labels: {istio-injection: enabled}", "labels: {}"));
    mesh.pod("web", |row| !row.in_mesh && row.ready);
    mesh.write(NAMESPACE);
    mesh.wait("no pods", || mesh.ps().is_empty().then_some(()));
    assert_eq!(mesh.namespaces().len(), 3, "{:?}", mesh.namespaces());
    mesh.down();
}

fn rights() {
    let user = "    securityContext: {runAsUser: 1337, runAsGroup: 1338, capabilities: {add: [NET_ADMIN]}}\n";
    let less = "    securityContext: {capabilities: {drop: [ALL], add: [KILL]}}\n";
    let mut mesh = Mesh::new(
        "t-rights",
        &format!(
            "{NAMESPACE}{}{}{}",
            pod("user", user),
            pod("less", less),
            pod("usual", "")
        ),
    );
    mesh.up();
    let status = |pod: &str, field: &str| {
        let (_, text) = mesh.exec(pod, "cat /proc/self/status", "").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    assert!(status("user", "Uid").starts_with("1337"));
    assert!(status("user", "Gid").starts_with("1338"));
    assert_eq!(status("user", "CapEff"), "0000000000000000");
    assert_eq!(status("less", "CapBnd"), "0000000000000020");
    assert_eq!(status("usual", "CapEff"), "00000000a80425fb");
    assert_eq!(status("usual", "NoNewPrivs"), "1");
    // The mesh's own files and the other namespaces are not there, and no process of anybody else's.
    let base = mesh.dir.path().join("run");
    let script = format!(
        "ls {} /run/netns 2>/dev/null | wc -l; ls -d /proc/[0-9]* | wc -l; umount /run 2>/dev/null || echo kept; \
         (: >> /run/meshward-workload) 2>/dev/null || (: >> /etc/hosts) 2>/dev/null || echo whole",
        base.display()
    );
    let (_, seen) = mesh.exec("usual", &script, "").unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen[0], "1", "only the heading of an empty directory: {seen:?}");
    assert!(seen[1].parse::<u32>().unwrap() <= 5, "{seen:?}");
    assert_eq!(seen[2..], ["kept", "whole"]);
    mesh.down();
}

fn hang_up() {
    let mut mesh = Mesh::new("t-hangup", &format!("{NAMESPACE}{}", pod("tool", "")));
    mesh.up();
    let marker = mesh.dir.path().join("marker").display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let null = || {
        OwnedFd::from(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .unwrap(),
        )
    };
    let body = json!(exec("tool", &format!(": {marker}; sleep 100 & wait")));
    let socket = mesh.run().up_socket();
    let answer = runtime
        .block_on(admin::call(&socket, "exec", body, vec![null(), null(), null()]))
        .unwrap();
    let runs = || mesh.processes().iter().any(|process| process.contains(&marker));
    mesh.wait("the command", || runs().then_some(()));
    drop(answer);
    mesh.wait("its end", || (!runs()).then_some(()));
    mesh.down();
}

fn cannot_run() {
    let objects = format!(
        "{NAMESPACE}{}{}{}{}",
        pod("unknown", "").replace("image: curl", "image: quay.io/a/b:1"),
        pod("account", "").replace("spec:\n", "spec:\n  serviceAccountName: gone\n"),
        pod("config", "    envFrom: [{configMapRef: {name: gone}}]\n"),
        pod("crash", "    command: [sh, -c, exit 3]\n"),
    );
    let mut mesh = Mesh::new("t-cannot", &objects);
    mesh.up_with(&[]);
    let message = |name: &str| mesh.pod(name, |row| !row.message.is_empty());
    let unknown = message("unknown");
    assert_eq!(unknown.phase, "Pending");
    assert_eq!(
        unknown.message,
        "container `c`: image `quay.io/a/b:1` stands for no program on this machine; name one with `--image b=COMMAND`"
    );
    assert_eq!(
        message("account").message,
        "error looking up service account ns/gone: serviceaccount `gone` not found"
    );
    assert_eq!(
        message("config").message,
        "container `c`: configmap `gone` not found"
    );
    let crash = mesh.pod("crash", |row| row.restarts > 1 && row.phase == "CrashLoopBackOff");
    assert_eq!(crash.message, "container `c`: exit code 3");
    assert!(
        mesh.exec("unknown", "true", "")
            .unwrap_err()
            .contains("no process of pod `ns/unknown` runs")
    );
    assert!(
        mesh.exec("nobody", "true", "")
            .unwrap_err()
            .contains("there is no pod or workload `nobody`")
    );
    // What was missing comes.
    let later = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: gone, namespace: ns}\n---\n\
                 apiVersion: v1\nkind: ConfigMap\nmetadata: {name: gone, namespace: ns}\ndata: {A: b}\n---\n";
    mesh.write(&format!("{objects}{later}"));
    assert!(
        mesh.pod("account", |row| row.ready)
            .identity
            .unwrap()
            .ends_with("/sa/gone")
    );
    mesh.pod("config", |row| row.ready);
    assert_eq!(mesh.exec("config", "echo $A", "").unwrap(), (0, "b\n".to_owned()));
    mesh.down();
}

fn jobs() {
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: job, namespace: ns}\nspec:\n  completions: 2\n  template:\n\
               \x20   spec:\n      restartPolicy: Never\n      containers:\n      - {name: c, image: curl, command: [sh, -c, echo done]}\n---\n";
    let init = pod("init", "").replace(
        "spec:\n",
        "spec:\n  initContainers:\n  - {name: first, image: curl, command: [sh, -c, \"test -e /tmp/MARK || { touch /tmp/MARK; exit 1; }\"]}\n",
    );
    let mark = format!("mw-init-{}", std::process::id());
    let mut mesh = Mesh::new(
        "t-jobs",
        &format!("{NAMESPACE}{job}{}", init.replace("MARK", &mark)),
    );
    mesh.up();
    let _ = std::fs::remove_file(std::env::temp_dir().join(&mark));
    let pods = mesh.pods("job");
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|row| row.phase == "Succeeded"), "{pods:?}");
    assert_eq!(mesh.logs(&pods[0].name), ["done"]);
    assert_eq!(
        mesh.pod("init", |row| row.ready).restarts,
        1,
        "an init container is tried again"
    );
    mesh.down();
}

fn sigint() {
    // A container that does not want to end gets some seconds, and a second signal cuts them short.
    let stubborn = pod(
        "stubborn",
        "    command: [sh, -c, \"trap '' TERM; echo up; while :; do sleep 1; done\"]\n",
    );
    let mut mesh = Mesh::new("t-sigint", &format!("{NAMESPACE}{stubborn}"));
    mesh.up();
    mesh.wait("its handler", || (mesh.logs("stubborn") == ["up"]).then_some(()));
    assert_eq!(mesh.signal(Signal::INT), Some(0));
    assert!(
        mesh.told()
            .contains(&format!("taking down mesh `{}`", mesh.name()))
    );
    mesh.nothing_is_left();
}

fn rootless() {
    let nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let probe = Command::new(nobody[0])
        .args(&nobody[1..])
        .args(["unshare", "-Urnm", "mount", "-t", "tmpfs", "tmpfs", "/run"])
        .output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no user namespaces here: {probe:?}");
        return;
    }
    let mut mesh = Mesh::with(
        "t-rootless",
        &format!("{}{}", web(2, "v1"), pod("tool", "")),
        &nobody,
    );
    for dir in ["", "run", "sources"] {
        std::os::unix::fs::chown(mesh.dir.path().join(dir), Some(65_534), Some(65_534)).unwrap();
    }
    let reachable = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg("test")
        .arg("-x")
        .arg(std::env::current_exe().unwrap())
        .status();
    if !reachable.unwrap().success() {
        println!("skipped: another user cannot run this program where it is");
        return;
    }
    mesh.up();
    assert!(mesh.namespaces().is_empty(), "nothing is made outside");
    assert_eq!(mesh.ps().len(), 3);
    let socket = mesh.run().up_socket();
    let body = json!(exec("tool", "cat; id -u; exit 4")).to_string();
    let mut command = mesh.command(&["ask", socket.to_str().unwrap(), "exec", &body]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(4), b"0\n".to_vec()));
    // Root outside is a stranger inside; whether he reads why is a matter of time.
    ask(&socket, "info", Value::Null, Vec::new()).unwrap_err();
    assert_eq!(mesh.signal(Signal::KILL), None);
    mesh.wait("all processes to end", || {
        mesh.processes().is_empty().then_some(())
    });
    mesh.up();
    assert!(
        mesh.told().contains("remains of an earlier run"),
        "{}",
        mesh.told()
    );
    mesh.down();
}
