//! Routes of HTTP.

use super::{connection_match, destination, weighted};
use crate::check::at::At;
use crate::check::traffic;
use crate::forms::{headers, names, regex};
use crate::report::Report;

const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
];
/// The largest body of a direct response, and from where on it is warned of, in bytes.
const MAX_BODY: usize = 1024 * 1024;
const LARGE_BODY: usize = 100 * 1024;

/// One of `http`.
pub(super) fn route(route: &At<'_>, delegate: bool, at_gateway: bool, report: &mut Report<'_>) {
    conflicts(route, delegate, report);
    for wanted in route.list("match") {
        http_match(&wanted, at_gateway, report);
    }
    if let Some(operations) = route.get("headers") {
        header_operations(&operations, report);
    }
    if let Some(policy) = route.get("corsPolicy") {
        cors(&policy, report);
    }
    if let Some(fault) = route.get("fault") {
        self::fault(&fault, report);
    }
    mirrors(route, report);
    if let Some(redirect) = route.get("redirect") {
        self::redirect(route, &redirect, report);
    }
    if let Some(response) = route.get("directResponse") {
        direct_response(&response, report);
    }
    if let Some(retries) = route.get("retries") {
        traffic::retries(&retries, report);
    }
    if let Some(rewrite) = route.get("rewrite") {
        self::rewrite(&rewrite, report);
    }
    one_authority(route, report);
    for to in route.list("route") {
        if let Some(operations) = to.get("headers") {
            header_operations(&operations, report);
        }
    }
    weighted(route, report);
}

/// What cannot stand together, and what must.
fn conflicts(route: &At<'_>, delegate: bool, report: &mut Report<'_>) {
    if let Some(to) = route.get("delegate") {
        if delegate {
            return to.refuse(
                report,
                "a delegate cannot delegate further",
                "route to a destination",
            );
        }
        let there = |key: &&str| route.has(key) && (*key == "redirect" || route.count(key) > 0);
        for key in ["redirect", "route"].into_iter().filter(there) {
            route
                .near(key)
                .refuse(report, "the route is delegated", "keep `delegate`, or this");
        }
        return;
    }
    let answer = ["redirect", "directResponse"]
        .into_iter()
        .find(|key| route.has(key));
    match answer {
        Some(answer) => {
            let others = ["route", "fault", "rewrite", "directResponse"];
            for key in others.into_iter().filter(|key| *key != answer && route.has(key)) {
                if key == "route" && route.count("route") == 0 {
                    continue;
                }
                route.near(key).refuse(
                    report,
                    &format!("the route is answered by `{answer}`"),
                    &format!("keep `{answer}`, or this"),
                );
            }
        }
        None if route.count("route") == 0 => route.refuse(
            report,
            "it leads nowhere",
            "add `route:`, `redirect:` or `directResponse:`",
        ),
        None => {}
    }
    if route.has("mirror") && route.count("mirrors") > 0 {
        route
            .near("mirrors")
            .refuse(report, "it cannot stand beside `mirror`", "keep `mirrors`");
    }
}

fn http_match(wanted: &At<'_>, at_gateway: bool, report: &mut Report<'_>) {
    for list in ["headers", "withoutHeaders"] {
        for (key, value) in wanted.map(list) {
            if let Err(why) = headers::matched_name(&key.text) {
                value.refuse_key(report, key, &why, "write the name of a header");
            }
            if headers::is_claim(&key.text) && !at_gateway {
                value.refuse_key(
                    report,
                    key,
                    "claims of tokens route at gateways alone",
                    "bind the VirtualService to a gateway, and not to the mesh",
                );
            }
            if list == "headers" && value.node.is_null() {
                value.refuse(
                    report,
                    "it matches nothing",
                    "write `exact:`, `prefix:` or `regex:`",
                );
            }
            // `*` alone means that the header is there.
            let present = list == "withoutHeaders" && value.text("regex") == "*";
            if !present {
                string_match(&value, report);
            }
        }
    }
    for key in ["scheme", "method", "authority"] {
        if let Some(at) = wanted.get(key) {
            string_match(&at, report);
        }
    }
    for (_, value) in wanted.map("queryParams") {
        string_match(&value, report);
    }
    if let Some(uri) = wanted.get("uri") {
        expression(&uri, report);
    }
    connection_match(wanted, report);
    let namespace = wanted.text("sourceNamespace");
    if !namespace.is_empty() && !names::is_dns_label(namespace) {
        wanted.near("sourceNamespace").refuse(
            report,
            &format!("`{namespace}` cannot be a namespace"),
            "use up to 63 letters, digits and `-`",
        );
    }
}

fn string_match(at: &At<'_>, report: &mut Report<'_>) {
    if let Some(prefix) = at.get("prefix").filter(|prefix| prefix.own().is_empty()) {
        prefix.refuse(
            report,
            "an empty prefix matches everything",
            "say what is meant, or leave it out",
        );
    }
    expression(at, report);
}

