//! One connection.

mod control;
mod receive;
mod send;

use std::collections::VecDeque;
use std::task::{Context, Waker};

use http::{HeaderMap, Method};

use crate::code::{Code, Gone, StreamError, Violation};
use crate::frame::{self, Head, PREFACE, flag, kind, put_head, put_setting, setting};
use crate::hpack::{Decoder, Encoder};
use crate::limits::{MAX_ANSWERS, MAX_FRAME, MAX_IDLE_FRAMES, MAX_RESET_KNOWN};
use crate::message::RequestHead;
use crate::stream::{Key, Stream, Streams};
use crate::wakes::{Wakes, remember};

pub use receive::Chunk;
pub use send::RequestParts;

/// The most that a window may be (RFC 9113, 6.9.1).
const MAX_WINDOW: i64 = (1 << 31) - 1;
/// The windows that both sides begin with.
const WINDOW: u32 = 65_535;
/// The highest number that a stream may have.
const MAX_STREAM: u32 = (1 << 31) - 1;
/// What a ping says that is to tell when the other side has seen that we go.
const GOING: [u8; 8] = *b"mw-going";
/// What a ping says that only asks whether the other side is there.
const THERE: [u8; 8] = *b"mw-there";

/// Which side of a connection this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It asks.
    Client,
    /// It answers.
    Server,
}

/// How much a connection takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Streams that a client may have open; further ones are refused.
    pub max_streams: u32,
    /// Bytes of one stream that may be under way before they are read: 65 535 or more.
    pub stream_window: u32,
    /// Bytes of all streams that may be: 65 535 or more.
    pub connection_window: u32,
    /// Bytes of a head, or of trailers, as RFC 9113 counts them (6.5.2).
    pub max_head: usize,
    /// Fields of a head or of trailers.
    pub max_fields: usize,
    /// Bytes that wait to be written, beyond which nobody adds to them.
    pub max_buffer: usize,
}

/// A request that has come.
#[derive(Debug)]
pub struct Accepted {
    /// Its stream.
    pub key: Key,
    /// Its head.
    pub head: RequestHead,
    /// What `content-length` says.
    pub length: Option<u64>,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    /// Of the preface, how much has come; whether the other side's settings have.
    preface: usize,
    settled: bool,
    streams: Streams,
    /// The highest stream that the client has opened.
    last: u32,
    encoder: Encoder,
    decoder: Decoder,
    /// A header block that has begun.
    block: Option<Partial>,
    out: Vec<u8>,
    /// How often `out` has been handed over to be written.
    handed: u64,
    /// Bytes of `out` that only answer the other side's frames.
    answers: usize,
    /// Bytes that the other side may send, and those that were read of which it was not told.
    window: u32,
    untold: u32,
    peer: Peer,
    accepted: VecDeque<Accepted>,
    /// Who waits to open a stream, and whether somebody waits for room to write.
    openers: Vec<Waker>,
    crowded: bool,
    /// Streams that were reset of late.
    reset: VecDeque<u32>,
    idle: Idle,
    going: Going,
    gone: Option<Gone>,
    /// Whether a ping of ours is unanswered.
    asked: bool,
    heard: bool,
    driver: Option<Waker>,
    nudged: bool,
    wakes: Wakes,
}

/// What the other side has said of itself.
#[derive(Debug)]
struct Peer {
    max_streams: u32,
    initial_window: i64,
    /// Bytes of all streams that it takes.
    window: i64,
    /// The last stream that it looks at, since it goes, and why it goes.
    away: Option<(u32, Code)>,
}

/// A header block of which not all frames have come.
#[derive(Debug)]
struct Partial {
    stream: u32,
    ended: bool,
    /// It depends on itself, which no stream may.
    circular: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// What makes work without use.
#[derive(Debug, Default)]
struct Idle {
    frames: u32,
    now: u64,
    halved: u64,
    opened: u64,
    premature: u64,
}

/// How far this side is with leaving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Going {
    No,
    /// The other side has been told that we go, and may not know yet.
    Told,
    /// It knows: no stream above this one is looked at.
    Last(u32),
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub fn new(role: Role, config: Config) -> Self {
        let mut connection = Self {
            role,
            config,
            preface: match role {
                Role::Client => PREFACE.len(),
                Role::Server => 0,
            },
            settled: false,
            streams: Streams::default(),
            last: 0,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            block: None,
            out: Vec::new(),
            handed: 0,
            answers: 0,
            window: config.connection_window.max(WINDOW),
            untold: 0,
            peer: Peer {
                max_streams: u32::MAX,
                initial_window: WINDOW.into(),
                window: WINDOW.into(),
                away: None,
            },
            accepted: VecDeque::new(),
            openers: Vec::new(),
            crowded: false,
            reset: VecDeque::new(),
            idle: Idle::default(),
            going: Going::No,
            gone: None,
            asked: false,
            heard: false,
            driver: None,
            nudged: false,
            wakes: Wakes::default(),
        };
        connection.begin();
        connection
    }

