//! What clients must use towards a Service: the TLS of DestinationRules (semantics 1.6, 6.6).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{DestinationRule, Problem, Severity, TlsMode};
use model::{Host, ServiceName, SpiffeId};
use routing::host::Pattern;
use snapshot::{ClientNames, ClientTls};

use crate::report::{Report, code};
use crate::view::{Of, View};

/// A rule with its host read.
#[derive(Debug)]
struct Rule<'a> {
    of: Of<'a, DestinationRule>,
    pattern: Pattern,
}

/// What is in force for one Service port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PortTls {
    pub(crate) tls: Option<ClientTls>,
    pub(crate) by_namespace: BTreeMap<String, Option<ClientTls>>,
}

/// The rules that can be used, by their namespace, oldest first, one for each host.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    secure: bool,
    root_namespace: &'a str,
    namespaces: HashMap<&'a str, Vec<Rule<'a>>>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(view: &View<'a>, report: &mut Report) -> Self {
        let mut rules = Self {
            secure: view.secure(),
            root_namespace: view.root_namespace(),
            namespaces: HashMap::new(),
        };
        for of in &view.destination_rules {
            if of
                .body
                .workload_selector
                .as_ref()
                .is_some_and(|s| !s.match_labels.is_empty())
            {
                let why = "a `workloadSelector` in a DestinationRule is not acted on by this version";
                report.unheeded(
                    of.object,
                    "spec.workloadSelector",
                    why,
                    "write the rule for the whole namespace",
                );
                continue;
            }
            match Pattern::parse(&of.body.host, of.namespace(), &view.options.cluster_domain) {
                Ok(pattern) => rules.add(Rule { of: *of, pattern }, report),
                Err(error) => report.unheeded(of.object, "spec.host", &error.to_string(), "name a Service"),
            }
        }
        rules.warn(view, report);
        rules
    }

    fn add(&mut self, rule: Rule<'a>, report: &mut Report) {
        let list = self.namespaces.entry(rule.of.namespace()).or_default();
        match list.iter().find(|older| older.pattern == rule.pattern) {
            Some(older) => report.shadowed(
                rule.of.object,
                older.of.object,
                "spec.host",
                "the traffic policy of this host",
            ),
            None => list.push(rule),
        }
    }

    fn warn(&self, view: &View<'_>, report: &mut Report) {
        let domain = &view.options.cluster_domain;
        let entries = view.service_entries.iter().flat_map(|of| &of.body.hosts);
        let declared = entries.filter_map(|host| host.parse().ok());
        let hosts: Vec<Host> = view
            .services
            .iter()
            .filter_map(|of| {
                format!("{}.{}.svc.{domain}", of.name(), of.namespace())
                    .parse()
                    .ok()
            })
            .chain(declared)
            .collect();
        for rule in self.namespaces.values().flatten() {
            if !hosts.iter().any(|host| rule.pattern.matches(host)) {
                let message = format!("the host `{}` is no Service", rule.of.body.host);
                let problem = Problem::new(Severity::Warning, code::UNKNOWN_HOST, message);
                let remedy = "a name without a dot is taken in the rule's own namespace; any other must be complete, such as `reviews.default.svc.cluster.local`";
                report.tell(rule.of.object, "spec.host", problem.remedy(remedy));
            }
            self.warn_of_tls(rule, report);
        }
    }

    fn warn_of_tls(&self, rule: &Rule<'_>, report: &mut Report) {
        let Some(policy) = &rule.of.body.traffic_policy else {
            return;
        };
        let top = policy
            .tls
            .iter()
            .map(|tls| ("spec.trafficPolicy.tls".to_owned(), tls));
        let ports = policy
            .port_level_settings
            .iter()
            .enumerate()
            .filter_map(|(i, port)| {
                Some((
                    format!("spec.trafficPolicy.portLevelSettings[{i}].tls"),
                    port.tls.as_ref()?,
                ))
            });
        for (path, tls) in top.chain(ports) {
            match read(tls) {
                ClientTls::Unsupported => {
                    let why = "TLS settings other than DISABLE and ISTIO_MUTUAL are not acted on by this version; connections to the host are refused";
                    report.unheeded(
                        rule.of.object,
                        &path,
                        why,
                        "remove the settings; auto-mTLS protects what is in the mesh",
                    );
                }
                ClientTls::Disable if self.secure => {
                    let message = format!(
                        "connections to `{}` are plaintext because this rule says so",
                        rule.of.body.host
                    );
                    let problem = Problem::new(Severity::Warning, code::PLAINTEXT, message);
                    report.tell(
                        rule.of.object,
                        &path,
                        problem.remedy("remove it: auto-mTLS is used wherever the other side takes it"),
                    );
                }
                ClientTls::Named(_) => {
                    for (i, name) in tls.subject_alt_names.iter().enumerate() {
                        if name.parse::<SpiffeId>().is_err() {
                            let message = format!("no certificate of a mesh carries the name `{name}`");
                            let problem = Problem::new(Severity::Warning, code::IDENTITY, message);
                            let remedy = "write identities such as `spiffe://cluster.local/ns/NAMESPACE/sa/ACCOUNT`; where none fits, connections to the host are refused";
                            let path = format!("{path}.subjectAltNames[{i}]");
                            report.tell(rule.of.object, &path, problem.remedy(remedy));
                        }
                    }
                }
                ClientTls::Disable | ClientTls::IstioMutual => {}
            }
        }
    }

    /// What clients must use towards a port of the Service: all of them, and those of single namespaces where
    /// that differs.
    pub(crate) fn for_port(&self, service: &ServiceName, host: &Host, port: u16) -> PortTls {
        let of = |client: Option<&str>| {
            let rule = self.lookup(client, service.namespace(), host)?;
            self.tls(rule, port)
        };
        let tls = of(None);
        let named = |client: &&str| of(Some(*client)) != tls;
        let by_namespace = self.clients(service, host).into_iter().filter(named);
        let by_namespace = by_namespace
            .map(|client| (client.to_owned(), of(Some(client))))
            .collect();
        PortTls { tls, by_namespace }
    }

    /// Tells of each rule which Services it decides for.
    pub(crate) fn applies(&self, service: &ServiceName, host: &Host, report: &mut Report) {
        let clients = self.clients(service, host).into_iter().map(Some);
        for client in clients.chain(std::iter::once(None)) {
            if let Some(rule) = self.lookup(client, service.namespace(), host) {
                report.applies(&rule.of, service.to_string(), "");
            }
        }
    }

    /// Namespaces whose clients may be told something else than all others.
    fn clients(&self, service: &ServiceName, host: &Host) -> BTreeSet<&'a str> {
        let mut clients = BTreeSet::new();
        for rule in self
            .namespaces
            .values()
            .flatten()
            .filter(|rule| rule.pattern.matches(host))
        {
            let shared = [service.namespace(), self.root_namespace].contains(&rule.of.namespace());
            clients.insert(rule.of.namespace());
            if shared {
                let named = rule.of.body.export_to.iter().map(String::as_str);
                clients.extend(named.filter(|name| !matches!(*name, "." | "*" | "~")));
            }
        }
        clients
    }

    /// Semantics 6.6: the client's namespace, the Service's, the root one; there the most specific host.
    fn lookup(&self, client: Option<&str>, service: &str, host: &Host) -> Option<&Rule<'a>> {
        let own = client.filter(|client| *client != self.root_namespace);
        let steps = own.into_iter().chain([service, self.root_namespace]);
        steps.into_iter().find_map(|namespace| {
            let rules = self.namespaces.get(namespace)?.iter();
            let fit = rules.filter(|rule| rule.pattern.matches(host) && visible(rule, client));
            // `max_by_key` takes the last of equals, and there are none: one rule a host.
            fit.max_by_key(|rule| rule.pattern.specificity())
        })
    }

    fn tls(&self, rule: &Rule<'_>, port: u16) -> Option<ClientTls> {
        if rule.of.object.invalid.is_some() {
            return Some(ClientTls::Unsupported);
        }
        let policy = rule.of.body.traffic_policy.as_ref()?;
        let whole = policy.tls.as_ref().map(read);
        match policy.port_level_settings.iter().find(|p| p.port.number == port) {
            None => whole,
            // Upstream replaces the whole block, so that TLS is lost where it is not repeated (CM-09); ours keeps
            // it unless the port says otherwise (R29).
            Some(own) => own
                .tls
                .as_ref()
                .map(read)
                .or_else(|| whole.filter(|_| self.secure)),
        }
    }
}

