//! What the control plane costs: simulated proxies that use the real client over real mutual TLS, and a control plane that is
//! a process of its own.
//!
//!     bench/control/run [--sizes 100,1000,10000] [--rounds 100] [--json FILE] [--markdown FILE]

mod bed;
mod proxies;
mod world;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::{ServiceName, WorkloadUid};
use serde_json::{Value, json};
use snapshot::ResourceName;

use bed::{Bed, until};
use proxies::Proxy;
use world::Size;

/// Services that each proxy talks to.
const USES: usize = 5;
/// Groups of proxies that talk to the same Services.
const GROUPS: usize = 20;
/// How often each change is made, where `--rounds` does not say.
const ROUNDS: usize = 100;
/// How often a change of the whole mesh is.
const MESH_ROUNDS: usize = 5;
/// How long changes of one kind are made, at most: then what was measured counts.
const SERIES: Duration = Duration::from_secs(40);
/// Pods of a node.
const PODS_A_NODE: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, config] = arguments.as_slice()
        && verb == "serve"
    {
        return bed::serve(Path::new(config));
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let sizes = option("--sizes").unwrap_or_else(|| "100,1000,10000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|text| text.parse().unwrap()).collect();
    let rounds = option("--rounds").map_or(ROUNDS, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let results: Vec<Value> = sizes
        .into_iter()
        .map(|pods| {
            let nodes = pods.div_ceil(PODS_A_NODE);
            let result = runtime.block_on(measure(Size { pods, nodes }, rounds));
            eprintln!("{result}");
            result
        })
        .collect();
    let text = serde_json::to_string_pretty(&results).unwrap();
    match option("--json") {
        Some(file) => std::fs::write(file, text).unwrap(),
        None => println!("{text}"),
    }
    if let Some(file) = option("--markdown") {
        std::fs::write(file, markdown(&results)).unwrap();
    }
}

fn question(service: usize) -> ResourceName {
    ResourceName::service(&ServiceName::new(
        &world::namespace(service),
        &world::service(service),
    ))
}

/// The Services that a proxy talks to.
fn uses(proxy: usize, size: Size) -> Vec<usize> {
    (0..USES)
        .map(|n| (proxy % GROUPS * USES + n) % size.services())
        .collect()
}

async fn connect(bed: &Bed, size: Size) -> (Vec<Proxy>, Duration, f64) {
    let (begin, cpu) = (Instant::now(), bed.cpu());
    let proxies: Vec<_> = (0..size.nodes)
        .map(|n| {
            let names: Vec<_> = uses(n, size).into_iter().map(question).collect();
            Proxy::connect(bed, &world::node(n), &names)
        })
        .collect();
    until(|| proxies.iter().all(Proxy::in_sync)).await;
    (proxies, begin.elapsed(), bed.cpu() - cpu)
}

/// Makes a change; returns how long it took until the last of these proxies had what it leads to.
async fn change(name: &ResourceName, at: &[&Proxy], make: impl Future<Output = ()>) -> Duration {
    at.iter().for_each(|proxy| proxy.watch(name));
    let begin = Instant::now();
    make.await;
    until(|| at.iter().all(|proxy| proxy.came(name).is_some())).await;
    let last = at.iter().filter_map(|proxy| proxy.came(name)).max().unwrap();
    last.duration_since(begin)
}

fn percentile(times: &mut [Duration], share: usize) -> f64 {
    times.sort();
    let at = (times.len() * share).div_ceil(100).saturating_sub(1);
    times[at].as_secs_f64() * 1000.0
}

/// Several changes of one kind.
struct Series<'b> {
    bed: &'b Bed,
    times: Vec<Duration>,
    /// Processor time so far, and when it began to count.
    cpu: f64,
    since: f64,
    began: Instant,
}

impl<'b> Series<'b> {
    fn new(what: &str, bed: &'b Bed) -> Self {
        progress(&format!("changes: {what}"));
        Self {
            bed,
            times: Vec::new(),
            cpu: 0.0,
            since: bed.cpu(),
            began: Instant::now(),
        }
    }

    /// What was done until now does not count.
    fn begin(&mut self) {
        self.since = self.bed.cpu();
    }

    /// One more; whether there is time for another one.
    fn add(&mut self, time: Duration) -> bool {
        let cpu = self.bed.cpu();
        self.cpu += cpu - self.since;
        self.since = cpu;
        self.times.push(time);
        self.began.elapsed() < SERIES
    }

    /// Times in milliseconds, processor time of one in seconds.
    fn end(mut self) -> Value {
        let count = self.times.len();
        json!({
            "rounds": count,
            "p50Ms": round(percentile(&mut self.times, 50)),
            "p99Ms": round(percentile(&mut self.times, 99)),
            "cpuS": round(self.cpu / count as f64),
        })
    }
}

/// Says on standard error how far it is.
fn progress(what: &str) {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("{seconds:>4} s  {what}");
}

fn round(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

fn policy(name: &str, namespace: &str, app: Option<&str>) -> String {
    let selector = app.map_or_else(String::new, |app| {
        format!("selector: {{matchLabels: {{app: {app}}}}}, ")
    });
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{selector}action: DENY, rules: [{{to: [{{operation: {{paths: [/{name}]}}}}]}}]}}\n"
    )
}

