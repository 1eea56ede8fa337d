//! `snapshots`: what each node's proxy is to know, for whoever has to find out why it does what it does.

use admin::verbs::Snapshot;
use admin::{Failure, Items};
use serde_json::Value;

use super::{Desk, encode, hung_up};

pub(super) async fn snapshots(desk: &Desk, items: &mut Items) -> Result<Value, Failure> {
    let view = desk.view();
    for (node, resources) in &view.whole.flat().nodes {
        let resources = resources.iter().map(|(_, resource)| encode(resource.as_ref()));
        let snapshot = Snapshot {
            node: node.clone(),
            version: view.versions.get(node).copied(),
            resources: resources.collect::<Result<_, _>>()?,
        };
        items.send(&snapshot).await.map_err(|_| hung_up())?;
    }
    Ok(Value::Null)
}
