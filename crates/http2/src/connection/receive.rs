//! Messages that come.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{Accepted, Connection, MAX_STREAM, Partial, Role, WINDOW, opened};
use crate::code::{Code, StreamError, Violation};
use crate::frame::{self, Head, flag, kind, put_head};
use crate::hpack::Block;
use crate::limits::{BLOCK_SLACK, MAX_CONTINUATIONS, MAX_INFORMATIONAL};
use crate::message::{self, Excess, RequestHead, ResponseHead};
use crate::stream::{Key, Stream};
use crate::wakes::remember;

/// A part of a body.
#[derive(Debug)]
pub enum Chunk {
    /// Some bytes.
    Data(Bytes),
    /// What comes after the last of them.
    Trailers(HeaderMap),
}

impl Connection {
    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream == 0 {
            return Err(Violation::protocol("HEADERS of no stream"));
        }
        let Some(mut fragment) = frame::unpadded(head, payload) else {
            return Err(Violation::protocol("more padding than payload"));
        };
        let mut circular = false;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(5) else {
                return Err(Violation::new(Code::FRAME_SIZE_ERROR, "HEADERS are cut"));
            };
            circular = frame::number(priority).map(|other| other & MAX_STREAM) == Some(head.stream);
            fragment = rest;
        }
        let ended = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, ended, circular, fragment);
        }
        self.block = Some(Partial {
            stream: head.stream,
            ended,
            circular,
            bytes: fragment.to_vec(),
            frames: 0,
        });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let Some(block) = &mut self.block else {
            return Err(Violation::protocol("CONTINUATION of nothing"));
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        if block.frames > MAX_CONTINUATIONS || block.bytes.len() > self.config.max_head + BLOCK_SLACK {
            return Err(Violation::calm("a header block does not end"));
        }
        if head.has(flag::END_HEADERS)
            && let Some(block) = self.block.take()
        {
            return self.block(block.stream, block.ended, block.circular, &block.bytes);
        }
        Ok(())
    }

    /// A header block is whole. It is decoded whatever becomes of it, or the next one could not be.
    fn block(&mut self, id: u32, ended: bool, circular: bool, bytes: &[u8]) -> Result<(), Violation> {
        let (length, fields) = (self.config.max_head, self.config.max_fields);
        let block = self.decoder.decode(bytes, length, fields)?;
        let Some(key) = self.streams.find(id) else {
            if self.is_known_reset(id) {
                return self.idle.frame();
            }
            return match self.role {
                Role::Server if !id.is_multiple_of(2) && id > self.last => {
                    self.request(id, ended, circular, block)
                }
                _ if self.is_idle(id) => Err(Violation::protocol("HEADERS of a stream that it cannot open")),
                _ => Err(closed("HEADERS of a stream that is closed")),
            };
        };
        let Some(stream) = self.streams.get(key) else {
            return Ok(());
        };
        if stream.error.is_some() && self.reset.contains(&id) {
            return self.idle.frame();
        }
        if stream.receiving.closed {
            let error = StreamError::Malformed("HEADERS after the end");
            return self.fail(key, Code::STREAM_CLOSED, error);
        }
        let taken = match (circular, stream.receiving.begun) {
            (true, _) => Err("a stream depends on itself"),
            (_, true) => self.trailers(key, ended, block),
            (_, false) => self.response(key, ended, block),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(why) => self.fail(key, Code::PROTOCOL_ERROR, StreamError::Malformed(why)),
        }
    }

    fn request(&mut self, id: u32, ended: bool, circular: bool, block: Block) -> Result<(), Violation> {
        self.last = id;
        self.idle.opened += 1;
        if self.streams.open() >= usize::try_from(self.config.max_streams).unwrap_or(usize::MAX) {
            return self.turn_away(id, Code::REFUSED_STREAM);
        }
        let excess = excess(&block);
        let head = match excess {
            Some(excess) => Ok(RequestHead::excessive(excess)),
            None if circular => Err("a stream depends on itself"),
            None => message::request(block.fields),
        };
        let length = head
            .as_ref()
            .map_or(Ok(None), |head| message::content_length(&head.headers));
        let (Ok(mut head), Ok(length)) = (head, length) else {
            return self.turn_away(id, Code::PROTOCOL_ERROR);
        };
        if ended && length.is_some_and(|length| length > 0) {
            return self.turn_away(id, Code::PROTOCOL_ERROR);
        }
        self.idle.useful(50);
        head.ended = ended;
        let mut stream = opened(id, self.idle.now, &self.config, &self.peer);
        stream.receiving.begun = true;
        stream.receiving.left = length;
        stream.receiving.closed = ended;
        stream.receiving.wanted = !ended;
        let key = self.streams.insert(stream);
        self.accepted.push_back(Accepted { key, head, length });
        Ok(())
    }

    fn response(&mut self, key: Key, ended: bool, block: Block) -> Result<(), &'static str> {
        if excess(&block).is_some() {
            return Err("a head is too long");
        }
        let mut head = message::response(block.fields)?;
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        let receiving = &mut stream.receiving;
        if head.status.is_informational() {
            receiving.informational += 1;
            return match (ended, receiving.informational > MAX_INFORMATIONAL) {
                (true, _) => Err("an informational head ends its stream"),
                (_, true) => Err("informational heads without end"),
                _ => Ok(()),
            };
        }
        let length = message::content_length(&head.headers)?;
        let bodiless =
            receiving.bodiless || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        receiving.left = if bodiless { Some(0) } else { length };
        if ended && receiving.left.is_some_and(|left| left > 0) {
            return Err("a body is shorter than it says");
        }
        head.ended = ended;
        receiving.begun = true;
        receiving.head = Some(head);
        receiving.closed = ended;
        self.wakes.push(receiving.waker.take());
        self.idle.useful(50);
        Ok(())
    }

    fn trailers(&mut self, key: Key, ended: bool, block: Block) -> Result<(), &'static str> {
        if !ended {
            return Err("a head comes twice, or trailers do not end their stream");
        }
        if excess(&block).is_some() {
            return Err("trailers are too long");
        }
        let trailers = message::trailers(block.fields, self.role == Role::Server)?;
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        let receiving = &mut stream.receiving;
        if receiving.left.is_some_and(|left| left > 0) {
            return Err("a body is shorter than it says");
        }
        receiving.trailers = Some(trailers);
        receiving.closed = true;
        self.wakes.push(receiving.waker.take());
        self.ended(key);
        Ok(())
    }

    pub(super) fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream == 0 {
            return Err(Violation::protocol("DATA of no stream"));
        }
        let whole = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let Some(left) = self.window.checked_sub(whole) else {
            return Err(Violation::new(
                Code::FLOW_CONTROL_ERROR,
                "more bytes than the connection's window has",
            ));
        };
        self.window = left;
        let Some(data) = frame::unpadded(head, payload) else {
            return Err(Violation::protocol("more padding than payload"));
        };
        let ended = head.has(flag::END_STREAM);
        match data {
            [] if !ended => self.idle.frame()?,
            _ => self.idle.useful(1),
        }
        let Some(key) = self.streams.find(head.stream) else {
            self.read(None, whole);
            return match head.stream {
                id if self.is_known_reset(id) => self.idle.frame(),
                id if self.is_idle(id) => Err(Violation::protocol("DATA of a stream that was never opened")),
                _ => Err(closed("DATA of a stream that is closed")),
            };
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.receiving.closed {
            let known = stream.error.is_some();
            self.read(None, whole);
            if known && self.reset.contains(&head.stream) {
                return self.idle.frame();
            }
            let error = StreamError::Malformed("DATA after the end");
            return self.fail(key, Code::STREAM_CLOSED, error);
        }
        match take(stream, data, whole, ended) {
            Ok(()) => {}
            Err((code, why)) => {
                self.read(None, whole);
                return self.fail(key, code, StreamError::Malformed(why));
            }
        }
        let wanted = stream.receiving.wanted;
        self.wakes.push(stream.receiving.waker.take());
        // Padding is read as soon as it has come; so is what nobody wants.
        let kept = if wanted {
            u32::try_from(data.len()).unwrap_or(whole)
        } else {
            0
        };
        self.read(wanted.then_some(key), whole - kept);
        if ended {
            self.ended(key);
        }
        Ok(())
    }

    /// A message has come to its end.
    fn ended(&mut self, key: Key) {
        self.settle(key);
    }

    /// Bytes were read: the other side is told in time, not each time.
    fn read(&mut self, key: Option<Key>, count: u32) {
        if count == 0 {
            return;
        }
        self.untold += count;
        if self.untold >= self.config.connection_window.max(WINDOW) / 2 {
            grow(&mut self.out, 0, self.untold);
            self.window += std::mem::take(&mut self.untold);
        }
        let half = self.config.stream_window.max(WINDOW) / 2;
        if let Some(stream) = key.and_then(|key| self.streams.get_mut(key))
            && !stream.receiving.closed
        {
            let receiving = &mut stream.receiving;
            receiving.untold += count;
            if receiving.untold >= half {
                grow(&mut self.out, stream.id, receiving.untold);
                receiving.window += std::mem::take(&mut receiving.untold);
            }
        }
    }

    /// Waits for the head of a response.
    ///
    /// # Errors
    /// There will be none.
    pub fn poll_response(
        &mut self,
        key: Key,
        context: &Context<'_>,
    ) -> Poll<Result<(ResponseHead, Option<u64>), StreamError>> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Poll::Ready(Err(StreamError::Cancelled(Code::CANCEL)));
        };
        if let Some(head) = stream.receiving.head.take() {
            return Poll::Ready(Ok((head, stream.receiving.left)));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        remember(&mut stream.receiving.waker, context);
        Poll::Pending
    }

    /// Waits for a part of a body, or its end.
    ///
    /// # Errors
    /// It broke off.
    pub fn poll_body(&mut self, key: Key, context: &Context<'_>) -> Poll<Option<Result<Chunk, StreamError>>> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Poll::Ready(Some(Err(StreamError::Cancelled(Code::CANCEL))));
        };
        let receiving = &mut stream.receiving;
        if !receiving.data.is_empty() {
            let data = Bytes::from(std::mem::take(&mut receiving.data));
            let before = self.out.len();
            self.read(Some(key), u32::try_from(data.len()).unwrap_or_default());
            if self.out.len() > before {
                self.nudge();
            }
            return Poll::Ready(Some(Ok(Chunk::Data(data))));
        }
        if receiving.cut {
            let error = stream.error.unwrap_or(StreamError::Cancelled(Code::CANCEL));
            return Poll::Ready(Some(Err(error)));
        }
        if receiving.closed {
            let trailers = receiving.trailers.take();
            return Poll::Ready(trailers.map(|trailers| Ok(Chunk::Trailers(trailers))));
        }
        remember(&mut receiving.waker, context);
        Poll::Pending
    }

    /// Whether a body has been read to its end.
    pub fn is_read(&self, key: Key) -> bool {
        self.streams.get(key).is_none_or(|stream| {
            let receiving = &stream.receiving;
            let empty = receiving.data.is_empty() && receiving.trailers.is_none();
            receiving.closed && !receiving.cut && empty
        })
    }

    /// How many bytes of a body are still to be read, where its head said so.
    pub fn left(&self, key: Key) -> Option<u64> {
        let receiving = &self.streams.get(key)?.receiving;
        let here = u64::try_from(receiving.data.len()).ok()?;
        receiving.left?.checked_add(here)
    }

    /// Nobody reads a body any more. A client has no use for the stream then; a server may still answer.
    pub fn drop_body(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.receiving.wanted = false;
        let unread = u32::try_from(stream.receiving.data.len()).unwrap_or_default();
        stream.receiving.data = Vec::new();
        let useless = !stream.receiving.closed && (self.role == Role::Client || stream.sending.closed);
        let code = match self.role {
            Role::Client => Code::CANCEL,
            Role::Server => Code::NO_ERROR,
        };
        let before = self.out.len();
        if useless {
            self.close(key, code, StreamError::Cancelled(code));
        }
        self.read(None, unread);
        if self.out.len() > before {
            self.nudge();
        }
        self.settle(key);
    }
}

