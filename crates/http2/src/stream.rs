//! The streams of a connection.

use std::task::Waker;

use http::HeaderMap;

use crate::StreamError;
use crate::message::ResponseHead;
use crate::wakes::Wakes;

/// Names a stream of a connection, also after it has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    at: usize,
    id: u32,
}

/// One stream, as long as one of its sides, or somebody who holds it, is not done.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// When it was opened.
    pub(crate) since: u64,
    /// How often the connection had handed over what is to be written, when this was opened.
    pub(crate) handed: u64,
    pub(crate) receiving: Receiving,
    pub(crate) sending: Sending,
    /// Why it ended, where it did before its messages.
    pub(crate) error: Option<StreamError>,
}

/// The message that comes.
#[derive(Debug)]
pub(crate) struct Receiving {
    /// Nothing more will.
    pub(crate) closed: bool,
    /// It ended before its message did.
    pub(crate) cut: bool,
    /// Somebody reads it.
    pub(crate) wanted: bool,
    /// The head that was not fetched yet. Of requests there is none.
    pub(crate) head: Option<ResponseHead>,
    /// Whether the head has come.
    pub(crate) begun: bool,
    /// Heads that only announced another.
    pub(crate) informational: u32,
    /// Whether there is no body, whatever the head says of its length: the answer to HEAD.
    pub(crate) bodiless: bool,
    /// What has come of the body and was not read.
    pub(crate) data: Vec<u8>,
    /// How much of it `content-length` says is still to come.
    pub(crate) left: Option<u64>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Bytes that the other side may send.
    pub(crate) window: u32,
    /// Bytes that were read and of which it was not told.
    pub(crate) untold: u32,
    pub(crate) waker: Option<Waker>,
}

/// The message that goes.
#[derive(Debug)]
pub(crate) struct Sending {
    /// Nothing more will.
    pub(crate) closed: bool,
    /// Somebody writes it.
    pub(crate) wanted: bool,
    /// Its head has gone.
    pub(crate) begun: bool,
    /// Bytes that the other side takes.
    pub(crate) window: i64,
    pub(crate) waker: Option<Waker>,
}

impl Stream {
    pub(crate) fn new(id: u32, since: u64, receive: u32, send: i64) -> Self {
        Self {
            id,
            since,
            handed: 0,
            receiving: Receiving {
                closed: false,
                cut: false,
                wanted: true,
                head: None,
                begun: false,
                informational: 0,
                bodiless: false,
                data: Vec::new(),
                left: None,
                trailers: None,
                window: receive,
                untold: 0,
                waker: None,
            },
            sending: Sending {
                closed: false,
                wanted: true,
                begun: false,
                window: send,
                waker: None,
            },
            error: None,
        }
    }

    /// Whether nothing is left of it but its place.
    pub(crate) fn is_over(&self) -> bool {
        self.receiving.closed && self.sending.closed && !self.receiving.wanted && !self.sending.wanted
    }

    /// Ends both sides: what has come whole stays there to be read.
    pub(crate) fn end(&mut self, error: StreamError, wakes: &mut Wakes) {
        if !(self.receiving.closed && self.sending.closed) {
            self.error.get_or_insert(error);
        }
        // Whoever reads is told of the error where the message had not ended.
        if !self.receiving.closed {
            self.receiving.closed = true;
            self.receiving.cut = true;
        }
        self.sending.closed = true;
        wakes.push(self.receiving.waker.take());
        wakes.push(self.sending.waker.take());
    }
}

/// All of them. A place is used again, so that those under way are near the beginning.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// 0 where the place is free.
    ids: Vec<u32>,
    places: Vec<Option<Stream>>,
    open: usize,
}

impl Streams {
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        let at = self.ids.iter().position(|known| *known == id)?;
        Some(Key { at, id })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Stream> {
        let stream = self.places.get(key.at)?.as_ref()?;
        (stream.id == key.id).then_some(stream)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        let stream = self.places.get_mut(key.at)?.as_mut()?;
        (stream.id == key.id).then_some(stream)
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        self.open += 1;
        if let Some(at) = self.ids.iter().position(|known| *known == 0)
            && let (Some(place), Some(known)) = (self.places.get_mut(at), self.ids.get_mut(at))
        {
            (*place, *known) = (Some(stream), id);
            return Key { at, id };
        }
        self.ids.push(id);
        self.places.push(Some(stream));
        Key {
            at: self.ids.len() - 1,
            id,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        if self.get(key).is_none() {
            return;
        }
        if let (Some(place), Some(known)) = (self.places.get_mut(key.at), self.ids.get_mut(key.at)) {
            (*place, *known) = (None, 0);
            self.open -= 1;
        }
        // What many at once took is given back.
        if self.open == 0 && self.places.len() > 8 {
            *self = Self::default();
        }
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().filter_map(Option::as_mut)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let keys = self.ids.iter().enumerate().filter(|(_, id)| **id != 0);
        keys.map(|(at, id)| Key { at, id: *id }).collect()
    }
}

impl Key {
    /// The stream's number.
    pub fn id(self) -> u32 {
        self.id
    }
}
