//! The words: what may be said, and what it comes to. Nothing here does I/O.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use model::Profile;

use crate::ask::args::{CanI, Eval, Explain, Why};
use crate::inspect::ca::Ca;
use crate::inspect::restart::Restart;
use crate::{Ask, Command, Down, MAX_NODES, Part, Soak, Survey, Up};

const CONVENTIONS: &str = "Exit codes: 0 yes, 1 no (denied, findings, not there), 2 could not decide or reach,
64 usage, 65 bad input, 130 interrupted. With -o json there is one JSON document on standard output and nothing else.";

/// A service mesh that reads Istio's and Kubernetes' YAML, on one Linux machine.
#[derive(Parser, Debug)]
#[command(name = "meshward", version, max_term_width = 100, after_help = CONVENTIONS)]
struct Words {
    /// The mesh that is meant.
    #[arg(long, global = true, env = "MESHWARD_NAME", default_value = "default", value_parser = mesh_name)]
    name: String,
    /// When to colour what is printed; NO_COLOR is heeded.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
    #[command(subcommand)]
    verb: Verb,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start a mesh from YAML and stay in front, following the files
    Up(UpWords),
    /// End a mesh, or clear what is left of one
    Down {
        /// Every mesh of this user
        #[arg(long)]
        all: bool,
    },
    /// Try a mesh out: each starts one of its own and ends it
    #[command(subcommand)]
    Lab(LabWords),
    #[command(flatten)]
    Ask(Asked),
    /// Say how the roots of the mesh stand, or replace them
    #[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Ca(CaWords),
    /// Be a control plane
    #[command(hide = true)]
    Control(PartWords),
    /// Be a node's proxy
    #[command(hide = true)]
    Proxy(PartWords),
    /// Be a proxy from files alone, for a machine or a gateway: no control plane, given certificates
    Standalone(PartWords),
    /// Be a built-in workload program
    #[command(hide = true)]
    Workload {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

#[derive(Subcommand, Debug)]
enum LabWords {
    /// Keep a steady load up while everything about the mesh changes, and say what failed
    Soak(SoakWords),
    /// Replay ways into and out of a mesh that surprised people, and say what got through
    Survey(SurveyWords),
}

#[derive(Args, Debug)]
struct SoakWords {
    /// How long all phases take together
    #[arg(long = "for", default_value = "3m", value_name = "DURATION", value_parser = milliseconds)]
    lasts: u64,
    /// Requests of each of the seven kinds a second, of each of two clients
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Services that come at once, with ten endpoints each
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    services: u32,
    /// Draw latencies and failures over time, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Json>,
}

#[derive(Args, Debug)]
struct SurveyWords {
    /// Which defaults are in force: `secure`, or `istio` to see what Istio's let through
    #[arg(long, default_value = "secure", value_name = "PROFILE", value_parser = profile)]
    profile: Profile,
    /// Only attempts whose id contains this
    #[arg(long, default_value = "", value_name = "TEXT")]
    only: String,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Json>,
}

/// What is asked of a running mesh, or done without one.
#[derive(Clone, Subcommand, Debug)]
pub(crate) enum Asked {
    /// List the pods: addresses, identities, mTLS, policies
    Ps(Ps),
    /// Run a command in a pod
    Exec(Exec),
    /// Print what a pod printed, or the access log
    Logs(Logs),
    /// Apply objects, and wait until they are in force
    Apply(Apply),
    /// Delete objects
    Delete(Delete),
    /// Show objects; without arguments the kinds that are known
    Get(Get),
    /// Say what is in force, and why what is not is not
    Status(Status),
    /// Say what runs: nodes, processes, sources
    Info(Plain),
    /// List what every part listens on, and who may reach it
    Ports(Plain),
    /// Say how each node's proxy stands: version, certificates, drops
    #[command(visible_alias = "proxy-status")]
    Proxies(Proxies),
    /// Start parts anew: a proxy is replaced by another one without losing a connection
    Restart(Restart),
    /// Print the metrics of each node's proxy, the control plane and the certificate authority
    Metrics(Metrics),
    /// Show who calls whom, how often, how fast, and what is refused
    Top(Top),
    /// Write a support bundle, without secrets, into a file
    Dump(Dump),
    /// Say whether a caller may do something, and why: in files, or in the running mesh
    CanI(Box<CanI>),
    /// Say why a call was refused
    Why(Why),
    /// Say what a path comes to, or what is in force for a workload
    Explain(Explain),
    /// Decide many requests by policies in files: a JSON object a line, one decision a line
    Eval(Eval),
    /// Look for mistakes in files, without a mesh
    Lint(Lint),
    /// Print the version
    Version(Plain),
    #[command(skip)]
    Ca(Ca),
}

#[derive(Args, Debug)]
struct CaWords {
    /// Be a certificate authority, by this configuration
    #[arg(long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    asked: Option<Ca>,
}

#[derive(Args, Debug)]
struct PartWords {
    /// The part's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct UpWords {
    /// Files or directories with YAML or JSON; `-` is standard input
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// How many nodes; the pods are spread over them
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: u8,
    /// Which defaults are in force: `secure` (mTLS, deny until allowed) or `istio` (Istio's own)
    #[arg(long, default_value = "secure", value_name = "PROFILE", value_parser = profile)]
    profile: Profile,
    /// Return when all is ready, and leave the mesh running
    #[arg(long)]
    detach: bool,
    /// How long until all must be ready
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = milliseconds)]
    wait: u64,
    /// Mutual TLS also between two pods of one node
    #[arg(long)]
    local_tls: bool,
    /// The form of the access log
    #[arg(long, value_enum, default_value_t = LogFormat::Json, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Run a command of this machine for a container image; may be given again
    #[arg(long, value_name = "NAME=COMMAND", value_parser = image)]
    image: Vec<(String, String)>,
    /// How long certificates of workloads live; an hour where not said
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    leaf_lifetime: Option<u64>,
    /// Fetch keys of token issuers also from this network, although it is loopback, link-local or a cloud's metadata; may be
    /// given again
    #[arg(long, value_name = "CIDR")]
    jwks_allow: Vec<model::Cidr>,
    /// A CA that signs instead of one that is made: the files of Istio's secret `cacerts`
    #[arg(long, value_name = "DIR")]
    cacerts: Option<PathBuf>,
    /// Print the table at the end as JSON
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Json>,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

/// The one machine format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Json {
    Json,
}

