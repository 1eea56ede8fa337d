//! Tokens of requests, from the object and the issuer's keys to the application.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::issuer::{Issuer, encode};
use testkit::mesh::{Curled, Mesh, within};

use crate::world::{compare, start};

const ISSUER: &str = "https://issuer.example.com";
const SOON: Duration = Duration::from_secs(20);
const HTML: &str = "<html>down for a moment</html>";

/// Serves the text that stands in the path, outside of the mesh.
const SERVER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: keys, namespace: legacy}\n\
    spec: {selector: {app: keys}, ports: [{name: http, port: 8000, targetPort: 80}]}\n---\n\
    apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: keys, namespace: legacy}\n\
    spec: {selector: {matchLabels: {app: keys}}, template: {metadata: {labels: {app: keys}}, \
    spec: {containers: [{name: app, image: kennethreitz/httpbin}]}}}\n";

const ANYBODY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: anybody, namespace: m}\nspec: {selector: {matchLabels: {app: server}}, rules: [{}]}\n";

const TOKEN_NEEDED: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: token, namespace: m}\nspec: {selector: {matchLabels: {app: server}}, action: DENY, \
    rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}\n";

/// An object whose keys are what `text` says, served by [`SERVER`].
fn authentication(text: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: m}}\n\
         spec: {{selector: {{matchLabels: {{app: server}}}}, jwtRules: [{{issuer: '{ISSUER}', \
         jwksUri: 'http://keys.legacy.svc.cluster.local:8000/base64/{}', \
         outputClaimToHeaders: [{{header: x-group, claim: group}}]}}]}}\n",
        encode(text)
    )
}

fn call(mesh: &Mesh, token: Option<&str>, more: &[&str]) -> Curled {
    let header = token.map(|token| format!("Authorization: Bearer {token}"));
    let mut words = more.to_vec();
    if let Some(header) = &header {
        words.extend(["-H", header]);
    }
    words.push("http://server.m:8000/");
    mesh.curl("m", "client", &words)
}

fn status(mesh: &Mesh) -> Value {
    let status = mesh.json(&["status"]);
    let objects = status["objects"].as_array().unwrap().iter();
    let mut found = objects.filter(|object| object["name"] == "tokens");
    found.next().cloned().unwrap_or_default()
}

#[test]
fn tokens_are_verified_by_keys_that_the_control_plane_fetches() {
    let Some(mesh) = start("tokens", &[]) else {
        return;
    };
    let (first, second) = (Issuer::new("key"), Issuer::new("key"));
    let good = first.token(ISSUER, "sub-1", &json!({"group": "users"}));
    let other = second.token(ISSUER, "sub-1", &json!({"group": "users"}));
    mesh.apply(ANYBODY);
    mesh.apply(&authentication(&first.jwks()));
    // Nobody serves the keys yet.
    let early = call(&mesh, Some(&good), &[]);
    let told = status(&mesh)["why"].to_string();
    assert!(
        told.contains("tokens of issuer") && told.contains(ISSUER),
        "{told}"
    );
    mesh.apply(SERVER);
    within(SOON, "the keys are there", || {
        call(&mesh, Some(&good), &[]).code == 200
    });
    let code = |token: Option<&str>| call(&mesh, token, &[]).code.to_string();
    let mut rows = vec![(
        "JW-18 no keys yet".to_owned(),
        "401".to_owned(),
        early.code.to_string(),
    )];
    let mut row = |id: &str, wanted: &str, got: String| rows.push((id.to_owned(), wanted.to_owned(), got));
    row("JW-06 no token", "200", code(None));
    row("a token of another key", "401", code(Some(&other)));
    row("no token at all", "401", code(Some("abc")));

    let forged = call(
        &mesh,
        Some(&good),
        &["-H", "x-group: admins", "-H", "x_group: admins"],
    );
    let seen = forged.body.to_lowercase();
    row(
        "JW-07 the claim",
        "true",
        seen.contains("x-group:users").to_string(),
    );
    row("JW-07 the forgery", "false", seen.contains("admins").to_string());
    row(
        "JW-08 the token",
        "false",
        seen.contains("authorization").to_string(),
    );
    let without = call(&mesh, None, &["-H", "x-group: admins"]).body.to_lowercase();
    row(
        "JW-07 without a token",
        "false",
        without.contains("admins").to_string(),
    );
    let query = call(&mesh, None, &["-i", "http://server.m:8000/?access_token=secret"]);
    let head = query.body.to_lowercase();
    row(
        "O-09 the challenge",
        "true",
        head.contains("www-authenticate: bearer realm=\"http://server.m:8000/\"")
            .to_string(),
    );

    mesh.apply(TOKEN_NEEDED);
    row("P56 no token where one is needed", "403", code(None));
    row("P56 a token where one is needed", "200", code(Some(&good)));
    compare(rows);
    let details = |line: &Value| {
        line.to_string()
            .contains("jwt_authn_access_denied{Jwt_verification_fails}")
    };
    within(SOON, "the log tells of it (O-18)", || {
        mesh.access_log().iter().any(details)
    });
    assert!(
        !mesh
            .access_log()
            .iter()
            .any(|line| { line["reporter"] == "destination" && line.to_string().contains("secret") })
    );

    // Keys that are not those that the tokens were signed by are in force at once.
    mesh.apply(&authentication(&second.jwks()));
    within(SOON, "the new key is in force", || {
        call(&mesh, Some(&other), &[]).code == 200
    });
    assert_eq!(call(&mesh, Some(&good), &[]).code, 401, "its key is gone");
    mesh.apply(&authentication(HTML));
    within(SOON, "what is no key set is told", || {
        status(&mesh)["why"].to_string().contains("is no key set")
    });
    assert_eq!(call(&mesh, Some(&other), &[]).code, 401);
    assert_eq!(call(&mesh, None, &[]).code, 403);
}
