//! What clients must use towards a Service: the TLS of DestinationRules (semantics 1.6, 6.6).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{DestinationRule, Kind, Object, Problem, Severity, TlsMode};
use model::{Host, ServiceName, SpiffeId};
use routing::host::Pattern;
use snapshot::{ClientNames, ClientTls};

use crate::report::{Report, code};

/// A rule with its host read.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) object: Arc<Object>,
    pub(crate) pattern: Pattern,
}

impl Rule {
    fn body(&self) -> Option<&DestinationRule> {
        match &self.object.kind {
            Kind::DestinationRule(body) => Some(body),
            _ => None,
        }
    }

    fn namespace(&self) -> &str {
        &self.object.meta.namespace
    }

    fn export_to(&self) -> &[String] {
        self.body()
            .map(|body| body.export_to.as_slice())
            .unwrap_or_default()
    }
}

/// What is in force for one Service port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PortTls {
    pub(crate) tls: Option<ClientTls>,
    pub(crate) by_namespace: BTreeMap<String, Option<ClientTls>>,
}

/// Reads the rules of a namespace, oldest first, one for each host; tells of those that cannot be used.
pub(crate) fn read_rules<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    cluster_domain: &str,
    report: &mut Report,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for object in objects {
        let Kind::DestinationRule(body) = &object.kind else {
            continue;
        };
        if body
            .workload_selector
            .as_ref()
            .is_some_and(|s| !s.match_labels.is_empty())
        {
            let why = "a `workloadSelector` in a DestinationRule is not acted on by this version";
            let remedy = "write the rule for the whole namespace";
            report.unheeded(object, "spec.workloadSelector", why, remedy);
            continue;
        }
        let pattern = match Pattern::parse(&body.host, &object.meta.namespace, cluster_domain) {
            Ok(pattern) => pattern,
            Err(error) => {
                report.unheeded(object, "spec.host", &error.to_string(), "name a Service");
                continue;
            }
        };
        match rules.iter().find(|older| older.pattern == pattern) {
            Some(older) => report.shadowed(
                object,
                &older.object,
                "spec.host",
                "the traffic policy of this host",
            ),
            None => rules.push(Rule {
                object: Arc::clone(object),
                pattern,
            }),
        }
    }
    rules
}

/// Which namespaces declare a host: as a Service, or in a ServiceEntry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(HashMap<Host, BTreeSet<Arc<str>>>);

impl Hosts {
    /// Takes in what a namespace declares now in place of what it did before; returns the hosts that nobody had declared,
    /// and those that nobody does any more.
    pub(crate) fn set(
        &mut self,
        namespace: &Arc<str>,
        before: &BTreeSet<Host>,
        now: &BTreeSet<Host>,
    ) -> Vec<Host> {
        let mut changed = Vec::new();
        for host in now.difference(before) {
            let namespaces = self.0.entry(host.clone()).or_default();
            if namespaces.is_empty() {
                changed.push(host.clone());
            }
            namespaces.insert(Arc::clone(namespace));
        }
        for host in before.difference(now) {
            if let Some(namespaces) = self.0.get_mut(host) {
                namespaces.remove(namespace);
                if namespaces.is_empty() {
                    self.0.remove(host);
                    changed.push(host.clone());
                }
            }
        }
        changed
    }

    /// The namespaces that declare it.
    pub(crate) fn of(&self, host: &Host) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(host).into_iter().flatten()
    }

    fn any(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(host) => self.0.contains_key(host),
            Pattern::Suffix(_) | Pattern::Any => self.0.keys().any(|host| pattern.matches(host)),
        }
    }
}

/// The rules that can be used, by their namespace, oldest first, one for each host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    namespaces: BTreeMap<Arc<str>, Arc<Vec<Rule>>>,
    /// Namespaces with a rule for this one host.
    exact: HashMap<Host, BTreeSet<Arc<str>>>,
    /// Namespaces with a rule for many hosts.
    wild: BTreeSet<Arc<str>>,
}

impl Rules {
    /// The rules of a namespace are these from now on.
    pub(crate) fn set(&mut self, namespace: &Arc<str>, rules: Vec<Rule>) {
        for rule in self
            .namespaces
            .remove(namespace)
            .iter()
            .flat_map(|rules| rules.iter())
        {
            if let Pattern::Exact(host) = &rule.pattern
                && let Some(namespaces) = self.exact.get_mut(host)
            {
                namespaces.remove(namespace);
                if namespaces.is_empty() {
                    self.exact.remove(host);
                }
            }
        }
        self.wild.remove(namespace);
        for rule in &rules {
            match &rule.pattern {
                Pattern::Exact(host) => {
                    let namespaces = self.exact.entry(host.clone()).or_default();
                    namespaces.insert(Arc::clone(namespace));
                }
                Pattern::Suffix(_) | Pattern::Any => {
                    self.wild.insert(Arc::clone(namespace));
                }
            }
        }
        if !rules.is_empty() {
            self.namespaces.insert(Arc::clone(namespace), Arc::new(rules));
        }
    }

