//! The words: what may be said, and what it comes to. Nothing here does I/O.

mod objects;
mod parts;
mod pods;
mod start;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub(crate) use self::objects::{Apply, Delete, Get, GetFormat, Lint, Status};
pub(crate) use self::parts::{Dump, Metrics, Proxies, Sort, Top};
pub(crate) use self::pods::{Exec, Logs, Ps};
use self::start::{LabWords, UpWords};
use self::values::mesh_name;
pub(crate) use self::values::{Colour, Findings, Json, Wide, profile, wait};
use crate::ask::args::{CanI, Eval, Explain, Why};
use crate::inspect::ca::Ca;
use crate::inspect::restart::Restart;
use crate::{Ask, Command, Down, Part};

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

/// A command that has no choice but its format.
#[derive(Clone, Copy, Args, Debug)]
pub(crate) struct Plain {
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Json>,
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
        Verb::Lab(lab) => lab.command(),
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

#[cfg(test)]
pub(crate) fn definition() -> clap::Command {
    Words::command()
}
