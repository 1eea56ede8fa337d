//! Words about pods: `ps`, `exec`, `logs`.

use clap::Args;

use super::values::{Json, Wide};

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
