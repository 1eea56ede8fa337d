//! `h2spec`: what others think that a server of HTTP/2 must do, its strict cases included.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use http_body_util::BodyExt;
use meshward_http::{Abort, Body, Fault, Handler, Protocol, Request, Response, ServeOptions, serve};
use tokio::net::TcpListener;
use tokio::process::Command;

struct Hello;

impl Handler for Hello {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        request.into_body().collect().await.map_err(|_| Abort)?;
        Ok(Response::new(Body::from("hello")))
    }

    fn refused(&self, _: Fault) {}
}

/// Built by `./test peers` from its Go module.
fn program() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/h2spec"));
    path.exists().then_some(path)
}

#[tokio::test]
async fn every_case_of_h2spec_passes() {
    let Some(program) = program() else {
        eprintln!("skipped: h2spec: not built (./test peers)");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let options = ServeOptions::default();
            let served = serve(
                stream,
                Protocol::Http2,
                options,
                Arc::new(Hello),
                std::future::pending(),
            );
            tokio::spawn(served);
        }
    });
    let mut command = Command::new(program);
    command.args([
        "--strict",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--timeout",
        "20",
    ]);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let counts = told
        .lines()
        .find(|line| line.contains("tests, "))
        .unwrap_or("no counts");
    println!("h2spec: {counts}");
    assert!(output.status.success(), "{told}");
    assert!(counts.contains(" 0 failed"), "{told}");
}
