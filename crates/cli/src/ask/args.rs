//! The words of the commands that explain.

use std::net::IpAddr;
use std::path::PathBuf;

use analysis::{Custom, Target};
use clap::{Args, Subcommand, ValueEnum};
use model::Profile;

use super::target;
use crate::args::{Json, profile};

/// Where the objects come from.
#[derive(Clone, Args, Debug)]
pub(crate) struct Files {
    /// A file or directory; `-` is standard input; may be given again. Without it the running mesh is asked
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// With -f: which defaults are in force
    #[arg(long, default_value = "secure", value_name = "PROFILE", value_parser = profile)]
    pub(crate) profile: Profile,
}

/// Who calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// A workload of the mesh.
    Account {
        trust_domain: Option<String>,
        namespace: String,
        name: String,
    },
    /// An address outside the mesh.
    Address(IpAddr),
}

/// `can-i`.
#[derive(Clone, Args, Debug)]
pub(crate) struct CanI {
    /// Who calls: a service account, or an address outside the mesh
    #[arg(long, value_name = "NS/SA|ip:ADDR", value_parser = from)]
    pub(crate) from: From,
    /// Who is called: a Service, NS/deploy/NAME, NS/pod/NAME, or NS/LABEL=VALUE,...
    #[arg(long, value_name = "NS/SVC[:PORT]", value_parser = target::parse)]
    pub(crate) to: Target<'static>,
    /// The method, GET where not said
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Path and query, as the caller sends them
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The Host, the callee's name where not said
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// A header field; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) header: Vec<(String, String)>,
    /// A token, or `@FILE`: verified by the keys that the rules hold; where those are fetched, by --claim alone
    #[arg(long, value_name = "TOKEN", conflicts_with = "claim")]
    pub(crate) jwt: Option<String>,
    /// A claim of a verified token, `groups=a` or `realm[roles]=a`; given again it is a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) claim: Vec<(String, String)>,
    /// The address that the call comes from (source.ip)
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip: Option<IpAddr>,
    /// The original client's address (remote.ip), --ip where not said
    #[arg(long, value_name = "ADDR")]
    pub(crate) remote_ip: Option<IpAddr>,
    /// The caller sends plaintext although it has an identity
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// The name that the TLS handshake asks for
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// The bytes are no HTTP
    #[arg(long, conflicts_with_all = ["method", "path", "host", "header", "jwt", "claim"])]
    pub(crate) tcp: bool,
    #[command(flatten)]
    pub(crate) custom: Customs,
    #[command(flatten)]
    pub(crate) files: Files,
    /// Print nothing: the exit code says it
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// What external authorizers are taken to say.
#[derive(Clone, Args, Debug, Default)]
pub(crate) struct Customs {
    /// What an external authorizer is taken to say: allow, deny or unknown; may be given again
    #[arg(long, value_name = "NAME=ANSWER", value_parser = custom)]
    pub(crate) custom: Vec<(String, Custom)>,
}

/// `eval`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Eval {
    /// A file or directory with policies; may be given again
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Read directories below directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Requests, a JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) requests: PathBuf,
    /// Which defaults are in force
    #[arg(long, default_value = "secure", value_name = "PROFILE", value_parser = profile)]
    pub(crate) profile: Profile,
    #[command(flatten)]
    pub(crate) custom: Customs,
}

/// `explain`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Explain {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Clone, Subcommand, Debug)]
pub(crate) enum What {
    /// How a path is read: each step, what else it may mean, and what the strict profile says
    Path(Path),
    /// What is in force for a workload, merged and in order
    Policy(Policy),
}

/// `meshConfig.pathNormalization.normalization`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Mode {
    /// Only the fragment is cut
    None,
    /// RFC 3986 canonical form; Istio's default
    #[value(alias = "DEFAULT")]
    Base,
    /// And runs of slashes become one
    MergeSlashes,
    /// And encoded slashes and backslashes are decoded first
    DecodeAndMergeSlashes,
}

/// `explain path`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Path {
    /// The path, with its query, as a caller sends it
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    /// How the mesh normalises; MERGE_SLASHES is the secure profile's, BASE is Istio's
    #[arg(long, value_enum, ignore_case = true, default_value_t = Mode::MergeSlashes, value_name = "MODE")]
    pub(crate) mode: Mode,
    /// Refuse what backends may read in more than one way, as the secure profile does; exit code 1 where it is
    #[arg(long)]
    pub(crate) strict: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `explain policy`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Policy {
    /// A workload, `deploy/NAME`, `pod/NAME`, `svc/NAME`, or LABEL=VALUE,...
    #[arg(value_name = "WORKLOAD")]
    pub(crate) workload: String,
    /// The namespace
    #[arg(short, long, value_name = "NS", default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) files: Files,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

/// `why`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Why {
    /// What the refused caller got as `x-meshward-decision`, or the request's x-request-id; with --last a workload
    #[arg(value_name = "ID|WORKLOAD", required_unless_present = "last")]
    pub(crate) what: Option<String>,
    /// The newest refusal, of all or where caller or callee is the workload
    #[arg(long)]
    pub(crate) last: bool,
    /// With --last: only where caller or callee is of the namespace
    #[arg(short, long, value_name = "NS", requires = "last")]
    pub(crate) namespace: Option<String>,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
}

fn from(text: &str) -> Result<From, String> {
    if let Some(address) = text.strip_prefix("ip:") {
        let address = address
            .parse()
            .map_err(|_| format!("`{address}` is no address"))?;
        return Ok(From::Address(address));
    }
    if text.starts_with("spiffe://") {
        let id: model::SpiffeId = text.parse().map_err(|e| format!("{e}"))?;
        return Ok(From::Account {
            trust_domain: Some(id.trust_domain().as_str().to_owned()),
            namespace: id.namespace().to_owned(),
            name: id.service_account().to_owned(),
        });
    }
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(From::Account {
                trust_domain: None,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => Err("write NAMESPACE/SERVICEACCOUNT, a whole spiffe:// id, or ip:ADDRESS".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn custom(text: &str) -> Result<(String, Custom), String> {
    let (name, answer) = pair(text)?;
    let answer = match answer.as_str() {
        "allow" => Custom::Allow,
        "deny" => Custom::Deny,
        "unknown" => Custom::Unknown,
        _ => return Err("an authorizer says allow, deny or unknown".to_owned()),
    };
    Ok((name, answer))
}

impl Customs {
    pub(crate) fn providers(&self) -> analysis::Providers {
        self.custom.iter().cloned().collect()
    }
}