    /// Those of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> &[Rule] {
        self.namespaces
            .get(namespace)
            .map(|rules| rules.as_slice())
            .unwrap_or_default()
    }

    /// Namespaces with rules that may speak of the host.
    pub(crate) fn about(&self, host: &Host) -> BTreeSet<&Arc<str>> {
        self.exact
            .get(host)
            .into_iter()
            .flatten()
            .chain(&self.wild)
            .collect()
    }

    fn matching<'s>(&'s self, host: &'s Host) -> impl Iterator<Item = &'s Rule> {
        let about = self
            .about(host)
            .into_iter()
            .filter_map(|name| self.namespaces.get(name));
        about
            .flat_map(|rules| rules.iter())
            .filter(|rule| rule.pattern.matches(host))
    }
}

/// The rules, as all Services see them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ruling<'a> {
    pub(crate) secure: bool,
    pub(crate) root_namespace: &'a str,
    pub(crate) rules: &'a Rules,
}

impl<'a> Ruling<'a> {
    /// Tells of the rules of a namespace what is not as it was most likely meant.
    pub(crate) fn warn(&self, namespace: &str, hosts: &Hosts, report: &mut Report) {
        for rule in self.rules.of(namespace) {
            if !hosts.any(&rule.pattern) {
                let host = rule.body().map(|body| body.host.as_str()).unwrap_or_default();
                let message = format!("the host `{host}` is no Service");
                let problem = Problem::new(Severity::Warning, code::UNKNOWN_HOST, message);
                let remedy = "a name without a dot is taken in the rule's own namespace; any other must be complete, such as `reviews.default.svc.cluster.local`";
                report.tell(&rule.object, "spec.host", problem.remedy(remedy));
            }
            self.warn_of_tls(rule, report);
        }
    }

    fn warn_of_tls(&self, rule: &Rule, report: &mut Report) {
        let Some(body) = rule.body() else { return };
        let Some(policy) = &body.traffic_policy else {
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
                        &rule.object,
                        &path,
                        why,
                        "remove the settings; auto-mTLS protects what is in the mesh",
                    );
                }
                ClientTls::Disable if self.secure => {
                    let message = format!(
                        "connections to `{}` are plaintext because this rule says so",
                        body.host
                    );
                    let problem = Problem::new(Severity::Warning, code::PLAINTEXT, message);
                    report.tell(
                        &rule.object,
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
                            report.tell(&rule.object, &path, problem.remedy(remedy));
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
                report.applies_to(&rule.object, &Arc::from(service.to_string()));
            }
        }
    }

    /// Namespaces whose clients may be told something else than all others.
    fn clients<'h>(&self, service: &ServiceName, host: &'h Host) -> BTreeSet<&'h str>
    where
        'a: 'h,
    {
        let mut clients = BTreeSet::new();
        for rule in self.rules.matching(host) {
            let shared = [service.namespace(), self.root_namespace].contains(&rule.namespace());
            clients.insert(rule.namespace());
            if shared {
                let named = rule.export_to().iter().map(String::as_str);
                clients.extend(named.filter(|name| !matches!(*name, "." | "*" | "~")));
            }
        }
        clients
    }

    /// Semantics 6.6: the client's namespace, the Service's, the root one; there the most specific host.
    fn lookup(&self, client: Option<&str>, service: &str, host: &Host) -> Option<&'a Rule> {
        let own = client.filter(|client| *client != self.root_namespace);
        let steps = own.into_iter().chain([service, self.root_namespace]);
        steps.into_iter().find_map(|namespace| {
            let rules = self.rules.of(namespace).iter();
            let fit = rules.filter(|rule| rule.pattern.matches(host) && visible(rule, client));
            // `max_by_key` takes the last of equals, and there are none: one rule a host.
            fit.max_by_key(|rule| rule.pattern.specificity())
        })
    }

    fn tls(&self, rule: &Rule, port: u16) -> Option<ClientTls> {
        if rule.object.invalid.is_some() {
            return Some(ClientTls::Unsupported);
        }
        let policy = rule.body()?.traffic_policy.as_ref()?;
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
fn visible(rule: &Rule, client: Option<&str>) -> bool {
    let export = rule.export_to();
    export.is_empty()
        || export.iter().any(|to| match to.as_str() {
            "*" => true,
            "." => client == Some(rule.namespace()),
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
