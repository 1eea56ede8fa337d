//! Words about objects: `apply`, `delete`, `get`, `status`, `lint`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use model::Profile;

use super::values::{Findings, Json, Wide, profile, wait};

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