async fn measure(size: Size, rounds: usize) -> Value {
    progress(&format!("{} pods: a control plane that knows nothing", size.pods));
    let mut bed = Bed::new(size).await;
    bed.start().await;
    progress("its pods");
    bed.call("report", json!({ "pods": world::pods(size) })).await;
    progress("a start with everything there");

    let cpu_before = 0.0;
    let start = bed.start().await;
    let start_cpu = bed.cpu() - cpu_before;
    progress(&format!("{} proxies connect", size.nodes));
    let (proxies, cold, cold_cpu) = connect(&bed, size).await;
    drop(proxies);
    tokio::time::sleep(Duration::from_millis(500)).await;
    progress("and again");
    let (proxies, warm, warm_cpu) = connect(&bed, size).await;
    let sent = proxies[0].bytes.load(Ordering::Relaxed);
    let (resources, held) = proxies[0].holds();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (settled, _) = bed.memory();

    let policies = {
        let mut series = Series::new("policies", &bed);
        for n in 0..rounds {
            // The pods of a Service lie on nodes one after the other; the first of them is waited for.
            let service = n % size.services();
            let node = service * world::PODS_A_SERVICE % size.nodes;
            let name = format!("bench-{n}");
            let resource =
                ResourceName::from(format!("policy/{}/{name}", world::namespace(service)).as_str());
            let text = policy(&name, &world::namespace(service), Some(&world::service(service)));
            if !series.add(change(&resource, &[&proxies[node]], bed.apply(&text)).await) {
                break;
            }
        }
        series.end()
    };
    let endpoints = {
        let mut series = Series::new("endpoints", &bed);
        for n in 0..rounds {
            let service = uses(n % size.nodes, size)[n % USES];
            let using = (0..size.nodes).filter(|proxy| uses(*proxy, size).contains(&service));
            let using: Vec<_> = using.map(|proxy| &proxies[proxy]).collect();
            let name = format!("more-{n}");
            let pod = world::pod_of(&name, size.pods + n, service, &world::node(n % size.nodes));
            let resource = ResourceName::workload(&WorkloadUid::new(&format!("uid-{name}")));
            let report = json!({ "changed": [pod], "gone": [] });
            if !series.add(change(&resource, &using, bed.call("report-change", report)).await) {
                break;
            }
        }
        series.end()
    };
    let services = {
        let mut series = Series::new("services", &bed);
        for n in 0..rounds {
            let (name, namespace) = (format!("new-{n}"), world::namespace(n % size.services()));
            let resource = ResourceName::service(&ServiceName::new(&namespace, &name));
            let asking: Vec<_> = proxies.iter().take(20).collect();
            for proxy in &asking {
                proxy.interest.add(std::slice::from_ref(&resource)).unwrap();
            }
            until(|| asking.iter().all(|proxy| proxy.in_sync())).await;
            series.begin();
            let text = world::service_yaml(&name, &namespace);
            if !series.add(change(&resource, &asking, bed.apply(&text)).await) {
                break;
            }
        }
        series.end()
    };
    let mesh = {
        let mut series = Series::new("mesh-wide changes", &bed);
        let all: Vec<_> = proxies.iter().collect();
        for n in 0..MESH_ROUNDS {
            let name = format!("everywhere-{n}");
            let resource = ResourceName::from(format!("policy/istio-system/{name}").as_str());
            let text = policy(&name, "istio-system", None);
            if !series.add(change(&resource, &all, bed.apply(&text)).await) {
                break;
            }
        }
        series.end()
    };
    let (after, peak) = bed.memory();
    json!({
        "pods": size.pods, "services": size.services(), "proxies": size.nodes,
        "startMs": round(start.as_secs_f64() * 1000.0), "startCpuS": round(start_cpu),
        "connectCold": {"s": round(cold.as_secs_f64()), "cpuS": round(cold_cpu)},
        "connectWarm": {"s": round(warm.as_secs_f64()), "cpuS": round(warm_cpu)},
        "sentToOne": {"bytes": sent, "resources": resources, "bytesHeld": held},
        "residentMiB": {"settled": round(settled), "afterAll": round(after), "peak": round(peak)},
        "policy": policies, "endpoint": endpoints, "service": services, "meshWide": mesh,
    })
}

