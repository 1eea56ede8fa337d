//! `restart`: parts are started anew, proxies without losing a connection.

use admin::verbs::{Part, PartOrder};
use clap::Args;
use serde_json::{Value, json};

use crate::args::Json;
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out};

/// `restart`.
#[derive(Clone, Args, Debug)]
pub(crate) struct Restart {
    /// `ca`, `control`, `proxy-NODE` or a node; the proxies of all nodes where none is said
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// End a proxy before the next is started, as the other parts are; what is open longer than 5s breaks
    #[arg(long)]
    stop_first: bool,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Json>,
}

pub(crate) async fn restart(mesh: &Mesh, asked: &Restart, out: &mut Out) -> Done {
    let info = mesh.info().await?;
    let proxy = |node: &String| format!("proxy-{node}");
    let parts: Vec<String> = match asked.parts.as_slice() {
        [] => info.nodes.iter().map(proxy).collect(),
        named => {
            let named = named.iter().map(|name| match info.nodes.contains(name) {
                true => proxy(name),
                false => name.clone(),
            });
            named.collect()
        }
    };
    let mut done = Vec::new();
    for name in parts {
        let order = if name.starts_with("proxy-") && !asked.stop_first {
            PartOrder::Replace
        } else {
            PartOrder::Restart
        };
        let part = Part {
            name: name.clone(),
            order,
        };
        let begin = std::time::Instant::now();
        let _: Value = last(mesh.up("part", &part, Vec::new()).await?).await?;
        let took = begin.elapsed().as_millis();
        let how = match order {
            PartOrder::Replace => "replaced",
            _ => "restarted",
        };
        if asked.output.is_none() {
            out.print(&format!("{name} {how} in {took} ms\n"))?;
        }
        done.push(json!({ "part": name, "how": how, "ms": u64::try_from(took).unwrap_or(u64::MAX) }));
    }
    if asked.output.is_some() {
        out.json(&done)?;
    }
    Ok(0)
}
