//! What a namespace says to others by its objects alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Kind, Object};
use model::Host;

use crate::Options;
use crate::addresses::Claims;
use crate::destination::{Rule, read_rules};
use crate::report::{Report, Said};
use crate::services::{claims, declared};
use crate::space::Space;

/// What one namespace says.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// How clients are to speak to hosts.
    pub(super) rules: Vec<Rule>,
    /// All that rules were read from.
    written: Vec<Arc<Object>>,
    /// What was told while they were read.
    pub(super) said: Said,
    /// Names that it declares.
    pub(super) hosts: BTreeSet<Host>,
    /// Addresses that it asks for.
    pub(super) claims: Claims,
    pub(super) sidecars: Vec<Arc<Object>>,
}

impl Exports {
    /// Of a namespace; what is as it was `before` is the very same.
    pub(super) fn of(space: &Space, options: &Options, before: &Self) -> Self {
        let of_kind = |is: fn(&Kind) -> bool| {
            let all = space.objects.iter().filter(move |object| is(&object.kind));
            all.cloned().collect::<Vec<_>>()
        };
        let written = of_kind(|kind| matches!(kind, Kind::DestinationRule(_)));
        let mut report = Report::of_all();
        let rules = read_rules(written.iter(), &options.cluster_domain, &mut report);
        let mut hosts = declared(space.objects.iter(), &options.cluster_domain);
        // One allocation a name.
        hosts = hosts
            .into_iter()
            .map(|host| before.hosts.get(&host).cloned().unwrap_or(host))
            .collect();
        Self {
            rules,
            written,
            said: report.finish().0,
            hosts,
            claims: claims(space.objects.iter(), &options.service_ranges),
            sidecars: of_kind(|kind| matches!(kind, Kind::Sidecar(_))),
        }
    }

    /// Whether its rules are read from the very same objects.
    pub(super) fn has_rules_of(&self, other: &Self) -> bool {
        let pairs = self.written.iter().zip(&other.written);
        self.written.len() == other.written.len() && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    }
}