/// Takes the bytes of a frame of which `whole` bytes count.
fn take(stream: &mut Stream, data: &[u8], whole: u32, ended: bool) -> Result<(), (Code, &'static str)> {
    let malformed = |why| Err((Code::PROTOCOL_ERROR, why));
    let receiving = &mut stream.receiving;
    if !receiving.begun {
        return malformed("DATA before a head");
    }
    let Some(window) = receiving.window.checked_sub(whole) else {
        return Err((
            Code::FLOW_CONTROL_ERROR,
            "more bytes than the stream's window has",
        ));
    };
    receiving.window = window;
    if let Some(left) = &mut receiving.left {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(rest) = left.checked_sub(length) else {
            return malformed("a body is longer than it says");
        };
        if ended && rest > 0 {
            return malformed("a body is shorter than it says");
        }
        *left = rest;
    }
    if receiving.wanted && !data.is_empty() {
        if receiving.data.is_empty() {
            receiving.data = Vec::with_capacity(data.len());
        }
        receiving.data.extend_from_slice(data);
    }
    receiving.closed = ended;
    Ok(())
}

fn grow(out: &mut Vec<u8>, stream: u32, by: u32) {
    put_head(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}

fn excess(block: &Block) -> Option<Excess> {
    match (block.too_long, block.too_many) {
        (true, _) => Some(Excess::Length),
        (_, true) => Some(Excess::Fields),
        _ => None,
    }
}

fn closed(why: &'static str) -> Violation {
    Violation::new(Code::STREAM_CLOSED, why)
}
