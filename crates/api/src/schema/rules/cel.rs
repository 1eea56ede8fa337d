//! The CEL rules of Istio's schemas, and the patterns of texts, one function each.

use super::{Check, Fault, Rule};
use crate::forms::{addresses, durations, headers, names};
use crate::yaml::Node;

const fn rule(check: &'static Check) -> Rule {
    Rule::Holds(check)
}

/// A rule about one text.
fn text(node: &Node, fits: impl Fn(&str) -> bool) -> Option<Fault> {
    let text = node.text()?;
    (!fits(text)).then(|| Fault::at(node))
}

/// At the key, if both are set.
fn both(node: &Node, first: &str, second: &str) -> Option<Fault> {
    node.set(first)?;
    let (key, value) = node.entry(second)?;
    (!value.is_null()).then(|| Fault {
        span: key.span,
        value: key.text.clone(),
    })
}

/// `duration(self) >= duration('1ms')`, and whole milliseconds as the webhook wants.
pub(in crate::schema) const MILLISECONDS: Rule = rule(&Check {
    fault: |node| text(node, |text| durations::whole_ms(text).is_ok()),
    message: "must be a valid duration of at least 1ms, and of whole milliseconds",
    remedy: "write for example `5s` or `100ms`",
});

/// A duration, of any length.
pub(in crate::schema) const DURATION: Rule = rule(&Check {
    fault: |node| text(node, |text| durations::any(text).is_ok()),
    message: "must be a valid duration",
    remedy: "write for example `5s` or `100ms`",
});

/// `0 < self && self <= 65535`.
pub(in crate::schema) const PORT_NUMBER: Rule = rule(&Check {
    fault: |node| {
        let number = node.whole()?;
        addresses::port(number).is_err().then(|| Fault::at(node))
    },
    message: "port must be between 1-65535",
    remedy: "write the number of a port",
});

/// `!self.contains("*")` of the values of `workloadSelector.labels`.
pub(in crate::schema) const NO_WILDCARD: Rule = rule(&Check {
    fault: |node| text(node, |text| !text.contains('*')),
    message: "wildcard is not supported in selector",
    remedy: "name the whole label, or leave it out to select more",
});

/// `self != "*"`.
pub(in crate::schema) const NOT_EVERY_HOST: Rule = rule(&Check {
    fault: |node| text(node, |text| text != "*"),
    message: "hostname cannot be wildcard",
    remedy: "name a host, or a wildcard such as `*.example.com`",
});

/// `self.all(l1, self.exists_one(l2, l1.number == l2.number))`.
pub(in crate::schema) const PORTS_ONCE: Rule = rule(&Check {
    fault: |node| {
        let mut seen = std::collections::HashSet::new();
        let numbers = node.items().iter().filter_map(|port| port.child("number"));
        let twice = numbers
            .into_iter()
            .find(|number| number.whole().is_some_and(|number| !seen.insert(number)))?;
        Some(Fault::at(twice))
    },
    message: "port number cannot be duplicated",
    remedy: "name each port once",
});

pub(in crate::schema) const SELECTOR_OR_ENDPOINTS: Rule = rule(&Check {
    fault: |node| both(node, "workloadSelector", "endpoints"),
    message: "only one of WorkloadSelector or Endpoints can be set",
    remedy: "keep the one that is meant",
});

/// `CIDR addresses` need a resolution that takes addresses as they come.
pub(in crate::schema) const RANGES_UNRESOLVED: Rule = rule(&Check {
    fault: |node| {
        if matches!(resolution(node), "NONE" | "STATIC") {
            return None;
        }
        let ranges = node.child("addresses")?.items().iter();
        let range = ranges
            .into_iter()
            .find(|address| address.text().is_some_and(|text| text.contains('/')))?;
        Some(Fault::at(range))
    },
    message: "CIDR addresses are allowed only for NONE/STATIC resolution types",
    remedy: "write single addresses, or `resolution: NONE`",
});

pub(in crate::schema) const NONE_HAS_NO_ENDPOINTS: Rule = rule(&Check {
    fault: |node| {
        let endpoints = node.set("endpoints").filter(|_| resolution(node) == "NONE")?;
        Some(Fault::at(endpoints))
    },
    message: "NONE mode cannot set endpoints",
    remedy: "write `resolution: STATIC` or `DNS`, or leave `endpoints` out",
});

pub(in crate::schema) const ROUND_ROBIN_HAS_ONE: Rule = rule(&Check {
    fault: |node| {
        let endpoints = node
            .set("endpoints")
            .filter(|_| resolution(node) == "DNS_ROUND_ROBIN")?;
        Some(Fault::at(endpoints.items().get(1)?))
    },
    message: "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
    remedy: "keep one, or write `resolution: DNS`",
});

fn resolution(spec: &Node) -> &str {
    spec.child("resolution").and_then(Node::text).unwrap_or("NONE")
}

pub(in crate::schema) const ADDRESS_OR_NETWORK: Rule = rule(&Check {
    fault: |node| (node.set("address").is_none() && node.set("network").is_none()).then(|| Fault::at(node)),
    message: "Address is required",
    remedy: "add `address:`",
});

pub(in crate::schema) const SOCKET_HAS_NO_PORTS: Rule = rule(&Check {
    fault: |node| {
        let socket = node.child("address")?.text()?.starts_with(addresses::UNIX);
        let ports = node.set("ports").filter(|_| socket)?;
        Some(Fault::at(ports))
    },
    message: "UDS may not include ports",
    remedy: "leave `ports` out",
});

