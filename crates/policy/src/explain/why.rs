//! The field that decided, in a sentence.

use crate::compile::Rule;
use crate::facts::{Facts, HttpFacts};
use crate::matchers::{Field, HeaderName, Test};
use crate::spec::{OperationSpec, PolicySpec, RuleSpec, SourceSpec};

/// How many values of a field a sentence names.
const VALUES: usize = 4;
/// Headers whose values are not repeated.
const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// A sentence for each field that does not hold, along the alternatives that came closest.
pub(super) fn failed(facts: &Facts<'_>, spec: &PolicySpec, written: &RuleSpec, rule: &Rule) -> Vec<String> {
    let broken =
        |fields: &[Field], values: &dyn Fn(&Field) -> Vec<String>, key: &dyn Fn(&Field) -> String| {
            fields
                .iter()
                .filter(|field| !field.holds(facts, rule.bias))
                .map(|field| sentence(facts, field, &key(field), &values(field)))
                .collect::<Vec<String>>()
        };
    let name = |field: &Field| field.name.to_owned();
    let sources = written.from.iter().zip(&rule.sources).map(|(source, fields)| {
        let values = |field: &Field| with_namespace(field, of_source(source, field.name), spec);
        broken(fields, &values, &name)
    });
    let operations = written
        .to
        .iter()
        .zip(&rule.operations)
        .map(|(operation, fields)| {
            broken(
                fields,
                &|field| of_operation(operation, field.name).to_vec(),
                &name,
            )
        });
    let condition = |field: &Field| {
        usize::try_from(field.place)
            .ok()
            .and_then(|at| written.when.get(at))
    };
    let values = |field: &Field| {
        let list = condition(field).map(|c| if field.negated { &c.not_values } else { &c.values });
        with_namespace(field, list.map(Vec::as_slice).unwrap_or_default(), spec)
    };
    let key = |field: &Field| {
        let key = condition(field).map(|c| c.key.clone()).unwrap_or_default();
        if field.negated {
            format!("{key} notValues")
        } else {
            key
        }
    };
    let closest = |all: &mut dyn Iterator<Item = Vec<String>>| all.min_by_key(Vec::len).unwrap_or_default();
    let mut failed = closest(&mut sources.into_iter());
    failed.extend(closest(&mut operations.into_iter()));
    failed.extend(broken(&rule.conditions, &values, &key));
    failed
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

fn sentence(facts: &Facts<'_>, field: &Field, name: &str, values: &[String]) -> String {
    let mut list: Vec<String> = values.iter().take(VALUES).map(|v| format!("`{v}`")).collect();
    if values.len() > VALUES {
        list.push(format!("and {} more", values.len() - VALUES));
    }
    let list = list.join(", ");
    match (actual(facts, &field.test), field.negated) {
        (Ok(actual), false) => format!("{name}: {actual} is not among {list}"),
        (Ok(actual), true) => format!("{name}: {actual} is among {list}"),
        (Err(absent), false) => format!("{name}: {absent}, and {list} is asked for"),
        (Err(absent), true) => format!("{name}: {absent}, which counts as among {list}"),
    }
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
