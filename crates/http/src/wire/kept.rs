//! What has been carried of a body, kept so that it can be carried again from its beginning.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use crate::Body;
use crate::limits::MAX_REPLAY_FRAMES;

/// All that was taken of a body, by reference.
#[derive(Debug)]
pub(super) struct Kept {
    data: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes that may still be kept.
    room: usize,
}

impl Kept {
    /// Of a body of which nothing was taken yet.
    pub(super) fn new(room: usize) -> Self {
        Self {
            data: Vec::new(),
            trailers: None,
            room,
        }
    }

    /// Keeps a frame; `None` where there is no room for it.
    pub(super) fn with(mut self, frame: &Frame<Bytes>) -> Option<Self> {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        } else if let Some(data) = frame.data_ref()
            && !data.is_empty()
        {
            self.room = self.room.checked_sub(data.len())?;
            if self.data.len() >= MAX_REPLAY_FRAMES {
                return None;
            }
            self.data.push(data.clone());
        }
        Some(self)
    }

    /// The body from its beginning, of which `rest` is left.
    pub(super) fn before(self, rest: Body) -> Body {
        let ahead = match self.data.as_slice() {
            [] if self.trailers.is_none() => return rest,
            [one] => one.clone(),
            several => {
                let mut all = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
                several.iter().for_each(|data| all.extend_from_slice(data));
                all.freeze()
            }
        };
        Body::resumed(ahead, self.trailers, rest)
    }
}
