//! Words that start a mesh: `up`, `lab`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::Profile;

use super::values::{Json, image, milliseconds, profile, server};
use crate::{Command, MAX_NODES, Soak, Survey, Up};

#[derive(Args, Debug)]
pub(super) struct UpWords {
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
    /// Ask this DNS server about names outside the cluster, `IP` or `IP:PORT`; may be given again. Without one there are none
    #[arg(long, value_name = "ADDRESS", value_parser = server)]
    dns_upstream: Vec<SocketAddr>,
    /// Let this network read the parts' metrics and health pages, besides the hub and each part's own machine; may be given
    /// again. With `--profile istio` everybody may
    #[arg(long, value_name = "CIDR")]
    metrics_allow: Vec<model::Cidr>,
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

impl UpWords {
    pub(super) fn named(self, name: String) -> Up {
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
            dns_upstreams: self.dns_upstream,
            metrics_allow: self.metrics_allow,
            cacerts: self.cacerts,
            quiet: self.quiet,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

#[derive(Subcommand, Debug)]
pub(super) enum LabWords {
    /// Keep a steady load up while everything about the mesh changes, and say what failed
    Soak(SoakWords),
    /// Replay ways into and out of a mesh that surprised people, and say what got through
    Survey(SurveyWords),
}

#[derive(Args, Debug)]
pub(super) struct SoakWords {
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
pub(super) struct SurveyWords {
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

impl LabWords {
    pub(super) fn command(self) -> Command {
        match self {
            Self::Soak(words) => Command::Soak(Soak {
                for_ms: words.lasts,
                rate: words.rate,
                services: words.services,
                plot: words.plot,
                json: words.output.is_some(),
            }),
            Self::Survey(words) => Command::Survey(Survey {
                profile: words.profile,
                json: words.output.is_some(),
                only: words.only,
            }),
        }
    }
}
