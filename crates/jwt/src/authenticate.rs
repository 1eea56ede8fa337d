//! The step before policy: the tokens of a request, verified.

use std::sync::Arc;

use policy::{Claim, ClaimLookup, PolicyId};

use crate::spec::{AuthenticationSpec, Jwks};

/// The rules that select one workload, with their keys, compiled. Cheap to share, immutable.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    /// Compiles. `missing` are objects known by name that have not arrived: everything is refused until they do.
    /// `jwks` finds the keys of a source. `strict` is semantics 4.3 OURS; without it tokens are read as Istio does.
    pub fn compile(
        _specs: &[Arc<AuthenticationSpec>],
        _missing: &[PolicyId],
        _jwks: &dyn Fn(&str) -> Option<Arc<Jwks>>,
        _strict: bool,
    ) -> Self {
        Self {}
    }

    /// Whether no rule selects the workload: every request passes, with nothing proven.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Verifies the tokens of a request. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The request must be answered with the rejection.
    pub fn authenticate(
        &self,
        _request: &dyn RequestView,
        _now: u64,
        _memory: &Memory,
    ) -> Result<Authenticated, Rejection> {
        Ok(Authenticated::default())
    }
}

/// What is looked at of a request.
pub trait RequestView {
    /// The method.
    fn method(&self) -> &str;
    /// Path and query as routing sees them.
    fn path(&self) -> &str;
    /// `:authority` or Host.
    fn authority(&self) -> &str;
    /// Calls `visit` with each line of a header (name in lower case) until it returns `true`; returns whether it did.
    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// Tokens that were verified before: bounded, keyed by digest, never past `exp` or the removal of a key.
#[derive(Debug, Default)]
pub struct Memory {}

/// A request that may go on.
#[derive(Clone, Debug, Default)]
pub struct Authenticated {
    /// The claims of its token; `None` where it carries none.
    pub claims: Option<Arc<Claims>>,
    /// What changes before the application sees it.
    pub edits: Edits,
}

/// What changes in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Headers that are removed first, whatever the sender put there.
    pub remove: Vec<String>,
    /// Headers that are set after that.
    pub set: Vec<(String, String)>,
    /// The new path and query, where a token was taken out of it.
    pub path: Option<String>,
}

/// The claims of a verified token.
#[derive(Clone, PartialEq, Debug)]
pub struct Claims(serde_json::Value);

impl ClaimLookup for Claims {
    fn any(&self, _path: &[String], _visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let _ = &self.0;
        false
    }
}

/// A request that is refused here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// 401, or 403 for the audience (semantics 4.2).
    pub status: u16,
    /// The body: a text of semantics 4.7.
    pub text: &'static str,
}
