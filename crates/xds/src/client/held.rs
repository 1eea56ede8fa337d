//! What a proxy holds, and how a response changes it. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use snapshot::{Delta, ResourceName, Resources};

use crate::wire::{MAX_RESOURCES, TYPE_URL, decode};

/// The set in force, with the version of each resource.
#[derive(Clone, Debug, Default)]
pub struct Held {
    resources: Resources,
    versions: BTreeMap<ResourceName, String>,
    /// Whether a set was ever taken: the empty one counts.
    any: bool,
}

/// A response that was understood, not yet in force.
#[derive(Debug)]
pub struct Received {
    /// The whole new set.
    pub resources: Resources,
    /// The version of the control plane.
    pub version: u64,
    /// Whether it differs from the set in force, or is the first.
    pub changed: bool,
    versions: BTreeMap<ResourceName, String>,
}

impl Held {
    /// The set in force.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Reads a response against what is held. Total: bytes from anywhere end in a set or in a text.
    ///
    /// # Errors
    /// Why the response cannot be taken; nothing of it may be used.
    pub fn receive(&self, response: &DeltaDiscoveryResponse) -> Result<Received, String> {
        if response.type_url != TYPE_URL {
            return Err(format!("the type `{}` was not asked for", response.type_url));
        }
        let version = response
            .system_version_info
            .parse()
            .map_err(|_| format!("the version `{}` is no number", response.system_version_info))?;
        let delta = Delta {
            updated: response
                .resources
                .iter()
                .map(|wire| decode(wire).map(Arc::new))
                .collect::<Result<_, _>>()?,
            removed: response
                .removed_resources
                .iter()
                .map(|name| ResourceName::from(name.as_str()))
                .collect(),
        };
        refuse_contradictions(&delta)?;
        let resources = self.resources.apply(&delta);
        if resources.len() > MAX_RESOURCES {
            return Err(format!(
                "{} resources are more than {MAX_RESOURCES}",
                resources.len()
            ));
        }
        let mut versions = self.versions.clone();
        for name in &delta.removed {
            versions.remove(name);
        }
        for (resource, wire) in delta.updated.iter().zip(&response.resources) {
            versions.insert(resource.name(), wire.version.clone());
        }
        Ok(Received {
            changed: !self.any || !delta.is_empty(),
            resources,
            version,
            versions,
        })
    }

    /// Puts a response in force.
    pub fn keep(&mut self, received: Received) {
        self.resources = received.resources;
        self.versions = received.versions;
        self.any = true;
    }

    /// What to tell a control plane that is new to us.
    pub(crate) fn versions(&self) -> HashMap<String, String> {
        self.versions
            .iter()
            .map(|(name, version)| (name.as_str().to_owned(), version.clone()))
            .collect()
    }
}

fn refuse_contradictions(delta: &Delta) -> Result<(), String> {
    let mut named: BTreeSet<ResourceName> = BTreeSet::new();
    let names = delta
        .updated
        .iter()
        .map(|r| r.name())
        .chain(delta.removed.iter().cloned());
    for name in names {
        if named.contains(&name) {
            return Err(format!("the resource `{name}` comes twice"));
        }
        named.insert(name);
    }
    Ok(())
}
