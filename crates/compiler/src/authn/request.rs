//! Which tokens requests may carry: RequestAuthentication, on the way to a proxy, and the keys that it needs
//! (semantics 4.1, 4.2, 4.5).
//!
//! Every object that selects a workload counts; none overrides another. One that cannot be accepted refuses every
//! request to what it selects. Keys that are not here yet refuse every token, and let pass who shows none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{JwtRule, Problem, RequestAuthentication, Severity};
use jwt::{
    AuthenticationSpec, Authenticator, ClaimHeader, HeaderLocation, Jwks, KeySource, Problem as Problems,
    ProblemKind, RuleSpec,
};
use model::Reason;
use policy::{Invalid, PolicyId};
use snapshot::Resource;

use crate::pods::PodFacts;
use crate::report::{Report, code, tell_nothing_selected};
use crate::view::{Of, View, covers};

/// `"true"`: tokens may be signed with a secret that the issuer shares (semantics 4.3).
const ALLOW_HMAC: &str = "meshward.dev/jwt-allow-hmac";
/// `"true"`: tokens need not say when they end (JW-42).
const ALLOW_MISSING_EXP: &str = "meshward.dev/jwt-allow-missing-exp";
/// What a source begins with whose keys the issuer's discovery document names.
pub(crate) const DISCOVERY: &str = "discovery:";
/// `timeout` where absent, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 5_000;
/// What is said of keys that nobody has asked for yet.
const NOT_YET: &str = "not fetched yet";
/// Fields that no claim may be written to: they frame a message, name its receiver, or speak for a proxy.
const RESERVED: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "x-forwarded-client-cert",
];

/// The objects by namespace, and the keys of all their issuers.
#[derive(Debug)]
pub(crate) struct Requests<'a> {
    root_namespace: &'a str,
    namespaces: HashMap<&'a str, Vec<Entry<'a>>>,
    resources: BTreeMap<PolicyId, Arc<AuthenticationSpec>>,
    jwks: BTreeMap<String, Arc<Jwks>>,
    wanted: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Entry<'a> {
    of: Of<'a, RequestAuthentication>,
    spec: Arc<AuthenticationSpec>,
}

impl<'a> Requests<'a> {
    pub(crate) fn new(view: &View<'a>, report: &mut Report) -> Self {
        let mut requests = Self {
            root_namespace: view.root_namespace(),
            namespaces: HashMap::new(),
            resources: BTreeMap::new(),
            jwks: BTreeMap::new(),
            wanted: BTreeMap::new(),
        };
        for of in &view.request_authentications {
            requests.add(view, *of, report);
        }
        requests
    }

    fn add(&mut self, view: &View<'a>, of: Of<'a, RequestAuthentication>, report: &mut Report) {
        let refused = of.object.refused(view.options.profile);
        if !of.body.target_refs.is_empty() && refused.is_none() {
            let why = "an object with `targetRefs` speaks of gateways and waypoints, which this version does not have";
            report.unheeded(of.object, "spec", why, "use `selector` to speak of pods");
            return;
        }
        let unusable = refused.map(str::to_owned).or_else(|| unusable(of.body));
        if let Some(why) = &unusable {
            let told = format!("invalid, therefore it refuses every request to what it selects: {why}");
            report.qualify(of.object, told);
            if refused.is_none() {
                let message = format!("{why}; the object refuses every request to what it selects");
                let problem = Problem::new(Severity::Error, code::DEFECTIVE, message);
                report.tell(of.object, "spec.jwtRules", problem.remedy("take it out"));
            }
        } else {
            weakened(of, report);
            for (at, rule) in of.body.jwt_rules.iter().enumerate() {
                self.want(view, of, at, rule, report);
            }
        }
        let is_root = of.namespace() == self.root_namespace;
        tell_nothing_selected(view, of.object, is_root, of.body.labels(), report);
        let spec = Arc::new(spec(of, unusable));
        self.find_problems(view, of, &spec, report);
        self.resources.insert(spec.id.clone(), Arc::clone(&spec));
        let entry = Entry { of, spec };
        self.namespaces.entry(of.namespace()).or_default().push(entry);
    }

