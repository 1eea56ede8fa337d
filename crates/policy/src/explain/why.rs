//! The field that decided, in a sentence.

use crate::compile::Rule;
use crate::facts::{Facts, HttpFacts};
use crate::matchers::{Field, HeaderName, Test};
use crate::spec::{OperationSpec, PolicySpec, RuleSpec, SourceSpec};

/// How many values of a field a sentence names.
const VALUES: usize = 4;
/// Headers whose values are not repeated.
const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// A rule as it is written and as it is compiled, before one request.
pub(super) struct Walk<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) spec: &'a PolicySpec,
    pub(super) written: &'a RuleSpec,
    pub(super) rule: &'a Rule,
}

/// Where a field stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    Source(&'a SourceSpec),
    Operation(&'a OperationSpec),
    When,
}

impl<'a> Walk<'a> {
    /// A sentence for each field that does not hold, along the alternatives that came closest.
    pub(super) fn failed(&self) -> Vec<String> {
        let broken = |(place, fields): (Place<'a>, &'a [Field])| -> Vec<String> {
            let broken = fields.iter().filter(|field| !self.holds(field));
            broken.map(|field| self.sentence(place, field)).collect()
        };
        let closest = |all: Vec<(Place<'a>, &'a [Field])>| {
            all.into_iter()
                .map(broken)
                .min_by_key(Vec::len)
                .unwrap_or_default()
        };
        let mut failed = closest(self.sources());
        failed.extend(closest(self.operations()));
        failed.extend(broken((Place::When, &self.rule.conditions)));
        failed
    }

    /// A sentence for each field of a rule that matches, along the first alternatives that hold.
    pub(super) fn held(&self) -> Vec<String> {
        let first = |all: Vec<(Place<'a>, &'a [Field])>| {
            all.into_iter()
                .find(|(_, fields)| fields.iter().all(|field| self.holds(field)))
        };
        let parts = [
            first(self.sources()),
            first(self.operations()),
            Some((Place::When, &*self.rule.conditions)),
        ];
        let fields = parts
            .into_iter()
            .flatten()
            .flat_map(|(place, fields)| fields.iter().map(move |field| (place, field)));
        fields
            .filter(|(_, field)| !field.is_silent(self.facts))
            .map(|(place, field)| self.sentence(place, field))
            .collect()
    }

    fn holds(&self, field: &Field) -> bool {
        field.holds(self.facts, self.rule.bias)
    }

    fn sources(&self) -> Vec<(Place<'a>, &'a [Field])> {
        let written = self.written.from.iter().map(Place::Source);
        written
            .zip(self.rule.sources.iter().map(|fields| &**fields))
            .collect()
    }

    fn operations(&self) -> Vec<(Place<'a>, &'a [Field])> {
        let written = self.written.to.iter().map(Place::Operation);
        written
            .zip(self.rule.operations.iter().map(|fields| &**fields))
            .collect()
    }

    /// The field's name and values as they are written.
    fn named(&self, place: Place<'a>, field: &Field) -> (String, &'a [String]) {
        match place {
            Place::Source(source) => (field.name.to_owned(), of_source(source, field.name)),
            Place::Operation(operation) => (field.name.to_owned(), of_operation(operation, field.name)),
            Place::When => {
                let at = usize::try_from(field.place).ok();
                match (at.and_then(|at| self.written.when.get(at)), field.negated) {
                    (Some(condition), true) => (
                        format!("{} notValues", condition.key),
                        condition.not_values.as_slice(),
                    ),
                    (Some(condition), false) => (condition.key.clone(), condition.values.as_slice()),
                    (None, _) => (String::new(), &[]),
                }
            }
        }
    }

    fn sentence(&self, place: Place<'a>, field: &Field) -> String {
        let (name, values) = self.named(place, field);
        let values = with_namespace(field, values, self.spec);
        let mut list: Vec<String> = values.iter().take(VALUES).map(|v| format!("`{v}`")).collect();
        if values.len() > VALUES {
            list.push(format!("and {} more", values.len() - VALUES));
        }
        let list = list.join(", ");
        let among = self.holds(field) != field.negated;
        match (actual(self.facts, &field.test), among) {
            (Ok(actual), true) => format!("{name}: {actual} is among {list}"),
            (Ok(actual), false) => format!("{name}: {actual} is not among {list}"),
            (Err(absent), true) => format!("{name}: {absent}, which counts as among {list}"),
            (Err(absent), false) if field.negated => format!("{name}: {absent}, and so not among {list}"),
            (Err(absent), false) => format!("{name}: {absent}, and {list} is asked for"),
        }
    }
}

/// How many sentences [`failed`] has.
pub(super) fn count(facts: &Facts<'_>, rule: &Rule) -> usize {
    let broken = |fields: &[Field]| {
        fields
            .iter()
            .filter(|field| !field.holds(facts, rule.bias))
            .count()
    };
    let closest = |all: &mut dyn Iterator<Item = usize>| all.min().unwrap_or_default();
    closest(&mut rule.sources.iter().map(|fields| broken(fields)))
        + closest(&mut rule.operations.iter().map(|fields| broken(fields)))
        + broken(&rule.conditions)
}

