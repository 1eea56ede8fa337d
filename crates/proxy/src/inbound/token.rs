//! Who a request says that it comes from: its tokens, verified after the path has its form and before policy is asked
//! (semantics 4.2), so that policy sees what the application will: headers that carry a token are gone by then, and those
//! that claims are written to hold nothing of the caller's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jwt::{Claims, Edits, Memory, RequestView};
use meshward_http::{HeaderMap, HeaderName, HeaderValue, Request};
use model::{Reason, Text, WorkloadUid};
use policy::ClaimLookup;
use snapshot::{Authentication, Index};

use super::decide::{Refusal, authority};

/// What a request proved by its tokens, and what is needed to ask the same of a later snapshot.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    by: Arc<Authentication>,
    /// When it arrived, in seconds since 1970. Later snapshots judge it as of then: a token that ends does not cut off what
    /// it began, a key or an object that is taken away does.
    at: u64,
    claims: Option<Arc<Claims>>,
    /// As it arrived, where something was changed.
    original: Option<Box<Original>>,
    memory: Arc<Memory>,
}

#[derive(Clone, Debug)]
struct Original {
    path: Text,
    headers: HeaderMap,
}

/// The part of a request that tokens may be in, and that is changed.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) method: &'a str,
    pub(super) authority: &'a str,
    /// Path and query, normalised.
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Parts<'a> {
    /// Of a request whose path has its form.
    pub(super) fn of(request: &'a Request) -> Self {
        Self {
            method: request.method().as_str(),
            authority: authority(request),
            path: request.uri().path_and_query().map_or("/", |p| p.as_str()),
            headers: request.headers(),
        }
    }
}

impl RequestView for Parts<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn authority(&self) -> &str {
        self.authority
    }

    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut lines = self.headers.get_all(name).iter();
        lines.any(|value| visit(value.as_bytes()))
    }
}

impl Proof {
    /// Verifies the tokens of a request that has just arrived. Returns what it proves, and the path and headers that it goes
    /// on with, where those change.
    ///
    /// # Errors
    /// It must be answered with the refusal.
    pub(super) fn of(
        index: &Index,
        uid: &WorkloadUid,
        parts: &Parts<'_>,
        memory: &Arc<Memory>,
    ) -> Result<(Self, Option<Changed>), Refusal> {
        let by = index
            .authentication(uid)
            .ok_or(Refusal::Floor(Reason::NotReady))?;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = at.as_secs();
        let (claims, edits) = verify(by, parts, at, memory)?;
        let changed = (edits != Edits::default()).then(|| apply(edits, parts, index.mesh().jwt_strict));
        let original = changed.is_some().then(|| {
            Box::new(Original {
                path: parts.path.into(),
                headers: parts.headers.clone(),
            })
        });
        let proof = Self {
            by: Arc::clone(by),
            at,
            claims,
            original,
            memory: Arc::clone(memory),
        };
        Ok((proof, changed))
    }

    /// The claims that were proven when it arrived.
    pub(super) fn proven(&self) -> Option<&Arc<Claims>> {
        self.claims.as_ref()
    }

    /// Whether something of the request was changed.
    pub(super) fn is_changed(&self) -> bool {
        self.original.is_some()
    }

    /// Whether the snapshot asks for the very same proof.
    pub(super) fn stands(&self, index: &Index, uid: &WorkloadUid) -> bool {
        index
            .authentication(uid)
            .is_some_and(|by| Arc::ptr_eq(by, &self.by))
    }

    /// The claims by which a snapshot judges the request, which may be a later one than it was verified by.
    ///
    /// # Errors
    /// What its tokens proved, they do not any more.
    pub(super) fn claims(
        &self,
        index: &Index,
        uid: &WorkloadUid,
        decided: &Parts<'_>,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        if self.stands(index, uid) {
            return Ok(self.claims.clone());
        }
        let by = index
            .authentication(uid)
            .ok_or(Refusal::Floor(Reason::NotReady))?;
        let parts = match &self.original {
            Some(original) => Parts {
                path: &original.path,
                headers: &original.headers,
                ..*decided
            },
            None => Parts { ..*decided },
        };
        let (claims, _) = verify(by, &parts, self.at, &self.memory)?;
        Ok(claims)
    }
}

/// For facts.
pub(super) fn lookup(claims: Option<&Arc<Claims>>) -> Option<&dyn ClaimLookup> {
    claims.map(|claims| claims.as_ref() as &dyn ClaimLookup)
}

/// A path and headers that are others than those that came.
type Changed = (Text, HeaderMap);

type Verified = (Option<Arc<Claims>>, Edits);

fn verify(by: &Authentication, parts: &Parts<'_>, at: u64, memory: &Memory) -> Result<Verified, Refusal> {
    match by.authenticator().authenticate(parts, at, memory) {
        Ok(authenticated) => Ok((authenticated.claims, authenticated.edits)),
        Err(rejection) => Err(Refusal::Token(Box::new(rejection))),
    }
}

/// The path and headers after the changes.
fn apply(edits: Edits, parts: &Parts<'_>, strict: bool) -> Changed {
    let mut headers = parts.headers.clone();
    let gone: Vec<HeaderName> = headers
        .keys()
        .filter(|name| edits.removes(name.as_str(), strict))
        .cloned()
        .collect();
    for name in gone {
        headers.remove(name);
    }
    for (name, value) in edits.set {
        // What cannot be a header is removed all the same, and not set.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    let path = edits.path.unwrap_or_else(|| parts.path.to_owned());
    (path.into(), headers)
}

/// `WWW-Authenticate` for a refused token (O-09). The scheme is what an inbound proxy of Istio's sees.
pub(super) fn challenge(refusal: &Refusal, request: &Request) -> Option<HeaderValue> {
    let Refusal::Token(rejection) = refusal else {
        return None;
    };
    let text = rejection.www_authenticate("http", &Parts::of(request))?;
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &HeaderMap) -> Parts<'_> {
        Parts {
            method: "GET",
            authority: "web",
            path: "/a?access_token=t&b",
            headers,
        }
    }

    #[test]
    fn jw_07_what_a_caller_forged_is_gone_before_claims_are_written() {
        let mut headers = HeaderMap::new();
        for name in ["x-claim", "x_claim", "authorization", "x-other"] {
            headers.append(name, HeaderValue::from_static("forged"));
        }
        headers.append("x-claim", HeaderValue::from_static("twice"));
        let edits = Edits {
            remove: vec!["X-Claim".to_owned(), "authorization".to_owned()],
            set: vec![("x-claim".to_owned(), "real".to_owned())],
            path: Some("/a?b".to_owned()),
        };
        for (strict, left) in [
            (true, vec!["x-claim", "x-other"]),
            (false, vec!["x-claim", "x-other", "x_claim"]),
        ] {
            let (path, out) = apply(edits.clone(), &parts(&headers), strict);
            assert_eq!(path.as_ref(), "/a?b");
            let mut names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, left);
            assert_eq!(out.get_all("x-claim").iter().collect::<Vec<_>>(), ["real"]);
        }
    }
}
