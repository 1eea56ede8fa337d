//! Settings of the mesh: the profile's defaults, and what MeshConfig says in their place (semantics 14).

pub(crate) mod roots;
pub(crate) mod scopes;
pub(crate) mod telemetry;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{MeshConfig, OutboundMode, PathNormalization as Written, Problem, ProtocolVersion, Severity};
use jwt::Jwks;
use model::TrustDomain;
use snapshot::{Egress, Mesh, MeshTls, PathNormalization, TLS12_SUITES, TlsVersion, XfccMode};

use crate::report::{Report, code};
use crate::view::{Of, View};
use scopes::Scopes;

/// How long the secure profile waits for bytes to tell a protocol by, before it closes (semantics 1.9, 2).
const DETECTION_TIMEOUT_MS: u64 = 5_000;

/// `meshConfig.connectTimeout` where absent.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

pub(crate) fn mesh(view: &View<'_>, scopes: &Scopes<'_>, report: &mut Report) -> Mesh {
    let secure = view.secure();
    let empty = MeshConfig::default();
    let config = view.mesh_config.map_or(&empty, |of| of.body);
    let mut reader = Reader {
        of: view.mesh_config,
        report,
    };
    let default_detection = secure.then_some(DETECTION_TIMEOUT_MS);
    // Read in any case: what is wrong with it is told.
    let written = reader.trust_domain("trustDomain", config.trust_domain.as_deref());
    let trust_domain = view.options.trust_domain.clone().or(written).unwrap_or_default();
    let trust_domain_aliases: Vec<_> = config
        .trust_domain_aliases
        .iter()
        .filter_map(|alias| reader.trust_domain("trustDomainAliases", Some(alias)))
        .collect();
    let own = [std::slice::from_ref(&trust_domain), &trust_domain_aliases].concat();
    let (min_tls, tls) = tls(config, secure, &own, view.jwks, &mut reader);
    Mesh {
        profile: view.options.profile,
        trust_domain,
        trust_domain_aliases,
        root_namespace: view.root_namespace().to_owned(),
        cluster_domain: view.options.cluster_domain.clone(),
        dns_vips: view.options.dns_vips.clone(),
        deny_by_default: secure,
        egress: match config.outbound_traffic_policy.map(|policy| policy.mode) {
            // The last trusts whatever name a caller writes; that it is not acted on is told where it is read.
            Some(OutboundMode::RegistryOnly | OutboundMode::AllowAnyDynamicDns) => Egress::RegistryOnly,
            Some(OutboundMode::AllowAny) => Egress::AllowAny,
            None if secure => Egress::RegistryOnly,
            None => Egress::AllowAny,
        },
        path_normalization: path_normalization(config, secure),
        strict_paths: secure,
        strict_hosts: secure,
        jwt_strict: secure,
        xfcc: if secure {
            XfccMode::SanitizeSet
        } else {
            XfccMode::AppendForward
        },
        auto_mtls: config.enable_auto_mtls.unwrap_or(true),
        // Zero waits without limit, as upstream.
        protocol_detection_timeout_ms: reader
            .duration(
                "protocolDetectionTimeout",
                config.protocol_detection_timeout.as_deref(),
            )
            .map_or(default_detection, |ms| (ms > 0).then_some(ms)),
        min_tls,
        tls,
        http10: false,
        scopes: scopes.by_namespace.clone(),
        connect_timeout_ms: reader
            .duration("connectTimeout", config.connect_timeout.as_deref())
            .filter(|ms| *ms > 0)
            .unwrap_or(CONNECT_TIMEOUT_MS),
    }
}

/// What mesh TLS is bound by (semantics 1.7). What cannot be acted on never loosens it.
fn tls(
    config: &MeshConfig,
    secure: bool,
    own: &[TrustDomain],
    jwks: &BTreeMap<String, Arc<Jwks>>,
    reader: &mut Reader<'_, '_>,
) -> (TlsVersion, MeshTls) {
    let mutual = config.mesh_mtls.as_ref();
    let mut least = match mutual.map(|tls| tls.min_protocol_version) {
        Some(ProtocolVersion::Tls13) => TlsVersion::V1_3,
        Some(ProtocolVersion::Tls12) => TlsVersion::V1_2,
        Some(ProtocolVersion::Auto) | None if secure => TlsVersion::V1_3,
        Some(ProtocolVersion::Auto) | None => TlsVersion::V1_2,
    };
    let asked = mutual.map(|tls| tls.cipher_suites.as_slice()).unwrap_or_default();
    let (cipher_suites, others): (Vec<_>, Vec<_>) = asked
        .iter()
        .cloned()
        .partition(|name| TLS12_SUITES.contains(&name.as_str()));
    if !others.is_empty() {
        let all = if cipher_suites.is_empty() {
            least = TlsVersion::V1_3;
            "so that TLS 1.3 alone is spoken, which chooses its own"
        } else {
            "and left out"
        };
        reader.tell(
            Severity::Warning,
            &format!(
                "`meshMTLS.cipherSuites`: {} is not spoken here, {all}",
                others.join(", ")
            ),
        );
    }
    let bundles = roots::bundles(config, own, jwks, reader);
    (
        least,
        MeshTls {
            cipher_suites,
            bundles,
        },
    )
}

/// The mode that is asked for; else MERGE_SLASHES in the secure profile (semantics 3.6 OURS), BASE in Istio's.
fn path_normalization(config: &MeshConfig, secure: bool) -> PathNormalization {
    let written = config
        .path_normalization
        .map_or(Written::Default, |n| n.normalization);
    match written {
        Written::None => PathNormalization::None,
        Written::Base => PathNormalization::Base,
        Written::MergeSlashes => PathNormalization::MergeSlashes,
        Written::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        Written::Default if secure => PathNormalization::MergeSlashes,
        Written::Default => PathNormalization::Base,
    }
}

struct Reader<'v, 'r> {
    of: Option<Of<'v, MeshConfig>>,
    report: &'r mut Report,
}

impl Reader<'_, '_> {
    fn trust_domain(&mut self, field: &str, text: Option<&str>) -> Option<TrustDomain> {
        let text = text.filter(|text| !text.is_empty())?;
        let parsed = text.replace('@', ".").parse();
        parsed
            .map_err(|error: model::TrustDomainError| self.refuse(field, &error.to_string()))
            .ok()
    }

    fn duration(&mut self, field: &str, text: Option<&str>) -> Option<u64> {
        let text = text?;
        let read = api::duration_ms(text);
        if read.is_none() {
            self.refuse(
                field,
                &format!("`{text}` is not a duration such as `5s` or `100ms`"),
            );
        }
        read
    }

    fn refuse(&mut self, field: &str, why: &str) {
        self.tell(Severity::Error, &format!("`{field}`: {why}; the default is used"));
    }

    fn left_out(&mut self, field: &str, why: &str) {
        self.tell(Severity::Error, &format!("`{field}`: {why}; it is left out"));
    }

    fn tell(&mut self, severity: Severity, message: &str) {
        let Some(of) = self.of else { return };
        let problem = Problem::new(severity, code::MESH_CONFIG, message.to_owned());
        self.report.tell(of.object, "data.mesh", problem);
    }
}
