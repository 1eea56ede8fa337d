//! How old what a proxy goes by may be: metrics of its link to the control plane and of its certificates, made when asked.

use std::fmt::Write as _;

use identity::CertificateStatus;

use super::Shared;

/// The end of an OpenMetrics text.
const END: &str = "# EOF\n";

/// All metrics, those of traffic and those of here, in OpenMetrics text.
pub(crate) fn metrics(shared: &Shared) -> String {
    shared.telemetry.control_connected(shared.standing.link().0);
    let mut text = shared.telemetry.metrics_text();
    if text.ends_with(END) {
        text.truncate(text.len() - END.len());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0.0, |since| since.as_secs_f64());
    link(&mut text, shared);
    certificates(&mut text, &shared.identities.status(), now);
    text.push_str(END);
    text
}

// Writing to a String cannot fail.
fn link(text: &mut String, shared: &Shared) {
    let (connected, heard) = shared.standing.link();
    let gauge = |text: &mut String, name: &str, help: &str, value: f64| {
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}");
    };
    gauge(
        text,
        "meshward_xds_connected",
        "Whether there is a connection to the control plane",
        f64::from(u8::from(connected)),
    );
    gauge(
        text,
        "meshward_xds_last_update_seconds",
        "Seconds since the control plane was last heard of: an update, or a sign of life that says that there is none",
        heard.as_secs_f64(),
    );
}

/// One series an identity: an identity's name needs no escaping, whatever a service account may be called.
fn certificates(text: &mut String, all: &[CertificateStatus], now: f64) {
    type Value = fn(&CertificateStatus, f64) -> f64;
    let gauges: [(&str, &str, Value); 2] = [
        (
            "meshward_certificate_expiry_seconds",
            "Seconds until the certificate ends, negative where it has; 0 where there is none",
            |one, now| one.not_after.map_or(0.0, |end| precise(end) - now),
        ),
        (
            "meshward_certificate_failures",
            "Attempts to have a certificate that have failed since the last that did not",
            |one, _| f64::from(one.failures),
        ),
    ];
    for (name, help, value) in gauges {
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge");
        for one in all {
            let _ = writeln!(text, "{name}{{principal=\"{}\"}} {}", one.id, value(one, now));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of this age fit")]
fn precise(seconds: i64) -> f64 {
    seconds as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_ended_counts_below_zero_and_one_that_is_missing_as_none() {
        let status = |account: &str, not_after, failures| CertificateStatus {
            id: format!("spiffe://cluster.local/ns/full/sa/{account}")
                .parse()
                .unwrap(),
            ready: false,
            serial: None,
            not_after,
            root: None,
            error: None,
            failures,
        };
        let mut text = String::new();
        certificates(
            &mut text,
            &[status("a", Some(90), 3), status("b", None, 1)],
            100.0,
        );
        for line in [
            "meshward_certificate_expiry_seconds{principal=\"spiffe://cluster.local/ns/full/sa/a\"} -10",
            "meshward_certificate_expiry_seconds{principal=\"spiffe://cluster.local/ns/full/sa/b\"} 0",
            "meshward_certificate_failures{principal=\"spiffe://cluster.local/ns/full/sa/a\"} 3",
            "# TYPE meshward_certificate_failures gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in {text}");
        }
    }
}