    fn begin(&mut self) {
        let list = u32::try_from(self.config.max_head).unwrap_or(u32::MAX);
        let (first, value) = match self.role {
            Role::Client => {
                self.out.extend_from_slice(PREFACE);
                (setting::ENABLE_PUSH, 0)
            }
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, self.config.max_streams),
        };
        put_head(&mut self.out, 18, kind::SETTINGS, 0, 0);
        put_setting(&mut self.out, first, value);
        let window = self.config.stream_window.max(WINDOW);
        put_setting(&mut self.out, setting::INITIAL_WINDOW_SIZE, window);
        put_setting(&mut self.out, setting::MAX_HEADER_LIST_SIZE, list);
        if self.window > WINDOW {
            put_head(&mut self.out, 4, kind::WINDOW_UPDATE, 0, 0);
            self.out.extend_from_slice(&(self.window - WINDOW).to_be_bytes());
        }
    }

    /// Takes bytes that were read, at a time in milliseconds. Returns how many were understood: the others have to come again,
    /// with more behind them. No frame that is taken is longer than [`MAX_FRAME`] and its head of nine bytes.
    pub fn input(&mut self, bytes: &[u8], now: u64) -> usize {
        if self.gone.is_some() {
            return bytes.len();
        }
        self.heard = true;
        self.idle.pass(now);
        match self.frames(bytes) {
            Ok(done) => done,
            Err(violation) => {
                self.violated(violation);
                bytes.len()
            }
        }
    }

    fn frames(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut done = 0;
        if self.preface < PREFACE.len() {
            let wanted = PREFACE.get(self.preface..).unwrap_or_default();
            done = wanted.len().min(bytes.len());
            if bytes.get(..done) != wanted.get(..done) {
                return Err(Violation::protocol("it does not begin as HTTP/2 does"));
            }
            self.preface += done;
        }
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let Some(head) = Head::read(rest) else {
                return Ok(done);
            };
            if head.length > MAX_FRAME {
                return Err(Violation::new(Code::FRAME_SIZE_ERROR, "a frame is too long"));
            }
            let end = frame::HEAD + head.length;
            let Some(payload) = rest.get(frame::HEAD..end) else {
                return Ok(done);
            };
            self.frame(head, payload)?;
            done += end;
        }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(Violation::protocol("a header block is interrupted"));
        }
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Violation::protocol("the first frame is not SETTINGS"));
        }
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.reset_by_peer(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PUSH_PROMISE => Err(Violation::protocol("push was not asked for")),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.goaway(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            _ => self.idle.frame(),
        }
    }

    /// Whether a stream of this number was never opened.
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.last
    }

    /// Whether frames of a stream that is not there any more may still come.
    fn is_known_reset(&self, id: u32) -> bool {
        let unseen = matches!(self.going, Going::Last(last) if id > last && self.role == Role::Server);
        unseen || self.reset.contains(&id)
    }

    fn remember_reset(&mut self, id: u32) {
        if self.reset.len() >= MAX_RESET_KNOWN {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Writes a frame that answers one of the other side's.
    fn answer(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Violation> {
        put_head(&mut self.out, payload.len(), kind, flags, stream);
        self.out.extend_from_slice(payload);
        self.answers += frame::HEAD + payload.len();
        if self.answers > MAX_ANSWERS {
            return Err(Violation::calm("it does not read the answers to its frames"));
        }
        Ok(())
    }

    /// Resets a stream of which there is no more than a number.
    fn turn_away(&mut self, id: u32, code: Code) -> Result<(), Violation> {
        self.remember_reset(id);
        self.idle.frame()?;
        self.answer(kind::RST_STREAM, 0, id, &code.0.to_be_bytes())
    }

    /// Ends a stream for what the other side did on it.
    fn fail(&mut self, key: Key, code: Code, error: StreamError) -> Result<(), Violation> {
        let over = self.streams.get(key);
        if over.is_none_or(|stream| stream.receiving.closed && stream.sending.closed) {
            // Its place is only not empty yet.
            return self.turn_away(key.id(), code);
        }
        self.idle.frame()?;
        self.close(key, code, error);
        self.answers += frame::HEAD + 4;
        if self.answers > MAX_ANSWERS {
            return Err(Violation::calm("it does not read the answers to its frames"));
        }
        Ok(())
    }

    /// Resets a stream and tells those who hold it.
    fn close(&mut self, key: Key, code: Code, error: StreamError) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !(stream.receiving.closed && stream.sending.closed) {
            put_head(&mut self.out, 4, kind::RST_STREAM, 0, stream.id);
            self.out.extend_from_slice(&code.0.to_be_bytes());
            stream.end(error, &mut self.wakes);
            self.remember_reset(key.id());
        }
        self.settle(key);
    }

    /// Forgets a stream that is over.
    fn settle(&mut self, key: Key) {
        if self.streams.get(key).is_none_or(|stream| !stream.is_over()) {
            return;
        }
        self.streams.remove(key);
        for opener in self.openers.drain(..) {
            self.wakes.push(Some(opener));
        }
        if self.is_done() {
            self.nudge();
        }
    }

    /// The other side broke the protocol: it is told, and nothing more is taken.
    fn violated(&mut self, violation: Violation) {
        self.say_goaway(self.last, violation.code);
        self.end(Gone::Violation(violation));
    }

    /// The connection has ended: so have all streams. What is still to be written may be.
    pub fn end(&mut self, gone: Gone) {
        if self.gone.is_some() {
            return;
        }
        self.gone = Some(gone);
        self.block = None;
        for accepted in self.accepted.drain(..) {
            if let Some(stream) = self.streams.get_mut(accepted.key) {
                (stream.receiving.wanted, stream.sending.wanted) = (false, false);
            }
        }
        for stream in self.streams.each() {
            // Not a byte of it has left.
            let unsent = self.role == Role::Client && stream.handed == self.handed;
            let error = if unsent {
                StreamError::Unseen
            } else {
                StreamError::Gone(gone)
            };
            stream.end(error, &mut self.wakes);
        }
        for key in self.streams.keys() {
            self.settle(key);
        }
        for opener in self.openers.drain(..) {
            self.wakes.push(Some(opener));
        }
        self.nudge();
    }

    /// How it ended, where it has.
    pub fn gone(&self) -> Option<Gone> {
        self.gone
    }

    /// Whether a stream could be opened now or later.
    pub fn is_open(&self) -> bool {
        self.gone.is_none()
            && self.peer.away.is_none()
            && self.going == Going::No
            && self.last < MAX_STREAM - 2
    }

    /// Whether no stream is open and none will be.
    pub fn is_done(&self) -> bool {
        let leaves = matches!(self.going, Going::Last(_));
        let left = self.role == Role::Client && self.peer.away.is_some();
        self.gone.is_some() || (self.streams.open() == 0 && (leaves || left))
    }

    /// Whether the other side has said how it wants to be spoken to.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Streams that are open, or held.
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Who is to be woken when there is something to write, or nothing left to do: whoever reads and writes.
    pub fn drive(&mut self, context: &Context<'_>) {
        remember(&mut self.driver, context);
    }

    /// What happens from here on wakes whoever reads and writes.
    pub fn driven(&mut self) {
        self.nudged = false;
    }

    fn nudge(&mut self) {
        if !self.nudged {
            self.nudged = true;
            self.wakes.push(self.driver.clone());
        }
    }

    /// Those who are to be woken once the connection is not locked any more.
    pub fn wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    /// Exchanges an empty buffer for what is to be written, where there is something.
    pub fn output(&mut self, buffer: &mut Vec<u8>) -> bool {
        if self.out.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.out, buffer);
        self.out.clear();
        self.handed += 1;
        self.answers = 0;
        if std::mem::take(&mut self.crowded) {
            for stream in self.streams.each() {
                self.wakes.push(stream.sending.waker.take());
            }
            for opener in self.openers.drain(..) {
                self.wakes.push(Some(opener));
            }
        }
        true
    }

    /// The next request that has come.
    pub fn accept(&mut self) -> Option<Accepted> {
        loop {
            let accepted = self.accepted.pop_front()?;
            let stream = self.streams.get_mut(accepted.key)?;
            if stream.error.is_none() {
                return Some(accepted);
            }
            // It was reset before anybody looked at it.
            (stream.receiving.wanted, stream.sending.wanted) = (false, false);
            self.settle(accepted.key);
        }
    }
}

impl Idle {
    /// Time passes: what was is half forgotten every second.
    fn pass(&mut self, now: u64) {
        self.now = now;
        if now.saturating_sub(self.halved) >= 1000 {
            self.halved = now;
            self.frames /= 2;
        }
    }

    /// A frame that carries nothing.
    fn frame(&mut self) -> Result<(), Violation> {
        self.frames += 1;
        if self.frames > MAX_IDLE_FRAMES {
            return Err(Violation::calm("it sends frames that carry nothing"));
        }
        Ok(())
    }

    /// Something that carries something, worth some that do not.
    fn useful(&mut self, worth: u32) {
        self.frames = self.frames.saturating_sub(worth);
    }
}

/// Whether the answer to a method never has a body.
fn is_bodiless(method: &Method) -> bool {
    *method == Method::HEAD
}

fn opened(id: u32, since: u64, config: &Config, peer: &Peer) -> Stream {
    let window = config.stream_window.max(WINDOW);
    Stream::new(id, since, window, peer.initial_window)
}

/// The names that a message's `connection` takes with it.
fn named(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(http::header::CONNECTION).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).collect()
}
