//! How fast it is: `cargo test --release -p jwt -- --ignored speed --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rsa::KeySize;
use jwt::{Authenticator, Memory};
use serde_json::json;

use crate::world::{NOW, Request, Signer, bearing, claims, compile, get, with_keys};

fn nanos(authenticator: &Authenticator, request: &Request, memory: &dyn Fn() -> Memory) -> u128 {
    let mut best = u128::MAX;
    for _ in 0..5 {
        let memory = memory();
        let start = Instant::now();
        for _ in 0..500 {
            black_box(authenticator.authenticate(black_box(request), NOW, &memory)).unwrap();
        }
        best = best.min(start.elapsed().as_nanos() / 500);
    }
    best
}

#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    let signers = [
        Signer::rsa("RS256", KeySize::Rsa2048),
        Signer::rsa("RS256", KeySize::Rsa4096),
        Signer::rsa("PS256", KeySize::Rsa2048),
        Signer::ec("ES256"),
        Signer::ec("ES384"),
        Signer::ec("ES512"),
        Signer::ed25519(),
    ];
    for signer in &signers {
        let a = compile(&[with_keys("i1", &[signer.jwk.clone()])], true);
        let more = json!({"groups": ["a", "b", "c"], "email": "someone@example.com", "aud": ["foo", "bar"]});
        let request = bearing(&signer.token(&claims("i1", more.clone())));
        // Without an end a token is not remembered.
        let mut endless = claims("i1", more);
        endless.as_object_mut().unwrap().remove("exp");
        let anew = compile(&[with_keys("i1", &[signer.jwk.clone()])], false);
        let every_time = nanos(&anew, &bearing(&signer.token(&endless)), &Memory::default);
        let remembered = nanos(&a, &request, &Memory::default);
        println!(
            "{} ({} bytes): verified {every_time} ns, remembered {remembered} ns",
            signer.alg,
            request.headers[0].1.len()
        );
    }
    let a = compile(&[with_keys("i1", &[signers[0].jwk.clone()])], true);
    println!(
        "without a token: {} ns",
        nanos(&a, &get("/a?b=c"), &Memory::default)
    );
    let keys = vec![signers[0].jwk.clone(); 1];
    let start = Instant::now();
    for _ in 0..100 {
        black_box(compile(&[with_keys("i1", &keys)], true));
    }
    println!("compiling a rule with one RSA key: {:?}", start.elapsed() / 100);
}
