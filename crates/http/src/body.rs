//! Bodies: streamed, with trailers, and with somebody who watches.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::Broken;
use crate::wire::Coming;

/// The body of a message.
pub struct Body {
    source: Source,
    tap: Option<Box<dyn Tap>>,
}

enum Source {
    Empty,
    Whole(Bytes),
    Stream(Incoming),
    Multiplexed(Coming),
    /// What has been read ahead, and what comes after it.
    Resumed(Box<Resumed>),
}

struct Resumed {
    ahead: Bytes,
    trailers: Option<HeaderMap>,
    rest: Body,
}

/// The beginning of a body.
#[derive(Debug)]
pub struct Ahead {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are all there are.
    pub whole: bool,
    /// The body, from its beginning.
    pub body: Body,
}

/// Watches a body go by, and may end it.
pub trait Tap: Send + 'static {
    /// Ready where the body must end now; the other side then sees it broken off, never cleanly ended.
    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let _ = context;
        Poll::Pending
    }

    /// Some bytes went by.
    fn data(&mut self, length: usize);

    /// These bytes went by, for whom their number is not enough: by default only that is told.
    fn bytes(&mut self, data: &[u8]) {
        self.data(data.len());
    }

    /// The trailers went by.
    fn trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
    }

    /// Nothing more will: called exactly once.
    fn end(self: Box<Self>, how: BodyEnd);
}

/// Two that watch one body.
struct Both(Box<dyn Tap>, Box<dyn Tap>);

impl Tap for Both {
    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match (self.0.poll_stop(context), self.1.poll_stop(context)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    fn data(&mut self, length: usize) {
        self.0.data(length);
        self.1.data(length);
    }

    fn bytes(&mut self, data: &[u8]) {
        self.0.bytes(data);
        self.1.bytes(data);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.0.trailers(trailers);
        self.1.trailers(trailers);
    }

    fn end(self: Box<Self>, how: BodyEnd) {
        self.0.end(how);
        self.1.end(how);
    }
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEnd {
    /// It was read to its end.
    Whole,
    /// Its sender broke off.
    Broken,
    /// Its receiver lost interest.
    Dropped,
    /// The tap stopped it.
    Stopped,
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender broke off, or framed it wrongly.
    #[error("the body broke off: {0}")]
    Broken(#[source] Broken),
    /// [`Tap::poll_stop`] said so.
    #[error("the body was stopped")]
    Stopped,
}

impl BodyError {
    /// What a stream of HTTP/2 that was to carry the body ends with.
    pub(crate) fn code(&self) -> http2::Code {
        match self {
            Self::Broken(broken) => broken.code(),
            Self::Stopped => http2::Code::INTERNAL_ERROR,
        }
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::of(Source::Empty)
    }

    /// With somebody who watches, besides those who do already: any of them may end it.
    #[must_use]
    pub fn tapped(mut self, tap: impl Tap) -> Self {
        self.tap = Some(match self.tap.take() {
            None => Box::new(tap),
            Some(before) => Box::new(Both(before, Box::new(tap))),
        });
        self
    }

    /// Whether nothing is left to read.
    pub fn is_over(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Stream(stream) => http_body::Body::is_end_stream(stream),
            Source::Multiplexed(stream) => stream.is_over(),
            Source::Resumed(resumed) => {
                resumed.ahead.is_empty() && resumed.trailers.is_none() && resumed.rest.is_over()
            }
        }
    }

    /// Reads until more than `limit` bytes are there, or all: at most one frame above the limit is held. How a sender cuts
    /// it into frames costs nothing: many small ones, or empty ones. Whoever reads the body that comes back reads it from
    /// its beginning; those who watched it before are told of nothing twice. `room` is asked before bytes are held, with
    /// how many come besides those held already; where it refuses, the body is stopped.
    ///
    /// # Errors
    /// It broke off, or there was no room for it.
    pub async fn read_ahead(
        mut self,
        limit: usize,
        mut room: impl FnMut(usize) -> bool,
    ) -> Result<Ahead, BodyError> {
        let mut bytes = BytesMut::new();
        let mut trailers = None;
        let mut whole = true;
        while let Some(frame) =
            poll_fn(|context| http_body::Body::poll_frame(Pin::new(&mut self), context)).await
        {
            match frame?.into_data() {
                Ok(data) if room(data.len()) => bytes.extend_from_slice(&data),
                Ok(_) => {
                    self.finish(BodyEnd::Stopped);
                    return Err(BodyError::Stopped);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if bytes.len() > limit {
                whole = self.is_over();
                break;
            }
        }
        let bytes = bytes.freeze();
        let body = Self::of(Source::Resumed(Box::new(Resumed {
            ahead: bytes.clone(),
            trailers,
            rest: self,
        })));
        Ok(Ahead { bytes, whole, body })
    }

    fn of(source: Source) -> Self {
        Self { source, tap: None }
    }

    fn finish(&mut self, how: BodyEnd) {
        if let Some(tap) = self.tap.take() {
            tap.end(how);
        }
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Stream(stream) => {
                let frame = std::task::ready!(http_body::Body::poll_frame(Pin::new(stream), context));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))))
            }
            Source::Multiplexed(stream) => {
                let frame = std::task::ready!(stream.poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))))
            }
            Source::Resumed(resumed) => {
                if !resumed.ahead.is_empty() {
                    let data = std::mem::take(&mut resumed.ahead);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Trailers are the end.
                if let Some(trailers) = resumed.trailers.take() {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                http_body::Body::poll_frame(Pin::new(&mut resumed.rest), context)
            }
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::of(Source::Whole(Bytes::from_static(text.as_bytes())))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::of(Source::Whole(Bytes::from(text)))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(Source::Whole(bytes))
    }
}

