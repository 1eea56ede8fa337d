//! What stands before the HTTP/1 codec: it follows the bytes and hands on only what it has understood.
//!
//! A pure state machine, total over all bytes. It keeps to the letter of RFC 9112 where the letter leaves a
//! choice to refuse: no bare line feeds, no folding, no white space where none belongs, one length or one
//! `chunked` and never both, one Host.

mod gate;
mod head;
mod line;

use crate::Fault;
use crate::limits::{MAX_CHUNK_LINE, MAX_HEAD, MAX_TRAILERS};

pub(crate) use gate::{Gate, REFUSED_METHOD, Shared, Verdict};
pub(crate) use head::{METHODS, valid_host};

use head::{Framing, Head};
use line::{Line, plain};

/// Where in the stream of requests a connection stands.
#[derive(Debug, Default)]
pub struct Front {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Before or within a head. `seen` bytes of it have been looked at and hold no end.
    #[default]
    Start,
    Head {
        seen: usize,
    },
    /// Bytes of a body, or of a chunk.
    Data {
        left: u64,
        chunked: bool,
        then: After,
    },
    ChunkSize {
        then: After,
    },
    /// The CR LF after a chunk's data.
    ChunkEnd {
        then: After,
    },
    Trailers {
        length: usize,
        then: After,
    },
    /// A request that asks for an upgrade has gone by; its answer decides what the next bytes are.
    Undecided,
    /// No HTTP any more.
    Opaque,
    Refused(Fault),
}

/// What follows a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Head,
    Undecided,
}

impl Front {
    /// Looks at the bytes that come next and says how many of them are good to be handed on. What is left has to
    /// be shown again, with more behind it. An upgrade that is not decided yet takes no bytes.
    ///
    /// # Errors
    /// The fault; from then on always the same.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut done = 0;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            match self.step(rest) {
                Ok(Some(taken)) => done += taken,
                Ok(None) => return Ok(done),
                // What came before the fault is handed on first; the fault comes again, with no bytes before it.
                Err(_) if done > 0 => return Ok(done),
                Err(fault) => {
                    self.state = State::Refused(fault);
                    return Err(fault);
                }
            }
        }
    }

    /// Whether bytes may be read and handed on without a look: how many of them.
    pub fn unlooked(&self) -> u64 {
        match self.state {
            State::Data { left, .. } => left,
            State::Opaque => u64::MAX,
            _ => 0,
        }
    }

    /// Tells that bytes were handed on without a look, no more than [`Front::unlooked`].
    pub fn passed(&mut self, count: u64) {
        if let State::Data { left, chunked, then } = self.state {
            self.state = after_data(left.saturating_sub(count), chunked, then);
        }
    }

    /// Tells what the answer to a request for an upgrade was.
    pub fn decide(&mut self, upgraded: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if upgraded { State::Opaque } else { State::Start };
        }
    }

    /// Whether an upgrade waits for its answer.
    pub fn undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }

    /// Whether some of a head has been seen, and not all of it.
    pub fn within_head(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Whether the stream may end here without anything missing.
    pub fn between(&self) -> bool {
        matches!(self.state, State::Start | State::Undecided | State::Opaque)
    }

    /// One step: `Some` with the bytes taken, or `None` where more are needed. Takes nothing on error.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        if bytes.is_empty() {
            return match self.state {
                State::Refused(fault) => Err(fault),
                _ => Ok(None),
            };
        }
        match &mut self.state {
            State::Start => {
                // One empty line before a request is tolerated: some clients send one after a body.
                let empty = usize::from(bytes.starts_with(b"\r\n")) * 2;
                if bytes == b"\r" {
                    return Ok(None);
                }
                self.state = State::Head { seen: 0 };
                Ok(Some(empty))
            }
            State::Head { seen } => match head_end(bytes, *seen)? {
                Some(end) => {
                    let head = Head::read(bytes.get(..end).unwrap_or_default())?;
                    self.state = after_head(&head);
                    Ok(Some(end))
                }
                None => {
                    *seen = bytes.len();
                    Ok(None)
                }
            },
            State::Data { left, chunked, then } => {
                let available = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let taken = available.min(*left);
                self.state = after_data(*left - taken, *chunked, *then);
                Ok(Some(usize::try_from(taken).unwrap_or(bytes.len())))
            }
            State::ChunkSize { then } => {
                let Some(line) = Line::first(bytes, MAX_CHUNK_LINE).map_err(|_| Fault::ChunkSize)? else {
                    return Ok(None);
                };
                let then = *then;
                self.state = match chunk_size(line.text)? {
                    0 => State::Trailers { length: 0, then },
                    left => State::Data {
                        left,
                        chunked: true,
                        then,
                    },
                };
                Ok(Some(line.length))
            }
            State::ChunkEnd { then } => {
                let then = *then;
                match bytes {
                    [b'\r'] => return Ok(None),
                    [b'\r', b'\n', ..] => self.state = State::ChunkSize { then },
                    _ => return Err(Fault::ChunkEnd),
                }
                Ok(Some(2))
            }
            State::Trailers { length, then } => {
                let room = MAX_TRAILERS.saturating_sub(*length);
                let Some(line) = Line::first(bytes, room).map_err(|_| Fault::Trailers)? else {
                    return Ok(None);
                };
                *length += line.length;
                if line.text.is_empty() {
                    self.state = then.state();
                } else {
                    head::trailer(line.text)?;
                }
                Ok(Some(line.length))
            }
            State::Undecided => Ok(None),
            State::Opaque => Ok(Some(bytes.len())),
            State::Refused(fault) => Err(*fault),
        }
    }
}