    /// Takes the keys of a rule from the world.
    fn want(
        &mut self,
        view: &View<'a>,
        of: Of<'a, RequestAuthentication>,
        at: usize,
        rule: &JwtRule,
        report: &mut Report,
    ) {
        let KeySource::Fetched(source) = keys(rule) else {
            return;
        };
        let timeout = rule.timeout.as_deref().and_then(api::duration_ms);
        let timeout = timeout.unwrap_or(FETCH_TIMEOUT_MS);
        let longest = self.wanted.entry(source.clone()).or_default();
        *longest = timeout.max(*longest);
        let path = format!("spec.jwtRules[{at}]");
        if source.starts_with("http://") {
            let message = format!(
                "`{source}` is plaintext: whoever is on the way can put keys of their own in place of the issuer's"
            );
            let problem = Problem::new(Severity::Warning, code::KEYS, message).remedy("use https");
            report.tell(of.object, &path, problem);
        }
        // Proxies are not told of failures as long as there are keys: nothing changes for them.
        let held = view.jwks.get(&source);
        let keys = held.and_then(|held| held.keys.clone());
        let why = held.and_then(|held| held.why.clone());
        let jwks = Jwks {
            why: keys.is_none().then(|| why.unwrap_or_else(|| NOT_YET.to_owned())),
            keys,
            source: source.clone(),
        };
        self.jwks.insert(source, Arc::new(jwks));
    }

    /// Asks the very code that will verify what it cannot use.
    fn find_problems(
        &self,
        view: &View<'a>,
        of: Of<'a, RequestAuthentication>,
        spec: &Arc<AuthenticationSpec>,
        report: &mut Report,
    ) {
        let find = |source: &str| view.jwks.get(source).or_else(|| self.jwks.get(source)).cloned();
        if !report.hears(of.object) {
            return;
        }
        let found = Authenticator::compile(&[Arc::clone(spec)], &[], &find, view.secure());
        for problem in found.problems() {
            let Problems {
                issuer, why, source, ..
            } = problem;
            let at = source
                .as_ref()
                .map_or_else(|| "`jwks`".to_owned(), |source| format!("`{source}`"));
            let said = match problem.kind {
                ProblemKind::NoKeys => {
                    format!("tokens of issuer `{issuer}` are refused, there are no keys of {at}: {why}")
                }
                ProblemKind::Stale => {
                    format!("the keys of issuer `{issuer}` are the last good ones of {at}: {why}")
                }
                ProblemKind::KeySkipped | ProblemKind::KeyExposed => {
                    format!("the keys of issuer `{issuer}`, {at}: {why}")
                }
                ProblemKind::Issuer | ProblemKind::Header => format!("the rule of issuer `{issuer}`: {why}"),
            };
            if why != NOT_YET {
                let remedy = match problem.kind {
                    ProblemKind::NoKeys | ProblemKind::Stale => {
                        "see that the control plane gets keys from there"
                    }
                    _ => "mend the rule, or the set of keys",
                };
                let told = Problem::new(Severity::Warning, code::KEYS, said.clone()).remedy(remedy);
                report.tell(of.object, "spec.jwtRules", told);
            }
            report.qualify(of.object, said);
        }
    }

    /// The objects that select a pod, by name; tells each of them. `needed` says whether policy demands tokens there.
    pub(crate) fn select(&self, pod: &PodFacts, needed: bool, report: &mut Report) -> Vec<PolicyId> {
        let scopes: BTreeSet<&str> = [self.root_namespace, pod.namespace()].into();
        let candidates = scopes
            .into_iter()
            .filter_map(|ns| self.namespaces.get(ns))
            .flatten();
        let mut ids = Vec::new();
        for entry in candidates.filter(|entry| covers(entry.of.body.labels(), pod.labels())) {
            report.applies(entry.of.object, pod.place());
            if !needed && entry.spec.invalid.is_none() {
                // `lint` tells it with a place.
                let why = "requests without a token pass: no ALLOW or DENY policy of what it selects asks for request principals or claims (P56)";
                report.qualify(entry.of.object, why.to_owned());
            }
            ids.push(entry.spec.id.clone());
        }
        ids.sort();
        ids
    }

    /// The objects of these names, with their keys.
    pub(crate) fn resources(&self, ids: &BTreeSet<&PolicyId>) -> Vec<Resource> {
        let mut found = Vec::new();
        let mut sources = BTreeSet::new();
        for spec in ids.iter().filter_map(|id| self.resources.get(*id)) {
            found.push(Resource::Authentication(Arc::clone(spec)));
            for rule in &spec.rules {
                if let KeySource::Fetched(source) = &rule.keys {
                    sources.insert(source);
                }
            }
        }
        let keys = sources.into_iter().filter_map(|source| self.jwks.get(source));
        found.extend(keys.map(|jwks| Resource::Jwks(Arc::clone(jwks))));
        found
    }

    /// For people: how many there are before a pod, or which one refuses everything.
    pub(crate) fn describe(&self, ids: &[PolicyId]) -> Option<String> {
        let broken = |id: &&PolicyId| self.resources.get(id).is_none_or(|spec| spec.invalid.is_some());
        if let Some(broken) = ids.iter().find(broken) {
            return Some(format!("invalid: {broken}"));
        }
        match ids.len() {
            0 => None,
            1 => Some("1 request authentication".to_owned()),
            n => Some(format!("{n} request authentications")),
        }
    }

