//! What the authority counts, by the names of Istio's (`citadel_server_*`), and its pages: metrics and health, read-only.

use std::sync::Arc;

use meshward_http::pages::Pages;
use telemetry::{Board, Counts};
use time::OffsetDateTime;

use crate::roots::Roots;

/// The metrics of an authority.
#[derive(Debug)]
pub(super) struct Meters {
    board: Board,
    roots: Arc<Roots>,
    /// Seconds until the root expires: told anew at each look.
    root_left: Counts,
    /// And when: another root may sign by then.
    root_until: Counts,
    requests: Counts,
    issued: Counts,
    unauthenticated: Counts,
    no_identity: Counts,
    malformed: Counts,
    unsigned: Counts,
}

/// Why a certificate was not issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The caller did not prove who it is.
    Unauthenticated,
    /// What it proved makes no identity.
    Identity,
    /// Its request cannot be used.
    Request,
    /// It could not be signed.
    Signing,
}

impl Meters {
    pub(super) fn new(roots: Arc<Roots>) -> Self {
        let mut board = Board::new("citadel");
        let mut zero = |name, help| {
            let counts = board.counts(name, help);
            counts.set(&[], 0);
            counts
        };
        let (requests, issued) = (
            zero("citadel_server_csr_count", "Requests for a certificate"),
            zero(
                "citadel_server_success_cert_issuance_count",
                "Certificates that were issued",
            ),
        );
        let unauthenticated = zero(
            "citadel_server_authentication_failure_count",
            "Requests whose caller did not prove who it is",
        );
        let no_identity = zero(
            "citadel_server_id_extraction_err_count",
            "Requests whose caller proved what makes no identity",
        );
        let malformed = zero(
            "citadel_server_csr_parsing_err_count",
            "Requests that cannot be used",
        );
        let unsigned = zero(
            "citadel_server_csr_sign_err_count",
            "Requests that could not be signed",
        );
        let root_left = zero(
            "citadel_server_root_cert_expiry_seconds",
            "Seconds until the root certificate expires",
        );
        let root_until = zero(
            "citadel_server_root_cert_expiry_timestamp",
            "When the root certificate expires, in seconds since 1970",
        );
        Self {
            board,
            roots,
            root_left,
            root_until,
            requests,
            issued,
            unauthenticated,
            no_identity,
            malformed,
            unsigned,
        }
    }

    /// Somebody asks for a certificate.
    pub(super) fn asked(&self) {
        self.requests.add(&[], 1);
    }

    /// One was issued.
    pub(super) fn issued(&self) {
        self.issued.add(&[], 1);
    }

    /// None was.
    pub(super) fn refused(&self, why: Refused) {
        let counts = match why {
            Refused::Unauthenticated => &self.unauthenticated,
            Refused::Identity => &self.no_identity,
            Refused::Request => &self.malformed,
            Refused::Signing => &self.unsigned,
        };
        counts.add(&[], 1);
    }

    fn left(&self) -> i64 {
        let left = self.roots.signing().not_after() - OffsetDateTime::now_utc();
        left.whole_seconds()
    }
}

impl Pages for Meters {
    fn metrics(&self) -> String {
        self.root_left.set(&[], seconds(self.left()));
        let until = self.roots.signing().not_after();
        self.root_until.set(&[], seconds(until.unix_timestamp()));
        self.board.text()
    }

    fn missing(&self) -> Vec<String> {
        if self.left() <= 0 {
            return vec!["the root certificate has expired".to_owned()];
        }
        Vec::new()
    }
}

fn seconds(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
