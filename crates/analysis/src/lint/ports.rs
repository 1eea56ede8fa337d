//! Ports that no workload has which a policy selects: most often the Service's port in place of the workload's.

use std::collections::BTreeSet;

use api::Severity;

use super::{Findings, code};
use crate::world::Offline;

pub(super) fn nowhere(world: &Offline, findings: &mut Findings<'_>) {
    let policy = findings.policy;
    let Some(known) = world.ports_of(findings.object) else {
        return;
    };
    let mut lists = Vec::new();
    for (at, rule) in policy.rules.iter().enumerate() {
        for (to, item) in rule.to.iter().enumerate() {
            let path = format!("spec.rules[{at}].to[{to}].operation.ports");
            lists.push((path, &item.operation.ports));
        }
        for (number, when) in rule.when.iter().enumerate() {
            if when.key == "destination.port" {
                lists.push((format!("spec.rules[{at}].when[{number}].values"), &when.values));
            }
        }
    }
    for (path, values) in lists {
        for (number, text) in values.iter().enumerate() {
            let Ok(port) = text.parse::<u16>() else { continue };
            if known.contains(&port) {
                continue;
            }
            let listed: Vec<String> = known.iter().map(u16::to_string).collect();
            let message = format!("no workload that the policy selects declares port {port}");
            let remedy = format!(
                "name the workload's port, not the Service's: {}",
                listed.join(", ")
            );
            let path = format!("{path}[{number}]");
            findings.tell(&path, Severity::Warning, code::NO_SUCH_PORT, message, &remedy);
        }
    }
}

impl Offline {
    /// The ports that the pods declare which a policy decides for; `None` where there are none that could be wrong.
    fn ports_of(&self, object: &api::Object) -> Option<BTreeSet<u16>> {
        let reference = object.reference();
        let effect = self
            .compiled()
            .effects
            .iter()
            .find(|effect| effect.object == reference)?;
        let mut ports = BTreeSet::new();
        for pod in self.pods() {
            let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            if !effect.targets.contains(&name) {
                continue;
            }
            let containers = pod.spec.containers.iter().flat_map(|container| &container.ports);
            ports.extend(containers.map(|port| port.container_port));
            ports.extend(self.declared(&pod.metadata.namespace, &pod.metadata.name));
        }
        (!ports.is_empty()).then_some(ports)
    }
}
