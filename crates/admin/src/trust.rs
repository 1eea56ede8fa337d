//! Roots and certificates over the sockets: what a part holds, and how a rotation of roots stands.
//!
//! | socket | verb | body | answer |
//! |---|---|---|---|
//! | proxy, control | `trust` | | [`Holding`] |
//! | ca | `status` | | [`CaStatus`] |
//! | ca | `rotate` | | [`CaStatus`], once a rotation has begun |

use serde::{Deserialize, Serialize};

/// What a part believes, and what it shows: read from what its handshakes use.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// Fingerprints (SHA-256, hex) of the roots that peers are verified against.
    pub roots: Vec<String>,
    /// Its certificates.
    pub leaves: Vec<Leaf>,
}

/// One certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// Whose it is, a SPIFFE id.
    pub id: String,
    /// The fingerprint of the root that it chains to, where that is known.
    pub root: Option<String>,
    /// Unix seconds.
    pub not_after: i64,
}

/// How the roots of a mesh stand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// `steady`, `distributing` (a new root is trusted, the old one signs) or `renewing` (the new root signs, the old one
    /// is trusted); `plugged` where the roots are somebody else's, who replaces them.
    pub stage: String,
    /// When the stage began, Unix seconds.
    pub since: i64,
    /// The roots that are to be trusted; the one that signs first.
    pub roots: Vec<RootState>,
    /// Whoever holds certificates.
    pub holders: Vec<Holder>,
    /// What the rotation waits for, a sentence each; none where there is no rotation.
    pub waiting_for: Vec<String>,
    /// When certificates of the old root have all ended, Unix seconds: it is withdrawn then at the latest.
    pub old_leaves_end: Option<i64>,
    /// What cannot be done, and is tried again: a full disk, say.
    pub problem: Option<String>,
}

/// One root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootState {
    /// SHA-256 of its DER, hex.
    pub fingerprint: String,
    /// Unix seconds.
    pub not_after: i64,
    /// Whether certificates are signed by it now; not said of roots that are somebody else's.
    pub signs: bool,
    /// How many of the holders trust it, of those that answer.
    pub trusted_by: usize,
    /// How many valid certificates of those that answer chain to it.
    pub certificates: usize,
}

/// Whoever holds certificates: a node's proxy, or the control plane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// A node's name, or `control`.
    pub name: String,
    /// Why it could not be asked, where it could not.
    pub away: Option<String>,
    /// Fingerprints of the roots that it trusts.
    pub roots: Vec<String>,
    /// How many certificates it holds, and how many of them are valid.
    pub certificates: usize,
    /// How many of them are valid now.
    pub valid: usize,
}
