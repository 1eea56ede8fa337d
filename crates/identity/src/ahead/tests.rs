use std::collections::VecDeque;

use tokio::io::AsyncReadExt as _;

use super::*;

/// What a call to read comes to, one after the other; then the end.
struct Script {
    calls: VecDeque<Poll<io::Result<Vec<u8>>>>,
    asked: usize,
}

fn script(calls: impl IntoIterator<Item = Poll<io::Result<Vec<u8>>>>) -> ReadAhead<Script> {
    ReadAhead::new(Script {
        calls: calls.into_iter().collect(),
        asked: 0,
    })
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.asked += 1;
        match self.calls.pop_front() {
            None => Poll::Ready(Ok(())),
            Some(Poll::Pending) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            Some(Poll::Ready(Ok(mut bytes))) => {
                let rest = bytes.split_off(bytes.len().min(space.remaining()));
                space.put_slice(&bytes);
                if !rest.is_empty() {
                    self.calls.push_front(Poll::Ready(Ok(rest)));
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[tokio::test]
async fn bulk_is_read_at_once_and_handed_on_in_pieces() {
    const LENGTH: usize = 1024 * 1024;
    let mut stream = script([Poll::Ready(Ok(pattern(LENGTH)))]);
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    while let read @ 1.. = stream.read(&mut piece).await.unwrap() {
        got.extend_from_slice(&piece[..read]);
    }
    assert!(got == pattern(LENGTH), "something else was read than came");
    // And once for the end.
    assert_eq!(stream.get_ref().asked, LENGTH / AHEAD + 1);
}

#[tokio::test]
async fn a_buffer_is_held_only_while_it_has_bytes() {
    let mut stream = script([
        Poll::Ready(Ok(pattern(100))),
        Poll::Pending,
        Poll::Ready(Ok(pattern(1))),
    ]);
    let mut piece = [0; 60];
    assert_eq!(stream.read(&mut piece).await.unwrap(), 60);
    assert!(stream.buffer.is_some());
    assert_eq!(stream.read(&mut piece).await.unwrap(), 40);
    assert!(stream.buffer.is_none());
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut space = ReadBuf::new(&mut piece);
    assert!(
        Pin::new(&mut stream)
            .poll_read(&mut context, &mut space)
            .is_pending()
    );
    assert!(stream.buffer.is_none());
    assert_eq!(stream.read(&mut piece).await.unwrap(), 1);
    assert!(stream.buffer.is_none());
}

#[tokio::test]
async fn an_end_and_a_failure_come_after_what_came_before_them() {
    let broken = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
    let mut stream = script([Poll::Ready(Ok(pattern(100))), broken()]);
    let mut piece = [0; 60];
    assert_eq!(stream.read(&mut piece).await.unwrap(), 60);
    assert_eq!(stream.read(&mut piece).await.unwrap(), 40);
    let error = stream.read(&mut piece).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    // After it, whatever the stream says.
    assert_eq!(stream.read(&mut piece).await.unwrap(), 0);
}
