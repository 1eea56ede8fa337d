//! Requests with tokens, and the key sets that they are verified by.

use std::sync::{Arc, LazyLock};

use jwt::{
    AuthenticationSpec, Authenticator, HeaderLocation, KeySource, Keys, Memory, RequestView, RuleSpec,
};
use policy::{Claim, ClaimLookup, Origin, PolicyId};

/// Seconds since 1970: before the end of the tokens in the corpus.
const NOW: u64 = 1_700_000_000;

/// A request: path (behind a method, where there is one), then a header a line.
struct Lines<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(String, &'a [u8])>,
}

impl<'a> Lines<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let mut lines = input.split(|b| *b == b'\n');
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let (method, path) = match first.split_once(' ') {
            Some((method, path)) => (method, path),
            None => ("GET", first),
        };
        let headers = lines.filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let name = String::from_utf8_lossy(line.get(..colon)?).to_ascii_lowercase();
            Some((name, line.get(colon + 1..)?.trim_ascii()))
        });
        Some(Self {
            method,
            path,
            headers: headers.collect(),
        })
    }
}

impl RequestView for Lines<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn authority(&self) -> &'static str {
        "server.foo"
    }

    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .any(|(_, value)| visit(value))
    }
}

fn rule(issuer: &str) -> RuleSpec {
    RuleSpec {
        issuer: issuer.to_owned(),
        audiences: Vec::new(),
        keys: KeySource::Inline(include_str!("../corpus/jwks/ec").to_owned()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: Some("x-out".to_owned()),
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        required: false,
        allow_hmac: true,
        allow_missing_exp: false,
        line: 0,
    }
}

static AUTHENTICATORS: LazyLock<[Authenticator; 2]> = LazyLock::new(|| {
    let places = RuleSpec {
        from_headers: vec![HeaderLocation {
            name: "x-jwt".to_owned(),
            prefix: "Tok ".to_owned(),
        }],
        from_params: vec!["t".to_owned()],
        from_cookies: vec!["t".to_owned()],
        ..rule("i1")
    };
    let spec = Arc::new(AuthenticationSpec {
        id: PolicyId {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        },
        rules: vec![places, rule("i1"), rule("i2")],
        invalid: None,
        origin: Origin::default(),
    });
    [false, true].map(|strict| Authenticator::compile(&[Arc::clone(&spec)], &[], &|_| None, strict))
});

static MEMORY: LazyLock<Memory> = LazyLock::new(Memory::default);

/// Whoever is believed to be somebody is `someone`, of whom the tokens in the corpus are: nobody else can sign. Memory
/// changes nothing, and what goes on is fit for a header.
pub(crate) fn request(input: &[u8]) {
    let Some(request) = Lines::of(input) else {
        return;
    };
    for authenticator in &*AUTHENTICATORS {
        let answer = authenticator.authenticate(&request, NOW, &MEMORY);
        let fresh = authenticator.authenticate(&request, NOW, &Memory::default());
        let (answer, fresh) = match (answer, fresh) {
            (Ok(answer), Ok(fresh)) => (answer, fresh),
            (answer, fresh) => {
                assert_eq!(
                    answer.as_ref().err(),
                    fresh.err().as_ref(),
                    "memory changed the answer"
                );
                if let Err(rejection) = answer {
                    let value = rejection.www_authenticate("http", &request).unwrap_or_default();
                    assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)), "{value:?}");
                }
                continue;
            }
        };
        assert_eq!(answer.claims, fresh.claims, "memory changed the claims");
        assert_eq!(answer.edits, fresh.edits, "memory changed the edits");
        assert!(answer.edits.remove.contains(&"x-out".to_owned()), "not sanitised");
        assert_eq!(answer.claims.is_some(), !answer.edits.set.is_empty());
        for (_, value) in &answer.edits.set {
            assert!(value.bytes().all(|b| b >= b' ' && b != 0x7f), "{value:?}");
        }
        if let Some(claims) = answer.claims {
            let someone = |claim: Claim<'_>| claim == Claim::Text("someone");
            assert!(
                claims.any(&["sub".to_owned()], &mut { someone }),
                "forged: {claims:?}"
            );
        }
    }
}

/// Strict mode uses no key that is not used otherwise, every key is used or named, and none verifies what nobody signed.
pub(crate) fn keys(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (lenient, strict) = match (Keys::parse(text, false), Keys::parse(text, true)) {
        (Ok(lenient), Ok(strict)) => (lenient, strict),
        (lenient, strict) => {
            assert_eq!(lenient.err(), strict.err());
            return;
        }
    };
    assert!(strict.len() <= lenient.len(), "strict mode uses more keys");
    for keys in [&lenient, &strict] {
        let skipped = keys.problems().iter().filter(|problem| problem.skipped).count();
        let list = serde_json::from_str::<serde_json::Value>(text).ok();
        let all = list.and_then(|set| Some(set.get("keys")?.as_array()?.len()));
        assert_eq!(all, Some(keys.len() + skipped), "a key is neither used nor named");
        for header in [
            "eyJhbGciOiJFUzI1NiJ9",
            "eyJhbGciOiJSUzI1NiJ9",
            "eyJhbGciOiJFZERTQSJ9",
        ] {
            let token = format!("{header}.e30.{}", "A".repeat(86));
            assert!(
                keys.verify_jws(&token, true).is_err(),
                "verified what nobody signed"
            );
        }
    }
}