/// Machine formats of findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Findings {
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// A table, or more of it, or JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Wide {
    Json,
    Wide,
}

/// `ps`.
#[derive(Clone, Args, Debug, Default)]
pub(crate) struct Ps {
    /// One namespace; all where none is said
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Wide>,
    #[arg(skip)]
    pub(crate) json: bool,
}

/// `exec`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Exec {
    /// The namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub(crate) namespace: String,
    /// A pod, a workload, `deploy/NAME`, or the value of the label `app`
    #[arg(value_name = "POD|WORKLOAD")]
    pub(crate) target: String,
    /// The container; the first where none is said
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give the command a terminal; standard input is passed on as well
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The command with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `logs`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Logs {
    /// The namespace; for a pod's output `default`, for the access log all where none is said
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// A pod, a workload, `deploy/NAME`, or the value of the label `app`
    #[arg(value_name = "POD|WORKLOAD", required_unless_present_any = ["access", "denied"])]
    pub(crate) target: Option<String>,
    /// The access log of all nodes' proxies in the order of time
    #[arg(long)]
    pub(crate) access: bool,
    /// The access log, and of it only what was refused
    #[arg(long)]
    pub(crate) denied: bool,
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines from the end; all where not said
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// The container; the first where none is said
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["access", "denied"])]
    pub(crate) container: Option<String>,
    /// The form of what is printed; with -f one JSON document a line
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `apply`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Apply {
    /// A file or directory; `-` is standard input; may be given again
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// How long to wait until every proxy that is concerned has it; `false` does not wait
    #[arg(
        long, value_name = "DURATION", default_value = "60s", value_parser = wait,
        num_args = 0..=1, require_equals = true, default_missing_value = "60s"
    )]
    pub(crate) wait: u64,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `delete`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Delete {
    /// A file or directory whose objects are meant; `-` is standard input; may be given again
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "words")]
    pub(crate) files: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// A kind and names, or `KIND/NAME`
    #[arg(value_name = "KIND NAME", required_unless_present = "files")]
    pub(crate) words: Vec<String>,
    /// The namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub(crate) namespace: String,
    /// How long to wait until every proxy that is concerned has it; `false` does not wait
    #[arg(
        long, value_name = "DURATION", default_value = "60s", value_parser = wait,
        num_args = 0..=1, require_equals = true, default_missing_value = "60s"
    )]
    pub(crate) wait: u64,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `get`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Get {
    /// A kind, its plural or its short name, or `all`; `KIND/NAME` names one object
    pub(crate) kind: Option<String>,
    /// The name of one object
    #[arg(value_name = "OBJECT")]
    pub(crate) object: Option<String>,
    /// The namespace; `default` where none is said
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<GetFormat>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum GetFormat {
    Json,
    Yaml,
    Wide,
    Name,
}

/// `status`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Status {
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Wide>,
    /// Say for whom each object decides, and where it was written
    #[arg(long)]
    pub(crate) wide: bool,
}

