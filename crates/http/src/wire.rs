//! Connections of HTTP/2: who reads, writes and wakes. What is said on them is `http2`'s to know.
//!
//! One task reads and writes. Those who have messages on a connection put them into it, and take them out of it, under one
//! lock that nobody holds for longer than a frame takes; there is no channel and no task between.

mod driver;
mod pump;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http2::{Chunk, Config, Connection, Key, Role, StreamError};

use crate::limits::{CONNECTION_WINDOW, MAX_BUFFER, MAX_FIELDS, MAX_HEAD, MAX_STREAMS, STREAM_WINDOW};

pub(crate) use driver::Driver;
pub(crate) use pump::Pump;

/// The connection, to those who have messages on it.
pub(crate) struct Wire(Mutex<Connection>);

impl Wire {
    pub(crate) fn new(role: Role) -> Arc<Self> {
        let config = Config {
            max_streams: MAX_STREAMS,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            max_head: MAX_HEAD,
            // With the pseudo-header fields; those that are left are counted again.
            max_fields: MAX_FIELDS + 8,
            max_buffer: MAX_BUFFER,
        };
        Arc::new(Self(Mutex::new(Connection::new(role, config))))
    }

    /// Does something to the connection, and then wakes whom it concerns.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut connection);
        let wakes = connection.wakes();
        drop(connection);
        wakes.wake();
        done
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// The body of a message that comes. Dropped before its end, it is not wanted any more.
#[derive(Debug)]
pub(crate) struct Coming {
    wire: Arc<Wire>,
    key: Key,
}

impl Coming {
    pub(crate) fn new(wire: Arc<Wire>, key: Key) -> Self {
        Self { wire, key }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.wire.with(|connection| connection.is_read(self.key))
    }

    /// How many bytes are still to be read, where its head said so.
    pub(crate) fn left(&self) -> Option<u64> {
        self.wire.with(|connection| connection.left(self.key))
    }

    pub(crate) fn poll_frame(
        &self,
        context: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let polled = self
            .wire
            .with(|connection| connection.poll_body(self.key, context));
        polled.map(|chunk| {
            chunk.map(|chunk| {
                chunk.map(|chunk| match chunk {
                    Chunk::Data(data) => Frame::data(data),
                    Chunk::Trailers(trailers) => Frame::trailers(trailers),
                })
            })
        })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.wire.with(|connection| connection.drop_body(self.key));
    }
}
