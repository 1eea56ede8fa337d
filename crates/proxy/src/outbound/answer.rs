//! What a caller is told where there is no answer from the other side: Envoy's statuses, flags, details and texts.

use std::borrow::Cow;

use meshward_http::{Body, HeaderValue, Response, StatusCode, header};
use model::Reason;
use telemetry::Decision;

use super::headers;

/// Why something was not carried, in every form that somebody wants to hear it in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) status: u16,
    pub(super) flags: &'static str,
    pub(super) details: Cow<'static, str>,
    /// The body of the answer.
    pub(super) text: Cow<'static, str>,
    /// For people, in the log.
    pub(super) message: Option<Box<str>>,
}

impl Failure {
    /// For what was refused, or has nowhere to go.
    pub(super) fn of(reason: Reason) -> Self {
        let (status, flags, details, text) = match reason {
            Reason::EgressUnknown => (502, "-", "direct_response", ""),
            Reason::NoRoute => (404, "NR", "route_not_found", ""),
            Reason::HostMismatch => (
                403,
                "NR",
                "host_mismatch",
                "the host and the address belong to different services",
            ),
            Reason::PathRefused => (400, "-", "path_normalization_failed", "Bad Request"),
            Reason::MethodRefused => (403, "-", "upgrade_failed", ""),
            Reason::NoEndpoint => (503, "UH", "no_healthy_upstream", "no healthy upstream"),
            Reason::LimitReached => (
                503,
                "UO",
                "upstream_reset_before_response_started{overflow}",
                "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            ),
            Reason::Timeout => (504, "UT", "response_timeout", "upstream request timeout"),
            Reason::UpstreamReset => (
                503,
                "UC",
                "upstream_reset_before_response_started{connection_termination}",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ),
            Reason::ControlPlaneAway => (
                503,
                "-",
                "control_plane_away",
                "the proxy does not know this destination, and cannot ask for it now",
            ),
            Reason::PolicyChanged => (503, "-", "policy_changed", "no longer admitted"),
            Reason::DownstreamReset => (0, "DC", "downstream_remote_disconnect", ""),
            Reason::ConnectFailed | Reason::TlsHandshake | Reason::PeerIdentity => (
                503,
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure}",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            ),
            _ => (503, "-", "", "the proxy cannot carry this now"),
        };
        Self {
            reason,
            status,
            flags,
            details: Cow::Borrowed(details),
            text: Cow::Borrowed(text),
            message: None,
        }
    }

    /// For an endpoint that could not be reached.
    pub(super) fn unreachable(reason: Reason, why: &str) -> Self {
        let (word, kind) = match reason {
            Reason::Timeout => ("connection timeout", "connection_timeout"),
            _ => ("remote connection failure", "remote_connection_failure"),
        };
        let words = why.replace(' ', "_");
        Self {
            reason,
            status: 503,
            flags: "UF",
            details: Cow::Owned(format!(
                "upstream_reset_before_response_started{{{kind}|{words}}}"
            )),
            text: Cow::Owned(format!(
                "upstream connect error or disconnect/reset before headers. reset reason: {word}, transport failure reason: {why}"
            )),
            message: Some(why.into()),
        }
    }

    /// For an endpoint that did not take the connection.
    pub(super) fn refused(error: &std::io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Self::unreachable(Reason::ConnectFailed, &format!("delayed connect error: {text}"))
    }

    /// It is what the last of several attempts ended with, and there are to be no more.
    pub(super) fn retried(mut self) -> Self {
        self.flags = match self.flags {
            "UF" => "UF,URX",
            "UC" => "UC,URX",
            other => other,
        };
        self.text = Cow::Owned(
            self.text
                .replace(". reset reason:", ". retried and the latest reset reason:"),
        );
        self
    }

    pub(super) fn because(mut self, message: &str) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Whether it was this side's doing, so that it counts as a denial.
    pub(super) fn decision(&self) -> Decision {
        match self.reason {
            Reason::EgressUnknown
            | Reason::HostMismatch
            | Reason::PathRefused
            | Reason::MethodRefused
            | Reason::NotReady
            | Reason::UnknownWorkload
            | Reason::CapturePort
            | Reason::PolicyChanged
            | Reason::PeerIdentity => Decision::Deny,
            _ => Decision::NotDecided,
        }
    }

    /// The answer. gRPC callers get theirs in trailers-only form with status 200 (O-08).
    pub(super) fn response(&self, grpc: bool) -> Response {
        let mut response = Response::new(Body::empty());
        if grpc {
            *response.headers_mut() = headers::grpc_answer(self.status, &self.text);
            return response;
        }
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        if !self.text.is_empty() {
            let plain = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            *response.body_mut() = Body::from(self.text.clone().into_owned());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reason: Reason, status: u16, flags: &str, text: &str) {
        let failure = Failure::of(reason);
        let response = failure.response(false);
        let got = (response.status().as_u16(), failure.flags, failure.text.as_ref());
        assert_eq!(got, (status, flags, text));
    }

    #[test]
    fn envoys_answers() {
        check(Reason::EgressUnknown, 502, "-", "");
        check(Reason::NoEndpoint, 503, "UH", "no healthy upstream");
        check(Reason::NoRoute, 404, "NR", "");
        check(
            Reason::UpstreamReset,
            503,
            "UC",
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        );
    }

    #[test]
    fn o_08_grpc_to_an_unknown_host_is_unavailable() {
        let response = Failure::of(Reason::EgressUnknown).response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }

    #[test]
    fn every_reason_has_a_status_that_a_client_may_see() {
        for reason in Reason::ALL {
            let status = Failure::of(*reason).response(false).status();
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{reason} {status}"
            );
        }
    }
}
