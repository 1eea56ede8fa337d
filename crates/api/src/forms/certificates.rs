//! Certificates in PEM (RFC 7468), as far as a text itself says that it cannot be what it is meant for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::Verdict;

/// The most certificates that are taken from one text; as many as a proxy takes.
const MAX_CERTIFICATES: usize = 64;

/// Roots: certificates of CAs, whole, and nothing secret beside them. Whether a verifier takes their keys and their rules is
/// its own to say.
pub(crate) fn roots(text: &str) -> Verdict {
    if has_key(text) {
        return Err("a private key stands in it, which has to be kept secret".to_owned());
    }
    let mut count = 0;
    for block in blocks(text, "CERTIFICATE") {
        count += 1;
        if count > MAX_CERTIFICATES {
            return Err(format!("more than {MAX_CERTIFICATES} certificates stand in it"));
        }
        let der = block.ok_or_else(|| format!("certificate {count} is not whole, or no base64"))?;
        let (rest, certificate) =
            X509Certificate::from_der(&der).map_err(|_| format!("certificate {count} is no certificate"))?;
        if !rest.is_empty() {
            return Err(format!("certificate {count} has bytes behind its end"));
        }
        let marks = certificate.basic_constraints();
        let is_ca = match marks {
            Ok(None) => certificate.version() != X509Version::V3,
            Ok(Some(marks)) => marks.value.ca,
            Err(_) => false,
        };
        if !is_ca {
            return Err(format!(
                "certificate {count}, of `{}`, is no CA's",
                certificate.subject()
            ));
        }
    }
    if count == 0 {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(())
}

/// Whether a private key stands in a text.
pub(crate) fn has_key(text: &str) -> bool {
    text.lines()
        .any(|line| line.trim().starts_with("-----BEGIN ") && line.contains("PRIVATE KEY-----"))
}

/// The blocks of a label; `None` for one that is not whole.
fn blocks<'t>(text: &'t str, label: &'t str) -> impl Iterator<Item = Option<Vec<u8>>> + 't {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.by_ref().find(|line| *line == begin)?;
        let mut content = String::new();
        for line in lines.by_ref() {
            if line == end {
                return Some(STANDARD.decode(&content).ok());
            }
            content.push_str(line);
        }
        Some(None)
    })
}
