//! Words about what runs: `proxies`, `metrics`, `top`, `dump`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{Json, Wide, milliseconds};

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
