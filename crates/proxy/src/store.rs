//! The snapshot in force: swapped whole, read without waiting.

pub(crate) mod demand;

use std::sync::Arc;

use snapshot::{Index, Resources};
use tokio::sync::watch;

/// The one snapshot. A decision takes it once and sees nothing else.
#[derive(Debug)]
pub(crate) struct Store {
    index: arc_swap::ArcSwapOption<Index>,
    version: watch::Sender<u64>,
    /// Whether it holds only what was asked for.
    on_demand: bool,
}

impl Store {
    /// A store of whole meshes: what is not there does not exist.
    pub(crate) fn new() -> Self {
        Self {
            on_demand: false,
            ..Self::on_demand()
        }
    }

    /// A store of what was asked for: what is not there may not be known.
    pub(crate) fn on_demand() -> Self {
        Self {
            index: arc_swap::ArcSwapOption::empty(),
            version: watch::Sender::new(0),
            on_demand: true,
        }
    }

    /// What is in force; `None` before the first snapshot, and then everything is refused.
    pub(crate) fn current(&self) -> Option<Arc<Index>> {
        self.index.load_full()
    }

    /// Puts a set into force.
    ///
    /// # Errors
    /// It is not one that can be served from; what was in force stays.
    #[cfg(test)]
    pub(crate) fn swap(&self, resources: &Resources, version: u64) -> Result<(), String> {
        self.swap_with(resources, version, |_| Ok(()))
    }

    /// Puts a set into force, if `prepare` takes it: what a set needs besides is done before it is in force.
    ///
    /// # Errors
    /// It is not one that can be served from, or `prepare` says why not; what was in force stays.
    pub(crate) fn swap_with(
        &self,
        resources: &Resources,
        version: u64,
        prepare: impl FnOnce(&Index) -> Result<(), String>,
    ) -> Result<(), String> {
        let before = self.current();
        let build = match self.on_demand {
            true => Index::build_on_demand,
            false => Index::build_after,
        };
        let index = build(resources, before.as_deref()).map_err(|e| e.to_string())?;
        prepare(&index)?;
        self.index.store(Some(Arc::new(index)));
        self.version.send_replace(version);
        Ok(())
    }

    /// The version in force; 0 before the first. Changes after the snapshot has.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use model::Profile;
    use snapshot::{Egress, Mesh, PathNormalization, Resource, TlsVersion, XfccMode};

    use super::*;

    /// Settings of the secure profile.
    pub(crate) fn mesh() -> Mesh {
        Mesh {
            profile: Profile::Secure,
            trust_domain: "cluster.local".parse().unwrap(),
            trust_domain_aliases: vec![],
            root_namespace: "istio-system".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            dns_vips: vec![],
            deny_by_default: true,
            egress: Egress::RegistryOnly,
            path_normalization: PathNormalization::Base,
            strict_paths: true,
            strict_hosts: true,
            jwt_strict: true,
            xfcc: XfccMode::SanitizeSet,
            auto_mtls: true,
            protocol_detection_timeout_ms: None,
            min_tls: TlsVersion::V1_3,
            tls: snapshot::MeshTls::default(),
            http10: false,
            connect_timeout_ms: 10_000,
            scopes: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn what_cannot_be_taken_leaves_what_was() {
        let store = Store::new();
        assert!(store.swap(&Resources::default(), 1).is_err());
        assert!(store.current().is_none());
        let good: Resources = [Resource::from(mesh())].into_iter().collect();
        store.swap(&good, 2).unwrap();
        let before = store.current().unwrap();
        assert_eq!(*store.version().borrow(), 2);
        assert!(store.swap_with(&good, 3, |_| Err("no roots".to_owned())).is_err());
        assert!(Arc::ptr_eq(&before, &store.current().unwrap()));
        assert_eq!(*store.version().borrow(), 2);
    }
}
