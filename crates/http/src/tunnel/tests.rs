use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Echoes tunnels to `echo:1`, refuses others, and breaks `break:1` off after it has read a byte.
#[derive(Default)]
struct Echo {
    refused: Mutex<Vec<&'static str>>,
}

impl Tunnels for Echo {
    async fn connect(&self, asked: Connect) {
        let mut tunnel = asked.tunnel;
        match asked.authority.as_str() {
            "echo:1" => {
                let (mut read, mut write) = tokio::io::split(tunnel);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            }
            "break:1" => {
                tunnel.read_u8().await.unwrap();
                tunnel.write_all(b"half of").await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => tunnel.refuse(StatusCode::UNAUTHORIZED),
        }
    }

    fn refused(&self, why: &'static str) {
        self.refused.lock().unwrap().push(why);
    }
}

fn serving() -> (DuplexStream, Arc<Echo>) {
    let (near, far) = duplex(256 * 1024);
    let echo = Arc::new(Echo::default());
    tokio::spawn(serve_tunnels(far, Arc::clone(&echo), std::future::pending()));
    (near, echo)
}

async fn open(to: &'static str) -> Result<Tunnel, TunnelError> {
    open_tunnel(serving().0, Authority::from_static(to), HeaderMap::new()).await
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_is_carried_through() {
    let tunnel = open("echo:1").await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut read, mut write) = tokio::io::split(tunnel);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(writing, read.read_to_end(&mut got));
    read.unwrap();
    assert_eq!(got.len(), sent.len());
    assert!(got == sent);
}

#[tokio::test]
async fn many_small_writes_that_nobody_reads_yet_break_nothing() {
    let mut tunnel = open("echo:1").await.unwrap();
    for _ in 0..5000 {
        tunnel.write_all(b"x").await.unwrap();
        tokio::task::yield_now().await;
    }
    tunnel.shutdown().await.unwrap();
    let mut got = Vec::new();
    tunnel.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), 5000);
}

#[tokio::test]
async fn what_breaks_is_no_end() {
    let mut tunnel = open("break:1").await.unwrap();
    tunnel.write_all(b"x").await.unwrap();
    let mut got = Vec::new();
    let error = tunnel.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), io_kind());
    assert_eq!(got, b"half of");
}

fn io_kind() -> std::io::ErrorKind {
    std::io::ErrorKind::ConnectionReset
}

#[tokio::test]
async fn a_refusal_has_its_status() {
    let refused = open("other:1").await.unwrap_err();
    assert!(
        matches!(refused, TunnelError::Refused(StatusCode::UNAUTHORIZED)),
        "{refused}"
    );
}

#[tokio::test]
async fn only_tunnels_are_taken() {
    let (near, echo) = serving();
    let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    for (method, uri, expect) in [
        ("GET", "http://echo:1/", StatusCode::METHOD_NOT_ALLOWED),
        ("CONNECT", "bad host:1", StatusCode::BAD_REQUEST),
    ] {
        let Ok(uri) = uri.parse::<Uri>() else { continue };
        sender = sender.ready().await.unwrap();
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), expect);
    }
    assert_eq!(echo.refused.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_more_tunnels_than_are_allowed_are_open_at_once() {
    let (near, _) = serving();
    let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..MAX_TUNNELS {
        sender = sender.ready().await.unwrap();
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("echo:1")
            .body(())
            .unwrap();
        let (response, send) = sender.send_request(request, false).unwrap();
        open.push((response.await.unwrap(), send));
    }
    let ready = tokio::time::timeout(Duration::from_millis(200), async {
        sender = sender.ready().await.unwrap();
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("echo:1")
            .body(())
            .unwrap();
        let (response, send) = sender.send_request(request, false).unwrap();
        (response.await, send)
    });
    assert!(ready.await.is_err(), "one more");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_tunnels_is_not_kept_for_ever_and_one_with_is() {
    for with in [false, true] {
        let (near, _) = serving();
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        let ended = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let held = with.then(|| {
            let request = Request::builder().method(Method::CONNECT).uri("echo:1").body(());
            sender.send_request(request.unwrap(), false).unwrap()
        });
        tokio::time::sleep(IDLE_TIMEOUT + Duration::from_secs(1)).await;
        assert_eq!(ended.is_finished(), !with);
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_waited_for_no_longer_than_for_a_head() {
    let (_near, far) = duplex(1024);
    let ended = serve_tunnels(far, Arc::new(Echo::default()), std::future::pending()).await;
    assert!(matches!(ended, Err(TunnelError::Timeout)), "{ended:?}");
}