impl From<Coming> for Body {
    fn from(stream: Coming) -> Self {
        Self::of(Source::Multiplexed(stream))
    }
}

impl From<Incoming> for Body {
    fn from(stream: Incoming) -> Self {
        Self::of(Source::Stream(stream))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(tap) = &mut this.tap
            && tap.poll_stop(context).is_ready()
        {
            this.source = Source::Empty;
            this.finish(BodyEnd::Stopped);
            return Poll::Ready(Some(Err(BodyError::Stopped)));
        }
        match std::task::ready!(this.poll_source(context)) {
            Some(Ok(frame)) => {
                if let Some(tap) = &mut this.tap {
                    if let Some(data) = frame.data_ref() {
                        tap.bytes(data);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        tap.trailers(trailers);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.finish(match error {
                    BodyError::Broken(_) => BodyEnd::Broken,
                    BodyError::Stopped => BodyEnd::Stopped,
                });
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.finish(BodyEnd::Whole);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Source::Stream(stream) => http_body::Body::size_hint(stream),
            Source::Multiplexed(stream) => stream.left().map_or_else(SizeHint::new, SizeHint::with_exact),
            Source::Resumed(resumed) => {
                let ahead = u64::try_from(resumed.ahead.len()).unwrap_or(u64::MAX);
                let rest = http_body::Body::size_hint(&resumed.rest);
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(ahead));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(ahead));
                }
                hint
            }
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let how = if self.is_over() {
            BodyEnd::Whole
        } else {
            BodyEnd::Dropped
        };
        self.finish(how);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use http_body_util::BodyExt;

    use super::*;

    struct Told(Sender<String>, bool);

    impl Tap for Told {
        fn poll_stop(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.1 { Poll::Ready(()) } else { Poll::Pending }
        }

        fn data(&mut self, length: usize) {
            self.0.send(length.to_string()).unwrap();
        }

        fn end(self: Box<Self>, how: BodyEnd) {
            self.0.send(format!("{how:?}")).unwrap();
        }
    }

    #[tokio::test]
    async fn all_who_watch_are_told_everything() {
        let (tell, told) = channel();
        let watched = Body::from("hello")
            .tapped(Told(tell.clone(), false))
            .tapped(Told(tell, false));
        watched.collect().await.unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["5", "5", "Whole", "Whole"]);
    }

    #[tokio::test]
    async fn a_body_that_was_read_ahead_begins_anew() {
        for (limit, whole) in [(0, true), (3, true), (5, true), (100, true)] {
            let (tell, told) = channel();
            let ahead = Body::from("hello")
                .tapped(Told(tell.clone(), false))
                .read_ahead(limit, |_| true)
                .await
                .unwrap();
            assert_eq!(
                (ahead.bytes.as_ref(), ahead.whole),
                (&b"hello"[..], whole),
                "{limit}"
            );
            assert!(!ahead.body.is_over());
            assert_eq!(http_body::Body::size_hint(&ahead.body).exact(), Some(5));
            let again = ahead.body.tapped(Told(tell, false)).collect().await.unwrap();
            assert_eq!(again.to_bytes(), "hello");
            // Each is told once, by whichever time it watched.
            let mut told: Vec<_> = told.iter().collect();
            told.sort();
            assert_eq!(told, ["5", "5", "Whole", "Whole"]);
        }
        let none = Body::empty().read_ahead(10, |_| true).await.unwrap();
        assert!(none.whole && none.bytes.is_empty() && none.body.is_over());
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_held_in_one_piece_however_it_came() {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(hyper_util::rt::TokioIo::new(ours))
                .await
                .unwrap();
        tokio::spawn(connection);
        let answer = async {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let text = format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(1000));
            let _ = tokio::io::AsyncReadExt::read(&mut theirs, &mut [0; 1024])
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut theirs, text.as_bytes())
                .await
                .unwrap();
        };
        let asked = sender.send_request(http::Request::new(Body::empty()));
        let ((), answered) = tokio::join!(answer, asked);
        let body = Body::from(answered.unwrap().into_body());
        let ahead = body.read_ahead(2000, |_| true).await.unwrap();
        assert_eq!((ahead.bytes.len(), ahead.whole), (1000, true));
        let mut body = ahead.body;
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), 1000);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_without_room_is_not_held() {
        let (tell, told) = channel();
        let mut asked = Vec::new();
        let read = Body::from("hello")
            .tapped(Told(tell, false))
            .read_ahead(100, |bytes| {
                asked.push(bytes);
                false
            })
            .await;
        assert!(matches!(read, Err(BodyError::Stopped)));
        assert_eq!(asked, [5]);
        assert_eq!(told.iter().last().as_deref(), Some("Stopped"));
    }

    #[tokio::test]
    async fn any_of_them_may_end_it() {
        for stops in [[true, false], [false, true]] {
            let (tell, told) = channel();
            let watched = Body::from("hello")
                .tapped(Told(tell.clone(), stops[0]))
                .tapped(Told(tell, stops[1]));
            assert!(matches!(watched.collect().await, Err(BodyError::Stopped)));
            assert_eq!(told.iter().collect::<Vec<_>>(), ["Stopped", "Stopped"]);
        }
    }
}