impl After {
    fn state(self) -> State {
        match self {
            Self::Head => State::Start,
            Self::Undecided => State::Undecided,
        }
    }
}

fn after_head(head: &Head) -> State {
    let then = if head.upgrade {
        After::Undecided
    } else {
        After::Head
    };
    match head.framing {
        Framing::None | Framing::Length(0) => then.state(),
        Framing::Length(left) => State::Data {
            left,
            chunked: false,
            then,
        },
        Framing::Chunked => State::ChunkSize { then },
    }
}

fn after_data(left: u64, chunked: bool, then: After) -> State {
    match (left, chunked) {
        (0, false) => then.state(),
        (0, true) => State::ChunkEnd { then },
        (left, chunked) => State::Data { left, chunked, then },
    }
}

/// The end of the head that starts here, just past its empty line. `seen` bytes are known to hold no end and no fault.
fn head_end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Fault> {
    let mut at = seen.saturating_sub(3);
    loop {
        at += plain(bytes.get(at..).unwrap_or_default());
        let Some(byte) = bytes.get(at) else { break };
        match byte {
            b'\n' if at == 0 || bytes.get(at - 1) != Some(&b'\r') => return Err(Fault::BareLineEnd),
            b'\n' if at >= 3 && bytes.get(at - 3..at) == Some(b"\r\n\r") => {
                return if at < MAX_HEAD {
                    Ok(Some(at + 1))
                } else {
                    Err(Fault::HeadTooLong)
                };
            }
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => return Err(Fault::BareLineEnd),
            b'\r' | b'\n' | b'\t' => {}
            0..=0x1f | 0x7f => return Err(Fault::Control),
            _ => {}
        }
        at += 1;
    }
    if bytes.len() >= MAX_HEAD {
        return Err(Fault::HeadTooLong);
    }
    Ok(None)
}

/// `1*16HEXDIG`, and extensions that mean nothing to anybody and are thrown away by the codec.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let end = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    let digits = line.get(..end).unwrap_or_default();
    if digits.is_empty() || digits.len() > 16 {
        return Err(Fault::ChunkSize);
    }
    digits.iter().try_fold(0_u64, |size, byte| {
        let digit = char::from(*byte).to_digit(16).ok_or(Fault::ChunkSize)?;
        size.checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .ok_or(Fault::ChunkSize)
    })
}

#[cfg(test)]
mod tests;
