//! IstioOperator, the file that Istio's installer reads (`operator/pkg/apis/types.go`).

use crate::schema::{Field, Shape, may};
use Shape::{Any, Fields, List, Map, Text};

/// `spec.meshConfig` has a table of its own, and is looked into where it is read.
pub(super) const ISTIO_OPERATOR: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("profile", &Text),
            may("installPackagePath", &Text),
            may("hub", &Text),
            may("tag", &Any),
            may("namespace", &Text),
            may("revision", &Text),
            may("compatibilityVersion", &Text),
            may("meshConfig", &Map(&Any)),
            may(
                "components",
                &Fields(&[
                    may("base", &Map(&Any)),
                    may("pilot", &Map(&Any)),
                    may("cni", &Map(&Any)),
                    may("ztunnel", &Map(&Any)),
                    may("istiodRemote", &Map(&Any)),
                    may("ingressGateways", &List(&Map(&Any))),
                    may("egressGateways", &List(&Map(&Any))),
                ]),
            ),
            may("values", &Map(&Any)),
            may("unvalidatedValues", &Any),
        ]),
    ),
    may("status", &Any),
];