    /// The sources that somebody has to fetch keys from, and how long each may take, in milliseconds.
    pub(crate) fn wanted(self) -> BTreeMap<String, u64> {
        self.wanted
    }
}

fn has(of: &Of<'_, RequestAuthentication>, annotation: &str) -> bool {
    let value = of.object.meta.annotations.get(annotation);
    value.is_some_and(|value| value == "true")
}

/// Says what an object has been opened to, where it has rules.
fn weakened(of: Of<'_, RequestAuthentication>, report: &mut Report) {
    for (annotation, what) in [
        (
            ALLOW_HMAC,
            "tokens may be signed with a shared secret: whoever can verify them can make them",
        ),
        (
            ALLOW_MISSING_EXP,
            "tokens need not expire: one that is stolen is good for as long as its key",
        ),
    ] {
        if has(&of, annotation) {
            report.qualify(of.object, format!("weakened by `{annotation}`: {what}"));
        }
    }
}

/// Why an object that was accepted cannot be carried out.
fn unusable(body: &RequestAuthentication) -> Option<String> {
    let mut rules = body.jwt_rules.iter();
    if rules.any(|rule| !rule.jwks.is_empty() && !rule.jwks_uri.is_empty()) {
        return Some("a rule has both `jwks` and `jwksUri`".to_owned());
    }
    reserved(body)
}

/// Why what it would write to a header cannot be written.
fn reserved(body: &RequestAuthentication) -> Option<String> {
    let rules = body.jwt_rules.iter();
    let named = rules.flat_map(|rule| {
        let payload = std::iter::once(&rule.output_payload_to_header).filter(|name| !name.is_empty());
        payload.chain(rule.output_claim_to_headers.iter().map(|output| &output.header))
    });
    let is_reserved = |name: &str| {
        let dashed = name.to_ascii_lowercase().replace('_', "-");
        RESERVED.contains(&dashed.as_str())
    };
    let is_token = |name: &str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    named.into_iter().find_map(|name| match name.as_str() {
        name if is_reserved(name) => Some(format!("`{name}` is a header that no claim may be written to")),
        name if !is_token(name) => Some(format!("`{name}` is not the name of a header")),
        _ => None,
    })
}

/// An object in the form that travels. What cannot be accepted travels without its rules, and refuses.
fn spec(of: Of<'_, RequestAuthentication>, unusable: Option<String>) -> AuthenticationSpec {
    let opened = (has(&of, ALLOW_HMAC), has(&of, ALLOW_MISSING_EXP));
    let rules = match unusable {
        Some(_) => Vec::new(),
        None => of
            .body
            .jwt_rules
            .iter()
            .map(|written| rule(written, opened))
            .collect(),
    };
    AuthenticationSpec {
        id: PolicyId {
            namespace: of.namespace().to_owned(),
            name: of.name().to_owned(),
        },
        rules,
        invalid: unusable.map(|why| Invalid {
            reason: Reason::DenyPolicyInvalid,
            why,
        }),
        origin: policy::Origin {
            file: of.object.origin.file.clone(),
            line: of.object.origin.line,
        },
    }
}

/// Taken apart by name, so that a field that is added and not carried is an error of the Rust compiler's (R7).
fn rule(written: &JwtRule, (allow_hmac, allow_missing_exp): (bool, bool)) -> RuleSpec {
    let keys = keys(written);
    let JwtRule {
        issuer,
        audiences,
        jwks_uri: _,
        jwks: _,
        from_headers,
        from_params,
        from_cookies,
        output_payload_to_header,
        output_claim_to_headers,
        forward_original_token,
        timeout: _,
        space_delimited_claims,
        presence,
        line,
    } = written.clone();
    let location = |header: api::JwtHeader| HeaderLocation {
        name: header.name,
        prefix: header.prefix,
    };
    let output = |output: api::OutputClaim| ClaimHeader {
        header: output.header,
        claim: output.claim,
    };
    RuleSpec {
        issuer,
        audiences,
        keys,
        from_headers: from_headers.into_iter().map(location).collect(),
        from_params,
        from_cookies,
        output_payload_to_header: Some(output_payload_to_header).filter(|name| !name.is_empty()),
        output_claim_to_headers: output_claim_to_headers.into_iter().map(output).collect(),
        forward_original_token,
        space_delimited_claims,
        required: presence == "REQUIRED",
        allow_hmac,
        allow_missing_exp,
        line,
    }
}

/// Where the keys of a rule are: in it, at an address, or where the issuer's discovery document says.
fn keys(rule: &JwtRule) -> KeySource {
    if !rule.jwks.is_empty() {
        return KeySource::Inline(rule.jwks.clone());
    }
    KeySource::Fetched(match rule.jwks_uri.as_str() {
        "" => format!("{DISCOVERY}{}", rule.issuer),
        uri => uri.to_owned(),
    })
}