/// A command that has no choice but its format.
#[derive(Clone, Copy, Args, Debug)]
pub(crate) struct Plain {
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `proxies`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Proxies {
    /// One node; all where none is said
    pub(crate) node: Option<String>,
    /// The form of what is printed; `wide` adds certificates and drops one by one
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Wide>,
}

/// `metrics`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Metrics {
    /// One node, `control` or `ca`; all where none is said, each a text of its own
    #[arg(value_name = "NODE|control|ca")]
    pub(crate) node: Option<String>,
    /// The form of what is printed: the texts by node, `control` and `ca`
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `top`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Top {
    /// Only calls from or to the namespace
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// Look once, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// How long between two looks
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = milliseconds)]
    pub(crate) interval: u64,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Rate, value_name = "BY")]
    pub(crate) sort: Sort,
    /// The form of what is printed; without --once one JSON document a line
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// What `top` puts first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Sort {
    Rate,
    Denied,
    Errors,
    P99,
    Bytes,
}

/// `dump`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Dump {
    /// The file, which must not be there yet; `meshward-MESH-TIME.tar.gz` where none is said
    pub(crate) file: Option<PathBuf>,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `lint`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Lint {
    /// A file or directory; `-` is standard input; may be given again
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// As -f
    #[arg(value_name = "FILE", required_unless_present = "files")]
    pub(crate) more: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Which defaults are in force
    #[arg(long, default_value = "secure", value_name = "PROFILE", value_parser = profile)]
    pub(crate) profile: Profile,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Findings>,
}

/// The words as a command.
///
/// # Errors
/// Help that was asked for, or what is wrong with the words.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Command, clap::Error> {
    // What follows belongs to the program, whatever it looks like: it never meets our own options.
    let texts: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    if let Some([_, "workload", program, rest @ ..]) = texts.as_deref() {
        let rest = rest.iter().map(|word| (*word).to_owned()).collect();
        return Ok(Command::Workload((*program).to_owned(), rest));
    }
    let words = Words::try_parse_from(words)?;
    Ok(match words.verb {
        Verb::Up(up) => Command::Up(up.named(words.name)),
        Verb::Down { all } => Command::Down(Down {
            name: words.name,
            all,
        }),
        Verb::Lab(LabWords::Soak(words)) => Command::Soak(Soak {
            for_ms: words.lasts,
            rate: words.rate,
            services: words.services,
            plot: words.plot,
            json: words.output.is_some(),
        }),
        Verb::Ca(CaWords {
            config: Some(config), ..
        }) => Command::Part(Part::Ca, config),
        Verb::Ca(CaWords {
            asked: Some(asked), ..
        }) => Command::Ask(Ask {
            name: words.name,
            colour: words.color,
            asked: Asked::Ca(asked),
        }),
        Verb::Ca(_) => {
            return Err(
                Words::command().error(ErrorKind::MissingSubcommand, "`ca` wants `status` or `rotate`")
            );
        }
        Verb::Lab(LabWords::Survey(words)) => Command::Survey(Survey {
            profile: words.profile,
            json: words.output.is_some(),
            only: words.only,
        }),
        Verb::Control(part) => Command::Part(Part::Control, part.config),
        Verb::Proxy(part) => Command::Part(Part::Proxy, part.config),
        Verb::Standalone(part) => Command::Part(Part::Standalone, part.config),
        Verb::Workload { words } => {
            let mut words = words.into_iter();
            Command::Workload(words.next().unwrap_or_default(), words.collect())
        }
        Verb::Ask(asked) => Command::Ask(Ask {
            name: words.name,
            colour: words.color,
            asked,
        }),
    })
}

impl UpWords {
    fn named(self, name: String) -> Up {
        Up {
            name,
            sources: self.sources,
            recursive: self.recursive,
            nodes: self.nodes,
            profile: self.profile,
            detach: self.detach,
            wait_ms: self.wait,
            local_tls: self.local_tls,
            json_log: self.log_format == LogFormat::Json,
            images: self.image,
            json: self.output.is_some(),
            // A lifetime below a second is asked for as one, never as "leave it to the CA".
            leaf_lifetime_s: self.leaf_lifetime.map_or(0, |ms| (ms / 1000).max(1)),
            jwks_allow: self.jwks_allow,
            cacerts: self.cacerts,
            quiet: self.quiet,
        }
    }
}

fn mesh_name(text: &str) -> Result<String, String> {
    match admin::RunDir::of(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn profile(text: &str) -> Result<Profile, String> {
    text.parse()
}

fn milliseconds(text: &str) -> Result<u64, String> {
    api::duration_ms(text)
        .ok_or_else(|| format!("`{text}` is no duration: write for example `60s` or `1m30s`"))
}

pub(crate) fn wait(text: &str) -> Result<u64, String> {
    match text {
        "false" => Ok(0),
        "true" => milliseconds("60s"),
        other => milliseconds(other),
    }
}

fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("write an image and a command: `--image 'nginx=python3 -m http.server 80'`".to_owned()),
    }
}

#[cfg(test)]
pub(crate) fn definition() -> clap::Command {
    Words::command()
}