fn expression(at: &At<'_>, report: &mut Report<'_>) {
    if let Some(regex) = at.get("regex") {
        regex.demand(
            report,
            regex::re2(regex.own()),
            "write a regular expression of RE2 (github.com/google/re2/wiki/Syntax)",
        );
    }
}

fn header_operations(operations: &At<'_>, report: &mut Report<'_>) {
    for side in ["request", "response"] {
        let Some(at) = operations.get(side) else { continue };
        for list in ["add", "set"] {
            for (key, value) in at.map(list) {
                if let Err(why) = headers::set_name(&key.text, side == "request") {
                    value.refuse_key(report, key, &why, "write the name of another header");
                }
                value.demand(
                    report,
                    headers::value(value.own()),
                    "double each `%` that is meant as such",
                );
            }
        }
        for name in at.list("remove") {
            name.demand(
                report,
                headers::set_name(name.own(), false),
                "write the name of another header",
            );
        }
    }
}

/// `rewrite.authority` and the headers of the request set the same thing.
fn one_authority(route: &At<'_>, report: &mut Report<'_>) {
    let rewritten = route
        .get("rewrite")
        .is_some_and(|rewrite| !rewrite.text("authority").is_empty());
    let mut set = rewritten;
    let request = route.get("headers").and_then(|headers| headers.get("request"));
    let Some(request) = request else { return };
    for (key, value) in request.map("set").chain(request.map("add")) {
        if !headers::is_authority(&key.text) {
            continue;
        }
        if set {
            value.refuse_key(report, key, "the authority is set already", "set it once");
        }
        set |= !value.own().is_empty();
    }
}

fn cors(policy: &At<'_>, report: &mut Report<'_>) {
    for origin in policy.list("allowOrigins") {
        let empty = ["exact", "prefix", "regex"]
            .iter()
            .all(|key| origin.text(key).is_empty());
        if empty {
            origin.refuse(
                report,
                "it allows no origin",
                "write `exact:`, `prefix:` or `regex:`",
            );
        } else {
            expression(&origin, report);
        }
    }
    for method in policy.list("allowMethods") {
        if !METHODS.contains(&method.own()) {
            method.refuse(
                report,
                &format!("`{}` is no method of HTTP", method.own()),
                &format!("write one of {}", METHODS.join(", ")),
            );
        }
    }
    for list in ["allowHeaders", "exposeHeaders"] {
        for name in policy.list(list) {
            name.demand(report, headers::cors_name(name.own()), "write a header, or `*`");
        }
    }
    if let Some(age) = policy.get("maxAge")
        && crate::forms::durations::nanoseconds(age.own()).is_some_and(|ns| ns % 1_000_000_000 != 0)
    {
        age.refuse(report, "it is finer than seconds", "write whole seconds");
    }
}

