//! Messages that go.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, StatusCode, header};

use super::{Connection, Role, is_bodiless, named, opened};
use crate::code::{Code, StreamError};
use crate::frame::{HEAD, flag, kind, put_head, set_length};
use crate::limits::MAX_FRAME;
use crate::message::is_of_connection;
use crate::stream::Key;
use crate::wakes::remember;

/// What the head of a request is written from.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// Its method; CONNECT is not one of them.
    pub method: &'a Method,
    /// `:authority`.
    pub authority: &'a [u8],
    /// `:path`.
    pub path: &'a str,
    /// The fields. `host` is left out, and what belongs to a connection of HTTP/1.
    pub headers: &'a HeaderMap,
    /// Written besides them.
    pub length: Option<u64>,
    /// Whether there is no body.
    pub ended: bool,
}

impl Connection {
    /// Opens a stream with a request, as soon as the other side takes one more.
    ///
    /// # Errors
    /// It takes none any more.
    pub fn poll_open(
        &mut self,
        request: RequestParts<'_>,
        context: &Context<'_>,
    ) -> Poll<Result<Key, StreamError>> {
        if let Some(gone) = self.gone {
            return Poll::Ready(Err(StreamError::Gone(gone)));
        }
        if self.role != Role::Client || !self.is_open() {
            return Poll::Ready(Err(StreamError::Unseen));
        }
        let many = usize::try_from(self.peer.max_streams).unwrap_or(usize::MAX);
        if self.streams.open() >= many || self.out.len() >= self.config.max_buffer {
            self.crowded = true;
            if !self.openers.iter().any(|waker| waker.will_wake(context.waker())) {
                self.openers.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        let id = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = id;
        let mut stream = opened(id, self.idle.now, &self.config, &self.peer);
        stream.handed = self.handed;
        stream.sending.begun = true;
        stream.sending.closed = request.ended;
        stream.sending.wanted = !request.ended;
        stream.receiving.bodiless = is_bodiless(request.method);
        let key = self.streams.insert(stream);
        let at = self.begin_block(id);
        self.encoder.method(&mut self.out, request.method);
        self.encoder.scheme(&mut self.out);
        self.encoder.authority(&mut self.out, request.authority);
        self.encoder.path(&mut self.out, request.path.as_bytes());
        self.fields(request.headers, request.length);
        self.end_block(at, id, request.ended);
        self.nudge();
        Poll::Ready(Ok(key))
    }

    /// Writes the head of a response, as soon as there is room.
    ///
    /// # Errors
    /// Nobody waits for it any more.
    pub fn poll_respond(
        &mut self,
        key: Key,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        ended: bool,
        context: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        std::task::ready!(self.poll_room(key, context))?;
        let at = self.begin_block(key.id());
        self.encoder.status(&mut self.out, status);
        self.fields(headers, length);
        self.end_block(at, key.id(), ended);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sending.begun = true;
        }
        if ended {
            self.sent(key);
        }
        self.nudge();
        Poll::Ready(Ok(()))
    }

    /// Writes bytes of a body, as far as the other side takes them; what it does not take yet is left in `data`. With `ended`
    /// they are the last.
    ///
    /// # Errors
    /// Nobody wants them any more.
    pub fn poll_send(
        &mut self,
        key: Key,
        data: &mut Bytes,
        ended: bool,
        context: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let room = self.config.max_buffer.saturating_sub(self.out.len());
            let stream = self.writable(key)?;
            let window = stream.sending.window;
            let window = usize::try_from(window.min(self.peer.window)).unwrap_or_default();
            let length = data.len().min(window).min(MAX_FRAME).min(room);
            if length == 0 && !data.is_empty() {
                self.crowded |= room == 0;
                if let Some(stream) = self.streams.get_mut(key) {
                    remember(&mut stream.sending.waker, context);
                }
                return Poll::Pending;
            }
            let last = length == data.len();
            if length == 0 && !ended {
                return Poll::Ready(Ok(()));
            }
            let flags = if last && ended { flag::END_STREAM } else { 0 };
            put_head(&mut self.out, length, kind::DATA, flags, key.id());
            self.out.extend_from_slice(data.get(..length).unwrap_or_default());
            data.advance(length);
            let taken = i64::try_from(length).unwrap_or_default();
            self.peer.window -= taken;
            if let Some(stream) = self.streams.get_mut(key) {
                stream.sending.window -= taken;
            }
            if last || length >= 1024 {
                self.idle.useful(4);
            }
            self.nudge();
            if last {
                if ended {
                    self.sent(key);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes trailers, as soon as there is room.
    ///
    /// # Errors
    /// Nobody wants them any more.
    pub fn poll_trailers(
        &mut self,
        key: Key,
        trailers: &HeaderMap,
        context: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        std::task::ready!(self.poll_room(key, context))?;
        let at = self.begin_block(key.id());
        self.fields(trailers, None);
        self.end_block(at, key.id(), true);
        self.sent(key);
        self.nudge();
        Poll::Ready(Ok(()))
    }

    /// Whether the head of a message has been written.
    pub fn is_begun(&self, key: Key) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.sending.begun)
    }

    /// Ready where nobody wants a message any more.
    pub fn poll_unwanted(&mut self, key: Key, context: &Context<'_>) -> Poll<StreamError> {
        match self.writable(key) {
            Ok(stream) => {
                remember(&mut stream.sending.waker, context);
                Poll::Pending
            }
            Err(error) => Poll::Ready(error),
        }
    }

    /// Gives a message up that has not come to its end, and tells the other side so. One that has stays as it is.
    pub fn drop_message(&mut self, key: Key, code: Code) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.sending.wanted = false;
        let closed = stream.sending.closed;
        if !closed {
            self.close(key, code, StreamError::Cancelled(code));
            self.nudge();
        }
        self.settle(key);
    }

    fn writable(&mut self, key: Key) -> Result<&mut crate::stream::Stream, StreamError> {
        let stream = self.streams.get_mut(key);
        let stream = stream.ok_or(StreamError::Cancelled(Code::CANCEL))?;
        match stream.error {
            Some(error) => Err(error),
            None if stream.sending.closed => Err(StreamError::Cancelled(Code::STREAM_CLOSED)),
            None => Ok(stream),
        }
    }

    /// Waits for room for a header block.
    fn poll_room(&mut self, key: Key, context: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let full = self.out.len() >= self.config.max_buffer;
        let stream = self.writable(key)?;
        if !full {
            return Poll::Ready(Ok(()));
        }
        remember(&mut stream.sending.waker, context);
        self.crowded = true;
        Poll::Pending
    }

    /// A message has been written to its end.
    fn sent(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.sending.closed = true;
        // RFC 9113, 8.1: the answer is whole, and nobody here reads the rest of the request.
        if self.role == Role::Server && !stream.receiving.closed && !stream.receiving.wanted {
            let code = Code::NO_ERROR;
            self.close(key, code, StreamError::Cancelled(code));
        }
        self.settle(key);
    }

    fn begin_block(&mut self, id: u32) -> usize {
        let at = self.out.len();
        put_head(&mut self.out, 0, kind::HEADERS, flag::END_HEADERS, id);
        self.encoder.begin(&mut self.out);
        at
    }

    fn fields(&mut self, headers: &HeaderMap, length: Option<u64>) {
        let named = match headers.contains_key(header::CONNECTION) {
            true => named(headers),
            false => Vec::new(),
        };
        for (name, value) in headers {
            let trailers = || value.as_bytes().eq_ignore_ascii_case(b"trailers");
            let stays = is_of_connection(name)
                || *name == header::HOST
                || (*name == header::TE && !trailers())
                || named
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(name.as_str()));
            if !stays {
                self.encoder.field(&mut self.out, name, value);
            }
        }
        if let Some(length) = length {
            self.encoder
                .field(&mut self.out, &header::CONTENT_LENGTH, &length.into());
        }
    }

    /// Writes the length of a block's frame, or cuts it into several.
    fn end_block(&mut self, at: usize, id: u32, ended: bool) {
        let length = self.out.len().saturating_sub(at + HEAD);
        let flags = if ended { flag::END_STREAM } else { 0 };
        if length <= MAX_FRAME {
            set_length(&mut self.out, at, length);
            if let Some(place) = self.out.get_mut(at + 4) {
                *place |= flags;
            }
            return;
        }
        let block = self.out.split_off(at + HEAD);
        self.out.truncate(at);
        let mut parts = block.chunks(MAX_FRAME).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, flags);
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            put_head(&mut self.out, part.len(), kind, flags, id);
            self.out.extend_from_slice(part);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }
}