/// `exportTo`; a client that is not named is one of any namespace.
fn visible(rule: &Rule<'_>, client: Option<&str>) -> bool {
    let export = &rule.of.body.export_to;
    export.is_empty()
        || export.iter().any(|to| match to.as_str() {
            "*" => true,
            "." => client == Some(rule.of.namespace()),
            name => client == Some(name),
        })
}

/// What cannot be done as written is never done in part (GW-44, R1).
fn read(tls: &api::ClientTls) -> ClientTls {
    let plain = tls.sni.is_empty() && tls.subject_alt_names.is_empty();
    match tls.mode {
        TlsMode::Disable => ClientTls::Disable,
        TlsMode::IstioMutual if plain => ClientTls::IstioMutual,
        TlsMode::IstioMutual => {
            let names = &tls.subject_alt_names;
            let identities = || names.iter().filter_map(|name| name.parse().ok()).collect();
            ClientTls::Named(Arc::new(ClientNames {
                sni: Some(tls.sni.as_str())
                    .filter(|sni| !sni.is_empty())
                    .map(Arc::from),
                expected: Some(identities).filter(|_| !names.is_empty()).map(|of| of()),
            }))
        }
        TlsMode::Simple | TlsMode::Mutual => ClientTls::Unsupported,
    }
}
