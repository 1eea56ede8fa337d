//! One Envoy: a plain listener that takes what the test sends and passes it on with the identity, the address and the name
//! that a header asks for, and listeners that decide, by a route of their own for each case.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::decisions::Request;
use testkit::ports::free_port;

/// What a decision is made of in one case.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub(crate) deny: Option<Value>,
    pub(crate) allow: Option<Value>,
}

/// A way to the listeners that decide; the head says which of them, and by which address.
#[derive(Clone, PartialEq, Debug)]
struct Way {
    peer: Option<String>,
    sni: Option<String>,
    source: IpAddr,
}

#[derive(Debug)]
pub(crate) struct Envoy {
    process: Child,
    front: u16,
    admin: u16,
    ways: Vec<Way>,
    dir: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The program: `MESHWARD_ENVOY`, else what `./test` installs.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MESHWARD_ENVOY") {
        return Some(path.into());
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/envoy/lib");
    let versions = fs::read_dir(lib).ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|path| path.is_file())
}

/// Everything that a caller can vary in.
#[derive(Debug)]
pub(crate) struct Ranges {
    pub(crate) peers: Vec<String>,
    pub(crate) names: Vec<Option<String>>,
    pub(crate) sources: Vec<IpAddr>,
}

impl Ranges {
    fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for source in &self.sources {
            let plain = Way {
                peer: None,
                sni: None,
                source: *source,
            };
            for peer in &self.peers {
                for sni in &self.names {
                    ways.push(Way {
                        peer: Some(peer.clone()),
                        sni: sni.clone(),
                        ..plain.clone()
                    });
                }
            }
            ways.push(plain);
        }
        ways
    }
}

impl Envoy {
    /// Starts one and waits until it answers. `deciding` makes the listeners that decide, from the directory in which
    /// certificates are.
    pub(crate) fn start(
        program: &Path,
        name: &str,
        ranges: &Ranges,
        deciding: impl FnOnce(&Path) -> Vec<Value>,
    ) -> Self {
        let dir = std::env::temp_dir().join(format!("envoy-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        certificates(&dir, &ranges.peers);
        let [front, admin] = [free_port(), free_port()];
        let ways = ranges.ways();
        let clusters: Vec<Value> = (0..)
            .zip(&ways)
            .map(|(at, way)| cluster(at, way, ranges, &dir))
            .collect();
        // In their order they begin to listen: who reaches the last one reaches all.
        let listeners = [deciding(&dir), vec![passing(front, ways.len())]].concat();
        let config = json!({
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        });
        fs::write(dir.join("envoy.json"), config.to_string()).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let process = Command::new(program)
            .args(["--concurrency", "2", "--disable-hot-restart", "-l", "error", "-c"])
            .arg(dir.join("envoy.json"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self {
            process,
            front,
            admin,
            ways,
            dir,
        };
        envoy.wait();
        envoy
    }

    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(900);
        while TcpStream::connect(("127.0.0.1", self.front)).is_err() {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                panic!("Envoy does not come up: {ended:?} {log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn client(&self) -> Client<'_> {
        Client {
            envoy: self,
            stream: None,
        }
    }

    /// The counters whose names begin so, and their values.
    pub(crate) fn counters(&self, prefix: &str) -> Vec<(String, u64)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        let head = format!("GET /stats?filter=^{prefix} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let (head, mut rest) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut lines = String::new();
        // Chunks: a length, and what is so long.
        while let Some((length, tail)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            lines.push_str(&tail[..length]);
            rest = tail[length..].trim_start_matches("\r\n");
        }
        let counter = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        lines.lines().filter_map(counter).collect()
    }

    /// The number of the way that a request takes.
    fn way(&self, request: &Request) -> usize {
        let way = Way {
            peer: request.peer.as_ref().map(ToString::to_string),
            sni: request.sni.clone(),
            source: request.source,
        };
        let known = self.ways.iter().position(|known| *known == way);
        known.unwrap_or_else(|| panic!("no way for {request:?}"))
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.front)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        BufReader::new(stream)
    }

    /// Whether a connection gets to what answers.
    pub(crate) fn reach(&self, request: &Request) -> bool {
        let mut stream = self.connect();
        let head = format!(
            "CONNECT a.com:80 HTTP/1.1\r\nhost: a.com:80\r\nx-way: {}\r\n{}\r\n",
            self.way(request),
            destination(request)
        );
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{request:?}: {line}");
        while line.trim_end() != "" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        // What comes first is what is decided at; fewer bytes could still become TLS (O-05).
        if stream.get_mut().write_all(b"not a handshake").is_err() {
            return false;
        }
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(count) => count == 1,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("{request:?}: nothing comes")
            }
            Err(_) => false,
        }
    }
}

/// The field by which the passing side knows where to go.
fn destination(request: &Request) -> String {
    let to = std::net::SocketAddr::new(request.destination, request.port);
    format!("x-envoy-original-dst-host: {to}\r\n")
}

/// A connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    envoy: &'a Envoy,
    stream: Option<BufReader<TcpStream>>,
}

impl Client<'_> {
    /// The status of the answer.
    pub(crate) fn ask(&mut self, case: usize, request: &Request) -> u16 {
        let way = self.envoy.way(request);
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nx-way: {way}\r\nx-case: {case}\r\nx-forwarded-for: {}\r\ncontent-length: 0\r\n{}",
            request.method,
            request.path,
            request.authority,
            request.remote,
            destination(request)
        );
        for (name, value) in &request.headers.0 {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(claims) = &request.claims {
            head += &format!("x-claims: {}\r\n", STANDARD.encode(protobuf(&claims.0)));
        }
        let stream = self.stream.get_or_insert_with(|| self.envoy.connect());
        stream.get_mut().write_all((head + "\r\n").as_bytes()).unwrap();
        answer(stream)
    }
}