/// `unix://` is followed by an absolute path to a file, or by `@`.
pub(in crate::schema) const SOCKET_PATH: Rule = rule(&Check {
    fault: |node| {
        let path = |text: &str| {
            text.strip_prefix(addresses::UNIX)
                .is_none_or(|path| addresses::unix(path).is_ok())
        };
        text(node, path)
    },
    message: "UDS must be an absolute path or abstract socket, and may not be a dir",
    remedy: "write for example `unix:///run/app.sock`",
});

pub(in crate::schema) const PORT_NAMES: Rule = rule(&Check {
    fault: |node| {
        let (key, _) = node
            .entries()
            .iter()
            .find(|(key, _)| !names::is_dns_label(&key.text))?;
        Some(Fault {
            span: key.span,
            value: key.text.clone(),
        })
    },
    message: "port name must be valid",
    remedy: "use up to 63 letters, digits and `-`",
});

pub(in crate::schema) const PROBE_SCHEME: Rule = rule(&Check {
    fault: |node| text(node, |text| matches!(text, "" | "HTTP" | "HTTPS")),
    message: "scheme must be one of [HTTP, HTTPS]",
    remedy: "write `HTTP` or `HTTPS`",
});

/// `^[-_A-Za-z0-9]+$`.
pub(in crate::schema) const HEADER_NAME: Rule = rule(&Check {
    fault: |node| text(node, |text| headers::strict_name(text).is_ok()),
    message: "is not the name of a header",
    remedy: "use letters, digits, `-` and `_`",
});

/// `^$|^[a-f0-9]{64}$`.
pub(in crate::schema) const SHA256: Rule = rule(&Check {
    fault: |node| {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text(node, |text| {
            text.is_empty() || text.len() == 64 && text.bytes().all(digit)
        })
    },
    message: "is not a SHA-256 checksum",
    remedy: "write 64 hexadecimal digits in lower case",
});

/// The scheme is http, https, file, oci, or missing.
pub(in crate::schema) const MODULE_URL: Rule = rule(&Check {
    fault: |node| {
        let all = ["", "http", "https", "file", "oci"];
        let known = |scheme: &str| all.iter().any(|known| known.eq_ignore_ascii_case(scheme));
        text(node, |text| match addresses::scheme(text) {
            Some(scheme) => known(scheme),
            None => addresses::scheme(&format!("http://{text}")).is_some(),
        })
    },
    message: "url must have schema one of [http, https, file, oci]",
    remedy: "write for example `oci://HOST/IMAGE:TAG`",
});

pub(in crate::schema) const VALUE_OF_HOST: Rule = rule(&Check {
    fault: |node| {
        let host = node.child("valueFrom").and_then(Node::text) == Some("HOST");
        let value = node.set("value").filter(|_| host)?;
        Some(Fault::at(value))
    },
    message: "value may only be set when valueFrom is INLINE",
    remedy: "leave `value` or `valueFrom` out",
});

pub(in crate::schema) const WASM_OR_LUA: Rule = rule(&Check {
    fault: |node| (node.set("wasm").is_none() && node.set("lua").is_none()).then(|| Fault::at(node)),
    message: "exactly one of wasm or lua must be set",
    remedy: "add `wasm:` or `lua:`",
});

/// `waypoint` goes with the context WAYPOINT, and only with it.
pub(in crate::schema) const WAYPOINT_CONTEXT: Rule = rule(&Check {
    fault: |node| {
        let context = node.child("context").and_then(Node::text) == Some("WAYPOINT");
        (context != node.set("waypoint").is_some()).then(|| Fault::at(node))
    },
    message: "only support waypointMatch when context is WAYPOINT",
    remedy: "write `context: WAYPOINT` and `waypoint:` together, or neither",
});

pub(in crate::schema) const UPSERT_HAS_VALUE: Rule = rule(&Check {
    fault: |node| {
        let upsert = node.child("operation").and_then(Node::text) == Some("UPSERT");
        let empty = node
            .set("value")
            .and_then(Node::text)
            .unwrap_or_default()
            .is_empty();
        (upsert && empty).then(|| Fault::at(node))
    },
    message: "value must be set when operation is UPSERT",
    remedy: "add `value:`",
});

pub(in crate::schema) const REMOVE_HAS_NONE: Rule = rule(&Check {
    fault: |node| {
        let remove = node.child("operation").and_then(Node::text) == Some("REMOVE");
        let value = node.set("value").filter(|_| remove)?;
        Some(Fault::at(value))
    },
    message: "value must not be set when operation is REMOVE",
    remedy: "leave `value` out",
});

/// `^$|` and a subdomain.
pub(in crate::schema) const TARGET_GROUP: Rule = rule(&Check {
    fault: |node| text(node, |text| text.is_empty() || names::is_subdomain(text)),
    message: "is not the name of an API group",
    remedy: "write for example `gateway.networking.k8s.io`, or nothing for Kubernetes' core",
});

/// `^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`.
pub(in crate::schema) const TARGET_KIND: Rule = rule(&Check {
    fault: |node| {
        text(node, |text| {
            names::is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_alphabetic())
        })
    },
    message: "is not the name of a kind",
    remedy: "write for example `Service` or `Gateway`",
});
