//! Header fields that speak for a proxy, which nobody who calls has a right to (O-15).

const CLIENT_CERT: &str = "x-forwarded-client-cert";
const ENVOY: &str = "x-envoy-";
/// Those that never reach an application, whatever the profile.
const NEVER_PASSED: [&str; 2] = ["x-envoy-retry-on", "x-envoy-internal"];
/// Those that are written anew, or checked by nobody, where the mesh is strict.
const FORWARDED: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];

/// Whether a proxy takes the field away before it decides. `name` is in lower case; many an application reads `_` as
/// `-`, so both are the same here. X-Forwarded-Client-Cert itself is no such field: it has a mode of its own.
pub fn speaks_for_proxy(name: &str, strict: bool) -> bool {
    // All of them begin so, and most others do not.
    if !name.starts_with('x') || !(strict || name.contains("envoy") || name.contains("client")) {
        return false;
    }
    let is = |other: &&str| reads_as(name, other);
    (is(&CLIENT_CERT) && name != CLIENT_CERT)
        || NEVER_PASSED.iter().any(is)
        || (strict
            && (name
                .get(..ENVOY.len())
                .is_some_and(|begin| reads_as(begin, ENVOY))
                || FORWARDED.iter().any(is)))
}

/// Whether `name`, its `_` read as `-`, is `dashed`.
pub fn reads_as(name: &str, dashed: &str) -> bool {
    let dash = |byte| if byte == b'_' { b'-' } else { byte };
    name.len() == dashed.len() && name.bytes().map(dash).eq(dashed.bytes())
}