/// Service accounts with the namespace that they are read with.
fn with_namespace(field: &Field, values: &[String], spec: &PolicySpec) -> Vec<String> {
    let whole = |value: &String| match field.test {
        Test::ServiceAccounts(_) if !value.contains('/') => format!("{}/{value}", spec.id.namespace),
        _ => value.clone(),
    };
    values.iter().map(whole).collect()
}

/// What the request has, quoted; or why it has nothing.
fn actual(facts: &Facts<'_>, test: &Test) -> Result<String, &'static str> {
    let quote = |text: &str| format!("`{}`", text.escape_debug());
    let peer = || facts.peer.ok_or("the peer has no identity");
    let http = || facts.http.as_ref().ok_or("the connection is not HTTP");
    Ok(match test {
        Test::Principals(_) => {
            let id = peer()?.to_string();
            quote(id.strip_prefix("spiffe://").unwrap_or(&id))
        }
        Test::Namespaces(_) => {
            let id = peer()?;
            format!(
                "{} of trust domain {}",
                quote(id.namespace()),
                quote(id.trust_domain().as_str())
            )
        }
        Test::ServiceAccounts(_) => {
            let id = peer()?;
            let account = format!("{}/{}", id.namespace(), id.service_account());
            format!(
                "{} of trust domain {}",
                quote(&account),
                quote(id.trust_domain().as_str())
            )
        }
        Test::TrustDomains(_) => quote(peer()?.trust_domain().as_str()),
        Test::Blocks(address, _) => quote(&address.of(facts).to_canonical().to_string()),
        Test::Ports(_) => quote(&facts.destination_port.to_string()),
        Test::Sni(_) => quote(facts.sni.ok_or("there is no server name")?),
        Test::Hosts(_) => quote(http()?.authority),
        Test::Methods(_) => quote(http()?.method),
        Test::Paths(..) => quote(crate::path::without_query(http()?.path)),
        Test::Header(HeaderName::Field(name), _) if SECRET.contains(&&**name) => {
            let present = http()?.headers.present(name);
            return if present {
                Ok("the header's value".to_owned())
            } else {
                Err("the header is absent")
            };
        }
        Test::Header(name, _) => {
            let mut values = Vec::new();
            name.any(http()?, &mut |value| {
                values.push(quote(&String::from_utf8_lossy(value)));
                values.len() == VALUES
            });
            if values.is_empty() {
                return Err("the header is absent");
            }
            values.join(", ")
        }
        Test::RequestPrincipals(_) => {
            let claim = |name: &str| claim(http().ok(), name);
            let (issuer, subject) = (claim("iss"), claim("sub"));
            match (issuer, subject) {
                (None, None) => return Err("there is no verified token with `iss` and `sub`"),
                (issuer, subject) => quote(&format!(
                    "{}/{}",
                    issuer.unwrap_or_default(),
                    subject.unwrap_or_default()
                )),
            }
        }
        // What a token says is not repeated where people who did not send it may read it.
        Test::Claim(_) if http()?.claims.is_some() => "the claim of the verified token".to_owned(),
        Test::Claim(_) => return Err("there is no verified token"),
        Test::Never => return Err("there is no filter metadata"),
    })
}

fn claim(http: Option<&HttpFacts<'_>>, name: &str) -> Option<String> {
    let mut text = None;
    http?.claims?.any(&[name.to_owned()], &mut |claim| {
        let (crate::facts::Claim::Text(value) | crate::facts::Claim::Scalar(value)) = claim;
        text = Some(value.to_owned());
        true
    });
    text
}

fn of_source<'a>(source: &'a SourceSpec, name: &str) -> &'a [String] {
    match name {
        "principals" => &source.principals,
        "notPrincipals" => &source.not_principals,
        "requestPrincipals" => &source.request_principals,
        "notRequestPrincipals" => &source.not_request_principals,
        "namespaces" => &source.namespaces,
        "notNamespaces" => &source.not_namespaces,
        "serviceAccounts" => &source.service_accounts,
        "notServiceAccounts" => &source.not_service_accounts,
        "trustDomains" => &source.trust_domains,
        "notTrustDomains" => &source.not_trust_domains,
        "ipBlocks" => &source.ip_blocks,
        "notIpBlocks" => &source.not_ip_blocks,
        "remoteIpBlocks" => &source.remote_ip_blocks,
        "notRemoteIpBlocks" => &source.not_remote_ip_blocks,
        _ => &[],
    }
}

fn of_operation<'a>(operation: &'a OperationSpec, name: &str) -> &'a [String] {
    match name {
        "hosts" => &operation.hosts,
        "notHosts" => &operation.not_hosts,
        "ports" => &operation.ports,
        "notPorts" => &operation.not_ports,
        "methods" => &operation.methods,
        "notMethods" => &operation.not_methods,
        "paths" => &operation.paths,
        "notPaths" => &operation.not_paths,
        _ => &[],
    }
}
