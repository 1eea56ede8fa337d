//! What one workload may use up, and what holds while the mesh changes.

use meshward_http::Version;
use model::{MtlsMode, Protocol, Reason};
use snapshot::{Mesh, PathNormalization};
use telemetry::{Decision, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::open::MAX_OPEN_OF_ONE;
use super::super::{decide, request};
use super::http::{answer, application, get, proven, world};
use super::world::{World, anybody, mesh};

#[tokio::test]
async fn one_workload_has_so_many_requests_under_way_and_no_more() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let requests = &world.shared.requests;
    let mark = world.callee().local.mark;
    let mut held: Vec<_> = (0..MAX_OPEN_OF_ONE)
        .map(|_| requests.share(mark).unwrap())
        .collect();
    assert_eq!(proven(&world, get("/", &[])).await.status, 503);
    let event = world.only_event().await;
    assert_eq!(event.reason, Some(Reason::LimitReached));
    held.pop();
    assert_eq!(proven(&world, get("/", &[])).await.status, 200);
    assert_eq!(world.only_event().await.decision, Decision::Allow);
    assert_eq!(
        proven(&world, get("/", &[])).await.status,
        200,
        "the share came back"
    );
}

#[tokio::test]
async fn a_hand_over_keeps_the_version_that_the_callers_application_speaks() {
    let world = World::serving(MtlsMode::Strict, Protocol::Http, vec![anybody()], application).await;
    for (restored, seen) in [(Some(Version::Http1), "HTTP/1.1"), (None, "HTTP/2")] {
        let mut asked = get("/", &[]);
        *asked.version_mut() = http::Version::HTTP_2;
        let response = request(&world.shared, &world.caller(), &world.callee(), restored, asked).await;
        assert_eq!(answer(response.unwrap()).await.seen("version"), seen);
    }
}

#[tokio::test]
async fn what_was_read_in_one_way_is_not_decided_in_another() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let before = world.shared.store.current().unwrap();
    world.change([mesh().into()]).await;
    let same = world.shared.store.current().unwrap();
    assert!(decide::reads_alike(&before, &same));
    let none = PathNormalization::None;
    for other in [
        Mesh {
            path_normalization: none,
            ..mesh()
        },
        Mesh {
            strict_paths: false,
            ..mesh()
        },
        Mesh {
            strict_hosts: false,
            ..mesh()
        },
    ] {
        world.change([other.into()]).await;
        let after = world.shared.store.current().unwrap();
        assert!(!decide::reads_alike(&before, &after));
    }
}

#[tokio::test]
async fn mt_15_tls_of_the_applications_own_is_told_apart_from_plaintext() {
    /// A ClientHello that offers nothing, with the name `web`: enough to be seen as one.
    fn hello() -> Vec<u8> {
        let name = [&[0, 0, 0, 8, 0, 6, 0, 0, 3][..], b"web"].concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0, 0]);
        body.push(u8::try_from(name.len()).unwrap());
        body.extend(&name);
        let length = |n: usize| u8::try_from(n).unwrap();
        let mut message = vec![1, 0, 0, length(body.len())];
        message.extend(body);
        let mut record = vec![22, 3, 1, 0, length(message.len())];
        record.extend(message);
        record
    }
    for (bytes, wire) in [(hello(), Wire::Foreign), (b"hello".to_vec(), Wire::Plaintext)] {
        let echo = |mut stream: tokio::net::TcpStream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        };
        let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![anybody()], echo).await;
        let mut client = world.plain().await;
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
        let event = world.only_event().await;
        assert_eq!((event.wire, &event.source.principal), (wire, &None));
    }
}
