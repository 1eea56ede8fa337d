//! Fields that speak for a proxy, which nobody who calls has a right to (O-15).

use meshward_http::{HeaderMap, HeaderName};

const CLIENT_CERT: &str = "x-forwarded-client-cert";
const ENVOY: &str = "x-envoy-";
/// Those that never reach an application, whatever the profile.
const NEVER_PASSED: [&str; 2] = ["x-envoy-retry-on", "x-envoy-internal"];
/// Those that are written anew, or checked by nobody, where the mesh is strict.
const FORWARDED: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];

/// Removes what a caller says in a proxy's place. Many an application reads `_` as `-`, so both are the same here.
/// X-Forwarded-Client-Cert itself is [`super::xfcc`]'s.
pub(super) fn silence(headers: &mut HeaderMap, strict: bool) {
    let speaks_for_proxy = |name: &HeaderName| {
        let dashed = name.as_str().replace('_', "-");
        (dashed == CLIENT_CERT && name.as_str() != CLIENT_CERT)
            || NEVER_PASSED.contains(&dashed.as_str())
            || (strict && (dashed.starts_with(ENVOY) || FORWARDED.contains(&dashed.as_str())))
    };
    let names: Vec<HeaderName> = headers.keys().filter(|n| speaks_for_proxy(n)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use meshward_http::HeaderValue;

    use super::*;

    #[test]
    fn o_15_a_caller_cannot_speak_for_a_proxy() {
        let said = [
            "x-forwarded-client-cert",
            "x_forwarded_client-cert",
            "x-envoy-internal",
            "x_envoy_retry_on",
            "x-envoy-peer-metadata",
            "x-forwarded-for",
            "x_forwarded_proto",
            "x-mine",
        ];
        for (strict, expect) in [
            (true, ["x-forwarded-client-cert", "x-mine"].as_slice()),
            (
                false,
                &[
                    "x-envoy-peer-metadata",
                    "x-forwarded-client-cert",
                    "x-forwarded-for",
                    "x-mine",
                    "x_forwarded_proto",
                ],
            ),
        ] {
            let mut headers = HeaderMap::new();
            for name in said {
                headers.append(name, HeaderValue::from_static("1"));
            }
            silence(&mut headers, strict);
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, expect, "strict: {strict}");
        }
    }
}
