//! Frames, and what follows what.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Both ends of a connection that holds so many bytes at a time.
fn pair(bytes: usize) -> (Turn<DuplexStream>, Turn<DuplexStream>) {
    let (near, far) = duplex(bytes);
    (Turn::new(near), Turn::new(far))
}

async fn talk(near: &mut Turn<DuplexStream>, far: &mut Turn<DuplexStream>, text: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let said = async {
        near.write_all(text).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(said, far.read_to_end(&mut heard));
    read.unwrap();
    heard
}

#[tokio::test]
async fn bytes_of_any_number_come_through_however_little_goes_at_a_time() {
    for length in [0, 1, 2, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 100_000] {
        for room in [1, 3, 64 * 1024] {
            let text: Vec<_> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let (mut near, mut far) = pair(room);
            assert!(
                talk(&mut near, &mut far, &text).await == text,
                "{length} bytes by {room}"
            );
        }
    }
}

#[tokio::test]
async fn a_turn_is_over_when_both_directions_have_ended_and_then_another_follows() {
    let (mut near, mut far) = pair(64);
    for round in 0..3 {
        assert_eq!(talk(&mut near, &mut far, b"question").await, b"question");
        assert_eq!(talk(&mut far, &mut near, b"answer").await, b"answer");
        let (mut caller, mut callee) = (near.over().unwrap(), far.over().unwrap());
        assert!(is_quiet(&mut callee), "round {round}");
        let taken = async {
            assert!(asked(&mut callee).await.unwrap());
            take(&mut callee).await.unwrap();
        };
        let (asked, ()) = tokio::join!(ask(&mut caller), taken);
        asked.unwrap();
        (near, far) = (Turn::new(caller), Turn::new(callee));
    }
}

#[tokio::test]
async fn what_has_ended_in_one_direction_alone_is_not_used_again() {
    let (mut near, mut far) = pair(64);
    talk(&mut near, &mut far, b"question").await;
    assert!(near.over().is_none());
    assert!(far.over().is_none());
}

#[tokio::test]
async fn an_end_that_was_not_told_is_a_truncation() {
    for cut in [&b""[..], b"\x00", b"\x00\x05", b"\x00\x05hell"] {
        let (mut near, far) = duplex(64);
        near.write_all(cut).await.unwrap();
        drop(near);
        let error = Turn::new(far).read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut:?}");
    }
}

#[tokio::test]
async fn what_is_no_frame_breaks_the_connection() {
    for head in [
        u16::try_from(MAX_FRAME + 1).unwrap(),
        0x4000,
        0x8000,
        u16::MAX - 1,
        TURN,
    ] {
        let (mut near, far) = duplex(64);
        near.write_all(&head.to_be_bytes()).await.unwrap();
        let error = Turn::new(far).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{head}");
    }
}

#[tokio::test]
async fn between_turns_nothing_but_a_turn_is_taken() {
    let (mut near, mut far) = duplex(64);
    assert!(is_quiet(&mut far));
    near.write_all(&5u16.to_be_bytes()).await.unwrap();
    assert_eq!(
        asked(&mut far).await.unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    near.write_all(b"x").await.unwrap();
    assert!(!is_quiet(&mut far));
    let (near, mut far) = duplex(64);
    drop(near);
    assert!(!is_quiet(&mut far), "an end is something");
    assert!(!asked(&mut far).await.unwrap());
    assert!(ask(&mut far).await.is_err());
}

proptest! {
    #[test]
    fn whatever_comes_nothing_is_read_that_was_not_framed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let heard = runtime.block_on(async {
            let (mut near, far) = duplex(1024);
            near.write_all(&bytes).await.unwrap();
            drop(near);
            let mut heard = Vec::new();
            let _ = Turn::new(far).read_to_end(&mut heard).await;
            heard
        });
        // Each frame costs its head.
        prop_assert!(heard.len() <= bytes.len().saturating_sub(HEAD));
    }
}
