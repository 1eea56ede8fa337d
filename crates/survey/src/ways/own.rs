//! To the mesh's own parts.

use super::STRICT;
use crate::attempt::{Attempt, Means, Sign, Target, full, legacy};

/// Ports that Istio's control plane has, beside those that ours says that it listens on.
const CONTROL: Means = Means::Ports(&[8080, 9876, 15010, 15012, 15014, 15017]);
/// Ports that Istio's proxy has in every pod, and those of our own capture.
const PROXY: Means = Means::Ports(&[15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090]);

/// The ways to them.
pub(super) const WAYS: &[Attempt] = &[
    Attempt::new(
        "debug-port",
        "P20 P21 P63",
        "a pod outside the mesh asks every port of the control plane for /debug/configz, in plaintext",
        legacy("sleep"),
        Target::Control,
        CONTROL,
    )
    .sign(Sign::Answered)
    .slips("istiod answers in plaintext on 8080, 15010 and 15014"),
    Attempt::new(
        "debug-port-mesh",
        "P20 P21 P63",
        "the same by a pod of the mesh",
        full("attacker"),
        Target::Control,
        CONTROL,
    )
    .sign(Sign::Answered)
    .slips("istiod answers in plaintext on 8080, 15010 and 15014"),
    Attempt::new(
        "metrics-pages",
        "P20 P52 CAP-08",
        "a pod outside the mesh asks every part for its metrics, in plaintext",
        legacy("sleep"),
        Target::Pages,
        Means::Page("/metrics"),
    )
    .sign(Sign::Answered)
    .lets("15020 of every sidecar and 15014 of istiod answer anybody"),
    Attempt::new(
        "metrics-pages-mesh",
        "P20 P52 CAP-08",
        "the same by a pod of the mesh",
        full("attacker"),
        Target::Pages,
        Means::Page("/metrics"),
    )
    .sign(Sign::Answered)
    .lets("15020 of every sidecar and 15014 of istiod answer anybody"),
    Attempt::new(
        "proxy-ports",
        "P52 CAP-08",
        "an application asks the proxy's ports on its own loopback address",
        full("attacker"),
        Target::Loopback,
        PROXY,
    )
    .serve("echo --port=15000")
    .sign(Sign::Answered)
    .slips("the sidecar's ports answer on the pod's loopback"),
    Attempt::new(
        "capture-ports",
        "MT-24 MT-25 P22",
        "a pod outside the mesh asks the proxy's ports by the address of a pod of the mesh",
        legacy("sleep"),
        Target::Pod(full("httpbin")),
        PROXY,
    )
    .serve("echo --port=15000 --port=15001 --port=15004 --port=15006 --port=15008 --port=15020 --port=15021 --port=15053 --port=15090")
    .under(&[STRICT]),
];
