//! Fields that speak for a proxy, which nobody who calls has a right to (O-15).

use meshward_http::{HeaderMap, HeaderName};

/// Removes what a caller says in a proxy's place. X-Forwarded-Client-Cert itself is [`super::xfcc`]'s.
pub(super) fn silence(headers: &mut HeaderMap, strict: bool) {
    let named = headers
        .keys()
        .filter(|n| policy::speaks_for_proxy(n.as_str(), strict));
    let names: Vec<HeaderName> = named.cloned().collect();
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
