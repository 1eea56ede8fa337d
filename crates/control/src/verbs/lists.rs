//! How long the revocation lists of the mesh's roots still count. Pure: the time is an argument.

use admin::verbs::RevocationList;
use identity::Anchors;

use crate::view::View;

/// A new list is due when less than one such part of the time that it was made for is left.
const DUE: i64 = 4;

/// The lists that peers are judged by, the first to end first; `now` in Unix seconds.
pub(crate) fn lists(view: &View, now: i64) -> Vec<RevocationList> {
    let beside = view
        .mesh()
        .into_iter()
        .flat_map(|mesh| &mesh.tls.bundles)
        .map(|bundle| &bundle.pem);
    of(view.frozen.roots.iter().chain(beside), now)
}

fn of<'t>(texts: impl Iterator<Item = &'t String>, now: i64) -> Vec<RevocationList> {
    let listed = texts.filter(|text| text.contains("X509 CRL"));
    let anchors = listed.filter_map(|text| Anchors::from_pem(std::slice::from_ref(text)).ok());
    let mut lists: Vec<_> = anchors
        .flat_map(|anchors| anchors.lists())
        .map(|list| {
            let left = list.next_update.saturating_sub(now);
            let whole = list.next_update.saturating_sub(list.this_update);
            RevocationList {
                issuer: list.issuer,
                next_update: list.next_update,
                left_s: left,
                due: left <= whole / DUE,
            }
        })
        .collect();
    lists.sort_by(|a, b| (a.next_update, &a.issuer).cmp(&(b.next_update, &b.issuer)));
    lists.dedup();
    lists
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
    };

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;

    fn bundle(name: &str, from: i64, until: i64) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(NOW + seconds).unwrap();
        let list = CertificateRevocationListParams {
            this_update: at(from),
            next_update: at(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        ca.pem() + &list.signed_by(&ca).unwrap().pem().unwrap()
    }

    #[test]
    fn a_list_is_due_when_a_quarter_of_its_time_is_left_and_then_over() {
        let texts = [bundle("late", 0, 8 * DAY), bundle("soon", 0, 4 * DAY)];
        let at = |seconds: i64| {
            let lists = of(texts.iter(), NOW + seconds);
            let short = |list: &RevocationList| {
                let name = if list.issuer.contains("O=soon") {
                    "soon"
                } else {
                    "late"
                };
                (name, list.left_s, list.due)
            };
            lists.iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(at(0), [("soon", 4 * DAY, false), ("late", 8 * DAY, false)]);
        assert_eq!(
            at(3 * DAY - 1),
            [("soon", DAY + 1, false), ("late", 5 * DAY + 1, false)]
        );
        assert_eq!(at(3 * DAY), [("soon", DAY, true), ("late", 5 * DAY, false)]);
        assert_eq!(at(4 * DAY), [("soon", 0, true), ("late", 4 * DAY, false)]);
        assert_eq!(at(9 * DAY), [("soon", -5 * DAY, true), ("late", -DAY, true)]);
        assert_eq!(of(["no PEM".to_owned()].iter(), NOW), []);
    }
}
