//! Bodies: streamed, with trailers, and with somebody who watches.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a message.
pub struct Body {
    source: Source,
    tap: Option<Box<dyn Tap>>,
}

enum Source {
    Empty,
    Whole(Bytes),
    Stream(Incoming),
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
    Broken(#[source] hyper::Error),
    /// [`Tap::poll_stop`] said so.
    #[error("the body was stopped")]
    Stopped,
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
        }
    }

    fn of(source: Source) -> Self {
        Self { source, tap: None }
    }

    fn finish(&mut self, how: BodyEnd) {
        if let Some(tap) = self.tap.take() {
            tap.end(how);
        }
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Stream(stream) => http_body::Body::poll_frame(Pin::new(stream), context),
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
                        tap.data(data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        tap.trailers(trailers);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.finish(BodyEnd::Broken);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
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