/// The table for docs/performance.md.
fn markdown(results: &[Value]) -> String {
    let ms = |value: &Value| format!("{:.1} ms", value.as_f64().unwrap_or_default());
    let of_change = |value: &Value| {
        format!(
            "{} / {}, {:.1} CPU ms",
            ms(&value["p50Ms"]),
            ms(&value["p99Ms"]),
            value["cpuS"].as_f64().unwrap_or_default() * 1000.0
        )
    };
    let of_connect = |value: &Value| {
        format!(
            "{:.2} s, {:.2} CPU s",
            value["s"].as_f64().unwrap_or_default(),
            value["cpuS"].as_f64().unwrap_or_default()
        )
    };
    type Row<'a> = (&'a str, Box<dyn Fn(&Value) -> String + 'a>);
    let rows: Vec<Row<'_>> = vec![
        (
            "all proxies connect and are in sync, cold",
            Box::new(|v| of_connect(&v["connectCold"])),
        ),
        ("the same, again", Box::new(|v| of_connect(&v["connectWarm"]))),
        (
            "sent to one proxy that stands before 50 pods and talks to 5 Services",
            Box::new(|v| {
                format!(
                    "{:.1} kB, {} resources",
                    v["sentToOne"]["bytes"].as_f64().unwrap_or_default() / 1000.0,
                    v["sentToOne"]["resources"]
                )
            }),
        ),
        (
            "resident memory settled / after all / peak",
            Box::new(|v| {
                let mib = |key: &str| v["residentMiB"][key].as_f64().unwrap_or_default();
                format!(
                    "{:.0} / {:.0} / {:.0} MiB",
                    mib("settled"),
                    mib("afterAll"),
                    mib("peak")
                )
            }),
        ),
        (
            "start with everything there, to ready",
            Box::new(|v| ms(&v["startMs"])),
        ),
        (
            "a new AuthorizationPolicy for one workload at its proxy, p50 / p99",
            Box::new(|v| of_change(&v["policy"])),
        ),
        (
            "an endpoint added, at all proxies that use the Service, p50 / p99",
            Box::new(|v| of_change(&v["endpoint"])),
        ),
        (
            "a new Service at 20 proxies that had asked for it, p50 / p99",
            Box::new(|v| of_change(&v["service"])),
        ),
        (
            "a mesh-wide change at every proxy, p50 / p99",
            Box::new(|v| of_change(&v["meshWide"])),
        ),
    ];
    let head: Vec<String> = results
        .iter()
        .map(|v| format!("{} pods, {} proxies", v["pods"], v["proxies"]))
        .collect();
    let mut text = format!(
        "| | {} |\n|---|{}\n",
        head.join(" | "),
        "---|".repeat(results.len())
    );
    for (name, cell) in rows {
        let cells: Vec<String> = results.iter().map(&cell).collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    }
    text
}
