//! How traffic is balanced, pooled, retried: what DestinationRule, Sidecar and MeshConfig have in common.

use std::collections::HashSet;

use super::at::At;
use crate::forms::durations;
use crate::report::Report;

const TOPOLOGY: &[&str] = &[
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];
/// What `retryOn` knows besides the codes of HTTP.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
/// The codes that HTTP has a name for (IANA's list).
const STATUSES: &[u16] = &[
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
    422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// `connectionPool`.
pub(super) fn pool(pool: &At<'_>, report: &mut Report<'_>) {
    if !pool.has("http") && !pool.has("tcp") {
        pool.refuse(
            report,
            "it has neither `http` nor `tcp`",
            "say what is meant, or leave it out",
        );
    }
    if let Some(http) = pool.get("http") {
        for key in [
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "maxConcurrentStreams",
        ] {
            http.demand_not_negative(report, key);
        }
        if http.text("h2UpgradePolicy") == "UPGRADE" && http.flag("useClientProtocol") {
            http.near("useClientProtocol").refuse(
                report,
                "the client's protocol cannot be kept where all is upgraded to HTTP/2",
                "keep `useClientProtocol` or `h2UpgradePolicy: UPGRADE`",
            );
        }
        if let Some(keepalive) = http.get("http2KeepAlive") {
            for key in ["interval", "timeout"].into_iter().filter(|k| !keepalive.has(k)) {
                keepalive.refuse(report, &format!("it needs `{key}`"), "add it, as in `30s`");
            }
        }
    }
    if let Some(tcp) = pool.get("tcp") {
        tcp.demand_not_negative(report, "maxConnections");
        if let Some(idle) = tcp.get("idleTimeout") {
            // Below a millisecond means never.
            let never = durations::nanoseconds(idle.own()).is_none_or(|ns| ns.abs() < 1_000_000);
            if !never {
                idle.demand(report, durations::whole_ms(idle.own()), "write for example `5s`");
            }
        }
    }
}

/// `outlierDetection`.
pub(super) fn outliers(outliers: &At<'_>, report: &mut Report<'_>) {
    if outliers.whole("consecutiveErrors").is_some_and(|n| n != 0) {
        outliers.near("consecutiveErrors").warn(
            report,
            "it is deprecated",
            "use `consecutiveGatewayErrors` or `consecutive5xxErrors`",
        );
    }
    let local = "consecutiveLocalOriginFailures";
    if !outliers.flag("splitExternalLocalOriginErrors") && outliers.whole(local).is_some_and(|n| n > 0) {
        outliers.near(local).refuse(
            report,
            "failures of local origin are not told apart",
            "write `splitExternalLocalOriginErrors: true`",
        );
    }
    for key in ["maxEjectionPercent", "minHealthPercent"] {
        if outliers.whole(key).is_some_and(|n| !(0..=100).contains(&n)) {
            outliers
                .near(key)
                .refuse(report, "it is not from 0 to 100", "write a percentage");
        }
    }
}

/// `loadBalancer`. Failover is for endpoints that were found ill: `watched` says whether they are.
pub(super) fn balancer(balancer: &At<'_>, watched: bool, report: &mut Report<'_>) {
    if let Some(hash) = balancer.get("consistentHash") {
        consistent_hash(&hash, report);
    }
    if balancer.has("localityLbSetting")
        && let Some(zones) = balancer.get("zoneAwareLbSetting")
    {
        zones.refuse(
            report,
            "it cannot stand beside `localityLbSetting`",
            "keep the one that is meant",
        );
    }
    if let Some(setting) = balancer.get("localityLbSetting") {
        locality(&setting, watched, report);
    }
    if let Some(setting) = balancer.get("zoneAwareLbSetting") {
        zones(&setting, watched, report);
    }
    if let Some(warmup) = balancer.get("warmup")
        && warmup.real("aggression") == Some(0.0)
    {
        warmup
            .near("aggression")
            .refuse(report, "it is not above 0", "write for example `1`");
    }
}

fn consistent_hash(hash: &At<'_>, report: &mut Report<'_>) {
    if let Some(cookie) = hash.get("httpCookie") {
        if cookie.text("name").is_empty() {
            cookie
                .near("name")
                .refuse(report, "the cookie has no name", "name it");
        }
        let mut seen = HashSet::new();
        for attribute in cookie.list("attributes") {
            let name = attribute.text("name");
            if name.is_empty() {
                attribute.refuse(report, "the attribute has no name", "name it, or take it out");
            } else if !seen.insert(name) {
                attribute
                    .near("name")
                    .refuse(report, "the attribute is written twice", "keep one");
            }
        }
    }
    if hash.whole("minimumRingSize").is_some_and(|n| n != 0) {
        let at = hash.near("minimumRingSize");
        if hash.has("ringHash") || hash.has("maglev") {
            at.refuse(
                report,
                "it cannot stand beside `ringHash` or `maglev`",
                "write it under `ringHash`",
            );
        } else {
            at.warn(report, "it is deprecated", "write it under `ringHash`");
        }
    }
    if let Some(maglev) = hash.get("maglev") {
        let size = maglev.whole("tableSize").unwrap_or(0);
        if !(1..5_000_011).contains(&size) || !is_prime(size) {
            maglev.near("tableSize").refuse(
                report,
                "the size of the table is not a prime below 5000011",
                "write for example 65537",
            );
        }
    }
}

/// By trial; the number is below 5000011. One counts as a prime, as it does for Envoy.
fn is_prime(number: i64) -> bool {
    number < 4
        || number % 2 != 0
            && (3..)
                .step_by(2)
                .take_while(|f| f * f <= number)
                .all(|f| number % f != 0)
}

/// `localityLbSetting`.
pub(super) fn locality(setting: &At<'_>, watched: bool, report: &mut Report<'_>) {
    if setting.count("distribute") > 0 && setting.count("failover") > 0 {
        return setting.near("failover").refuse(
            report,
            "it cannot stand beside `distribute`",
            "keep the one that is meant",
        );
    }
    let topology = setting
        .list("failoverPriority")
        .find(|label| TOPOLOGY.contains(&label.own()));
    if setting.count("failover") > 0
        && let Some(label) = topology
    {
        return label.refuse(
            report,
            "labels of the topology cannot stand beside `failover`",
            "take it out, or leave `failover` out",
        );
    }
    let mut from = Vec::new();
    for share in setting.list("distribute") {
        from.push(share.text("from"));
        let total: i64 = share
            .map("to")
            .filter_map(|(_, weight)| weight.node.whole())
            .sum();
        let zero = share
            .map("to")
            .find(|(_, weight)| weight.node.whole().is_none_or(|w| !(1..=100).contains(&w)));
        if let Some((_, weight)) = zero {
            return weight.refuse(report, "the weight is not from 1 to 100", "write a percentage");
        }
        if total != 100 {
            return share.near("to").refuse(
                report,
                &format!("the weights make {total}"),
                "make them 100 together",
            );
        }
        let to: Vec<&str> = share.map("to").map(|(key, _)| key.text.as_str()).collect();
        localities(&to, &share.near("to"), report);
    }
    localities(&from, &setting.near("distribute"), report);
    failover(setting, watched, report);
}

/// `zoneAwareLbSetting`.
pub(super) fn zones(setting: &At<'_>, watched: bool, report: &mut Report<'_>) {
    for label in setting.list("failoverPriority") {
        if TOPOLOGY.contains(&label.own()) {
            label.refuse(
                report,
                "regions and zones are looked after without it",
                "take it out; `failover` orders regions",
            );
        }
    }
    failover(setting, watched, report);
}

fn failover(setting: &At<'_>, watched: bool, report: &mut Report<'_>) {
    let any = setting.count("failover") + setting.count("failoverPriority") > 0;
    if any && !watched {
        setting.warn(
            report,
            "without `outlierDetection` nothing ever fails over",
            "add `outlierDetection:` beside `loadBalancer`",
        );
    }
    for step in setting.list("failover") {
        let (from, to) = (step.text("from"), step.text("to"));
        let why = if from == to {
            "it goes from a region to itself"
        } else if from.contains('/') || to.contains('/') {
            "it names more than a region"
        } else if from.contains('*') || to.contains('*') {
            "it has a wildcard"
        } else {
            continue;
        };
        step.refuse(report, why, "name two regions");
    }
}

/// Places, none of which may lie in another. `*` ends a place and stands for all in it.
fn localities(places: &[&str], at: &At<'_>, report: &mut Report<'_>) {
    let remedy = "write REGION, REGION/ZONE or REGION/ZONE/SUBZONE, each place once";
    let mut seen: HashSet<Vec<&str>> = HashSet::new();
    // The beginnings of those seen: a place that is one of them holds another.
    let mut around: HashSet<Vec<&str>> = HashSet::new();
    for place in places {
        let stars = place.matches('*').count();
        if stars > 1 || stars == 1 && !place.ends_with('*') {
            return at.refuse(report, &format!("in `{place}` `*` is not at the end"), remedy);
        }
        let mut parts: Vec<&str> = place.splitn(3, '/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return at.refuse(report, &format!("a part of `{place}` is empty"), remedy);
        }
        if parts.last() == Some(&"*") {
            parts.pop();
        }
        let begins = |length: usize| parts.get(..length).map(<[&str]>::to_vec).unwrap_or_default();
        let within = (0..=parts.len()).any(|length| seen.contains(&begins(length)));
        if within || around.contains(&parts) {
            return at.refuse(report, &format!("`{place}` and another place overlap"), remedy);
        }
        around.extend((0..parts.len()).map(begins));
        seen.insert(parts);
    }
}

/// `retries`.
pub(super) fn retries(retries: &At<'_>, report: &mut Report<'_>) {
    retries.demand_not_negative(report, "attempts");
    let off = retries.whole("attempts").unwrap_or(0) == 0;
    let idle = retries.has("perTryTimeout")
        || retries.has("retryRemoteLocalities")
        || !retries.text("retryOn").is_empty();
    if off && idle {
        retries.refuse(
            report,
            "without `attempts` nothing is tried again, whatever else is said",
            "add `attempts:`, or leave the rest out",
        );
    }
    let conditions = retries.text("retryOn");
    for condition in conditions.split(',').filter(|_| !conditions.is_empty()) {
        let status = condition
            .parse::<u16>()
            .is_ok_and(|code| STATUSES.contains(&code));
        if !status && !RETRY_ON.contains(&condition) {
            let remedy = crate::suggest::nearest(condition, RETRY_ON.iter().copied()).map_or_else(
                || "write one of Envoy's conditions, or a status of HTTP".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            retries.near("retryOn").refuse(
                report,
                &format!("`{condition}` is no condition to try again on"),
                &remedy,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn primes_are_told_apart() {
        for number in [1, 2, 3, 5, 65_537, 4_999_999] {
            assert!(super::is_prime(number), "{number}");
        }
        for number in [4, 9, 65_536, 4_999_997 - 1] {
            assert!(!super::is_prime(number), "{number}");
        }
    }
}