fn answer(stream: &mut BufReader<TcpStream>) -> u16 {
    let mut line = String::new();
    let mut next = |stream: &mut BufReader<TcpStream>| {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no answer");
        line.trim_end().to_ascii_lowercase()
    };
    let status = next(stream).split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        let field = next(stream);
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    status
}

/// `google.protobuf.Value` of a JSON value.
fn protobuf(value: &Value) -> Vec<u8> {
    let field = |number: u8, bytes: Vec<u8>| {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length > 127 {
            out.push(u8::try_from(length & 127).unwrap() | 128);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        out.extend(bytes);
        out
    };
    match value {
        Value::String(text) => field(3, text.as_bytes().to_vec()),
        Value::Bool(yes) => vec![4 << 3, u8::from(*yes)],
        Value::Number(number) => {
            let mut out = vec![2 << 3 | 1];
            out.extend(number.as_f64().unwrap().to_le_bytes());
            out
        }
        Value::Array(list) => field(
            6,
            list.iter().flat_map(|value| field(1, protobuf(value))).collect(),
        ),
        Value::Object(map) => {
            let entry = |(name, value): (&String, &Value)| {
                let pair = [field(1, name.as_bytes().to_vec()), field(2, protobuf(value))];
                field(1, pair.concat())
            };
            field(5, map.iter().flat_map(entry).collect())
        }
        Value::Null => vec![1 << 3, 0],
    }
}

fn certificates(dir: &Path, peers: &[String]) {
    let openssl = |words: &[&str]| {
        let done = Command::new("openssl")
            .args(words)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let make = [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let ca = [
        "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2",
    ];
    openssl(&[&make[..], &ca].concat());
    for (at, name) in std::iter::once("spiffe://server/ns/a/sa/b")
        .chain(peers.iter().map(String::as_str))
        .enumerate()
    {
        let (key, cert) = (format!("{at}.key"), format!("{at}.pem"));
        let san = format!("subjectAltName=URI:{name}");
        let signed = [
            "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", &key, "-out", &cert, "-subj", "/O=x",
            "-days", "2", "-addext", &san,
        ];
        openssl(&[&make[..], &signed].concat());
    }
}

fn tls(dir: &Path, at: usize) -> Value {
    let file = |name: String| json!({"filename": dir.join(name)});
    json!({
        "tls_certificates": [{
            "certificate_chain": file(format!("{at}.pem")),
            "private_key": file(format!("{at}.key")),
        }],
        "validation_context": {"trusted_ca": file("ca.pem".to_owned())},
    })
}

/// Takes requests from the test and passes them on as they are, and what comes through CONNECT as bytes.
fn passing(port: u16, ways: usize) -> Value {
    let way = |at: usize| json!([{"name": "x-way", "string_match": {"exact": at.to_string()}}]);
    let request = |at: usize| {
        json!({
            "match": {"prefix": "/", "headers": way(at)},
            "route": {"cluster": format!("way-{at}"), "timeout": "0s"},
        })
    };
    let bytes = |at: usize| {
        json!({
            "match": {"connect_matcher": {}, "headers": way(at)},
            "route": {
                "cluster": format!("way-{at}"),
                "timeout": "0s",
                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
            },
        })
    };
    let routes: Vec<Value> = (0..ways).map(request).chain((0..ways).map(bytes)).collect();
    let mut manager = manager(&routes, Vec::new());
    manager["typed_config"]["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
    // Else a connection that was refused behind it stays open for a second.
    manager["typed_config"]["delayed_close_timeout"] = json!("0s");
    listener(port, &[json!({"filters": [manager]})], false)
}

/// Decides by the route of each case, with mutual TLS or without.
pub(crate) fn requests(port: u16, cases: &[&Filters], dir: &Path) -> Value {
    let route = |(at, filters): (usize, &&Filters)| {
        let of = |rules: &Option<Value>| {
            let rbac = rules.as_ref().map(|rules| json!({"rules": rules}));
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                "rbac": rbac.unwrap_or_else(|| json!({})),
            })
        };
        json!({
            "match": {"prefix": "/", "headers": [{"name": "x-case", "string_match": {"exact": at.to_string()}}]},
            "direct_response": {"status": 200},
            "typed_per_filter_config": {"deny": of(&filters.deny), "allow": of(&filters.allow)},
        })
    };
    let routes: Vec<Value> = cases.iter().enumerate().map(route).collect();
    let rbac = |name: &str| {
        json!({
            "name": name,
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"},
        })
    };
    let claims = json!({
        "name": "claims",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [{
                "header": "x-claims",
                "on_header_present": {
                    "metadata_namespace": "envoy.filters.http.jwt_authn",
                    "key": "payload",
                    "type": "PROTOBUF_VALUE",
                    "encode": "BASE64",
                },
                "remove": true,
            }],
        },
    });
    chains(
        port,
        &[manager(&routes, vec![claims, rbac("deny"), rbac("allow")])],
        dir,
    )
}

/// Decides connections by network filters, and answers what is sent.
pub(crate) fn connections(port: u16, filters: &[Value], dir: &Path) -> Value {
    let echo = json!({
        "name": "echo",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"},
    });
    chains(port, &[filters, &[echo]].concat(), dir)
}

/// With mutual TLS or without.
fn chains(port: u16, filters: &[Value], dir: &Path) -> Value {
    let mutual = json!({
        "filter_chain_match": {"transport_protocol": "tls"},
        "filters": filters,
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": tls(dir, 0),
            },
        },
    });
    let plain = json!({"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": filters});
    listener(port, &[mutual, plain], true)
}

fn listener(port: u16, chains: &[Value], inspect: bool) -> Value {
    let inspector = json!({
        "name": "inspector",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
    });
    json!({
        "name": format!("listener-{port}"),
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        // A port that another has is an error, not shared with it.
        "enable_reuse_port": false,
        "listener_filters": if inspect { vec![inspector] } else { Vec::new() },
        "filter_chains": chains,
    })
}

fn manager(routes: &[Value], filters: Vec<Value>) -> Value {
    let router = json!({
        "name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let filters = [filters, vec![router]].concat();
    json!({
        "name": "manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "x",
            "normalize_path": false,
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": filters,
        },
    })
}

fn cluster(at: usize, way: &Way, ranges: &Ranges, dir: &Path) -> Value {
    let mut cluster = json!({
        "name": format!("way-{at}"),
        "connect_timeout": "60s",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": true},
        "upstream_bind_config": {"source_address": {"address": way.source, "port_value": 0}},
    });
    if let Some(peer) = &way.peer {
        let certificate = ranges.peers.iter().position(|known| known == peer).unwrap() + 1;
        let mut context = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": tls(dir, certificate),
        });
        if let Some(sni) = &way.sni {
            context["sni"] = json!(sni);
        }
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": context});
    }
    cluster
}