fn fault(fault: &At<'_>, report: &mut Report<'_>) {
    if !fault.has("abort") && !fault.has("delay") {
        fault.refuse(
            report,
            "it has neither `abort` nor `delay`",
            "say what is meant, or leave it out",
        );
    }
    if let Some(abort) = fault.get("abort") {
        percentage(&abort, report);
        if let Some(status) = abort.get("httpStatus") {
            self::status(&status, report);
        } else if let Some(status) = abort.get("grpcStatus") {
            let name = status.own();
            if !GRPC_STATUSES.contains(&name) {
                let remedy = crate::suggest::nearest(name, GRPC_STATUSES.iter().copied()).map_or_else(
                    || "write for example `NOT_FOUND`".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                status.refuse(report, &format!("`{name}` is no status of gRPC"), &remedy);
            }
        } else if let Some(error) = abort.get("http2Error") {
            error.refuse(
                report,
                "errors of HTTP/2 cannot be injected",
                "write `httpStatus:`",
            );
        } else {
            abort.warn(
                report,
                "it does not say what to answer",
                "add `httpStatus:` or `grpcStatus:`",
            );
        }
    }
    if let Some(delay) = fault.get("delay") {
        percentage(&delay, report);
        if let Some(growing) = delay.get("exponentialDelay") {
            growing.refuse(report, "delays cannot grow", "write `fixedDelay:`");
        }
    }
}

/// `percentage` of a fault: 0, or from 0.0001 to 100.
fn percentage(at: &At<'_>, report: &mut Report<'_>) {
    let Some(percentage) = at.get("percentage") else {
        return;
    };
    let value = percentage.real("value").unwrap_or(0.0);
    if value != 0.0 && !(0.0001..=100.0).contains(&value) {
        percentage.near("value").refuse(
            report,
            "it is neither 0 nor from 0.0001 to 100",
            "write a percentage",
        );
    }
}

/// Istio's bounds, 600 among them.
fn status(at: &At<'_>, report: &mut Report<'_>) {
    if at.node.whole().is_none_or(|code| !(200..=600).contains(&code)) {
        at.refuse(
            report,
            "it is no status of a final answer",
            "write a number from 200 to 599",
        );
    }
}

fn mirrors(route: &At<'_>, report: &mut Report<'_>) {
    if let Some(target) = route.get("mirror") {
        destination(&target, report);
    }
    let whole = |at: &At<'_>, report: &mut Report<'_>| {
        if let Some(value) = at.real("value")
            && !(0.0..=100.0).contains(&value)
        {
            at.near("value")
                .refuse(report, "it is not from 0 to 100", "write a percentage");
        }
    };
    for mirror in route.list("mirrors") {
        if let Some(target) = mirror.get("destination") {
            destination(&target, report);
        }
        if let Some(share) = mirror.get("percentage") {
            whole(&share, report);
        }
    }
    if let Some(share) = route.get("mirrorPercentage") {
        whole(&share, report);
    }
    for key in ["mirrorPercent", "mirror_percent"] {
        let Some(percent) = route.get(key) else { continue };
        if percent.node.whole().is_some_and(|value| value > 100) {
            percent.refuse(report, "it is not from 0 to 100", "write a percentage");
        }
        percent.warn(report, "it is deprecated", "use `mirrorPercentage`");
    }
}

fn redirect(route: &At<'_>, redirect: &At<'_>, report: &mut Report<'_>) {
    let set = |key: &str| !redirect.text(key).is_empty();
    if set("uri") && set("prefixRewrite") {
        redirect.near("prefixRewrite").refuse(
            report,
            "it cannot stand beside `uri`",
            "keep the one that is meant",
        );
    } else if set("prefixRewrite") {
        let other = route.list("match").filter_map(|wanted| wanted.get("uri"));
        for uri in other.filter(|uri| !uri.has("prefix")) {
            uri.refuse(
                report,
                "only a prefix that was matched can be rewritten",
                "match by `prefix:`, or leave `prefixRewrite` out",
            );
        }
    }
    let any = ["uri", "prefixRewrite", "authority", "scheme"]
        .iter()
        .any(|key| set(key));
    if !any && !redirect.has("port") && !redirect.has("derivePort") {
        redirect.refuse(
            report,
            "it leads to where the request came from",
            "add `uri:`, `authority:`, `scheme:` or `port:`",
        );
    }
    if redirect
        .whole("redirectCode")
        .is_some_and(|code| code != 0 && !(300..=399).contains(&code))
    {
        redirect.near("redirectCode").refuse(
            report,
            "it is no status of a redirect",
            "write 301, 302, 303, 307 or 308",
        );
    }
    if !matches!(redirect.text("scheme"), "" | "http" | "https") {
        redirect
            .near("scheme")
            .refuse(report, "it is neither http nor https", "write `http` or `https`");
    }
    if redirect.whole("port").is_some_and(|number| number > 0) {
        redirect.demand_port(report, "port");
    }
}

fn direct_response(response: &At<'_>, report: &mut Report<'_>) {
    if let Some(status) = response.get("status") {
        self::status(&status, report);
    }
    let Some(body) = response.get("body") else { return };
    if let Some(bytes) = body.get("bytes").filter(|bytes| !is_base64(bytes.own())) {
        bytes.warn(
            report,
            "it is not base64, which Istio's own reader asks for",
            "write text as `string:`, or encode it",
        );
    }
    // As written: base64 is a third longer than what it stands for.
    let size = body.text("string").len().max(body.text("bytes").len());
    if size > MAX_BODY {
        body.refuse(report, "the body has more than 1 MiB", "let a service answer");
    } else if size > LARGE_BODY {
        body.warn(
            report,
            "the body has more than 100 KiB, and goes to every proxy",
            "let a service answer",
        );
    }
}

/// Whether a text is what the JSON form of protobuf reads as bytes: base64 in either alphabet, padded or not.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    digits.bytes().all(alphabet)
        && digits.len() % 4 != 1
        && (padding == 0 || (padding < 3 && text.len().is_multiple_of(4)))
}

fn rewrite(rewrite: &At<'_>, report: &mut Report<'_>) {
    let set = |key: &str| !rewrite.text(key).is_empty();
    let by_regex = rewrite.get("uriRegexRewrite");
    if set("uri") && by_regex.is_some() {
        rewrite.near("uriRegexRewrite").refuse(
            report,
            "it cannot stand beside `uri`",
            "keep the one that is meant",
        );
    }
    if !set("uri") && by_regex.is_none() && !set("authority") {
        rewrite.refuse(
            report,
            "it changes nothing",
            "add `uri:`, `uriRegexRewrite:` or `authority:`",
        );
    }
    if let Some(by_regex) = by_regex {
        for key in ["match", "rewrite"] {
            if by_regex.text(key).is_empty() {
                by_regex.refuse(
                    report,
                    &format!("it needs `{key}`"),
                    "write `match:` and `rewrite:`",
                );
            }
        }
        by_regex.demand_text(report, "match", regex::re2, "write a regular expression of RE2");
    }
}
