//! Frames that are about the connection, or about a stream as a whole.

use super::{Connection, GOING, Going, MAX_STREAM, MAX_WINDOW, Role, THERE};
use crate::code::{Code, Gone, StreamError, Violation};
use crate::frame::{self, Head, flag, kind, put_head, setting};
use crate::limits::{MAX_PREMATURE_RESETS, PREMATURE};

impl Connection {
    pub(super) fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream == 0 {
            return Err(Violation::protocol("PRIORITY of no stream"));
        }
        self.idle.frame()?;
        let dependency = frame::number(payload).map(|number| number & MAX_STREAM);
        let why = match dependency {
            Some(other) if payload.len() == 5 && other == head.stream => "a stream depends on itself",
            _ if payload.len() == 5 => return Ok(()),
            _ => {
                return Err(Violation::new(
                    Code::FRAME_SIZE_ERROR,
                    "PRIORITY has not five bytes",
                ));
            }
        };
        match self.streams.find(head.stream) {
            Some(key) => self.fail(key, Code::PROTOCOL_ERROR, StreamError::Malformed(why)),
            None => Err(Violation::protocol(why)),
        }
    }

    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("SETTINGS of a stream"));
        }
        self.idle.frame()?;
        if head.has(flag::ACK) {
            return match payload {
                [] => Ok(()),
                _ => Err(size("an acknowledgement of SETTINGS has a payload")),
            };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(size("SETTINGS are cut"));
        }
        for [a, b, c, d, e, f] in settings {
            self.setting(u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]))?;
        }
        self.settled = true;
        self.answer(kind::SETTINGS, flag::ACK, 0, &[])
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Violation> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.limit(value),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                return Err(Violation::protocol("ENABLE_PUSH has a value that it cannot have"));
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(Violation::protocol("ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"));
            }
            setting::MAX_CONCURRENT_STREAMS => {
                self.peer.max_streams = value;
                for opener in self.openers.drain(..) {
                    self.wakes.push(Some(opener));
                }
            }
            setting::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
            setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                return Err(Violation::protocol(
                    "MAX_FRAME_SIZE has a value that it cannot have",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn initial_window(&mut self, value: u32) -> Result<(), Violation> {
        let value = i64::from(value);
        if value > MAX_WINDOW {
            return Err(flow("a window is to be larger than it can be"));
        }
        let more = value - self.peer.initial_window;
        self.peer.initial_window = value;
        for stream in self.streams.each() {
            stream.sending.window += more;
            if stream.sending.window > MAX_WINDOW {
                return Err(flow("a window has become larger than it can be"));
            }
            if more > 0 {
                self.wakes.push(stream.sending.waker.take());
            }
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        self.idle.frame()?;
        let Some(more) = frame::number(payload).filter(|_| payload.len() == 4) else {
            return Err(size("WINDOW_UPDATE has not four bytes"));
        };
        let more = i64::from(more & MAX_STREAM);
        if head.stream == 0 {
            self.peer.window += more;
            if more == 0 {
                return Err(Violation::protocol("a window grows by nothing"));
            }
            if self.peer.window > MAX_WINDOW {
                return Err(flow("the connection's window has become larger than it can be"));
            }
            for stream in self.streams.each() {
                self.wakes.push(stream.sending.waker.take());
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Violation::protocol(
                "WINDOW_UPDATE of a stream that was never opened",
            ));
        }
        let Some(key) = self.streams.find(head.stream) else {
            return Ok(());
        };
        if more == 0 {
            let error = StreamError::Malformed("a window grows by nothing");
            return self.fail(key, Code::PROTOCOL_ERROR, error);
        }
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        stream.sending.window += more;
        if stream.sending.window > MAX_WINDOW {
            let error = StreamError::Malformed("a window has become larger than it can be");
            return self.fail(key, Code::FLOW_CONTROL_ERROR, error);
        }
        self.wakes.push(stream.sending.waker.take());
        Ok(())
    }

    pub(super) fn reset_by_peer(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        let Some(code) = frame::number(payload).filter(|_| payload.len() == 4) else {
            return Err(size("RST_STREAM has not four bytes"));
        };
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Violation::protocol(
                "RST_STREAM of a stream that was never opened",
            ));
        }
        self.idle.frame()?;
        let Some(key) = self.streams.find(head.stream) else {
            return Ok(());
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        let early = self.idle.now.saturating_sub(stream.since) < PREMATURE;
        if self.role == Role::Server && !stream.sending.begun && early {
            self.idle.premature += 1;
            if self.idle.premature > MAX_PREMATURE_RESETS && self.idle.premature > self.idle.opened / 2 {
                return Err(Violation::calm("it resets streams before they are answered"));
            }
        }
        let error = match Code(code) {
            Code::REFUSED_STREAM if !stream.receiving.begun => StreamError::Unseen,
            code => StreamError::Reset(code),
        };
        stream.end(error, &mut self.wakes);
        self.settle(key);
        Ok(())
    }

    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("PING of a stream"));
        }
        if payload.len() != 8 {
            return Err(size("PING has not eight bytes"));
        }
        self.idle.frame()?;
        if !head.has(flag::ACK) {
            return self.answer(kind::PING, flag::ACK, 0, payload);
        }
        if payload == GOING && self.going == Going::Told {
            self.last_goaway();
        }
        if payload == THERE {
            self.asked = false;
        }
        Ok(())
    }

    pub(super) fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Violation> {
        if head.stream != 0 {
            return Err(Violation::protocol("GOAWAY of a stream"));
        }
        self.idle.frame()?;
        let code = payload.get(4..).and_then(frame::number);
        let (Some(last), Some(code)) = (frame::number(payload), code) else {
            return Err(size("GOAWAY has less than eight bytes"));
        };
        let (last, code) = (last & MAX_STREAM, Code(code));
        if self.peer.away.is_some_and(|(before, _)| last > before) {
            return Err(Violation::protocol(
                "GOAWAY takes streams back that it has given up",
            ));
        }
        self.peer.away = Some((last, code));
        if self.role == Role::Client {
            for stream in self.streams.each().filter(|stream| stream.id > last) {
                stream.end(StreamError::Unseen, &mut self.wakes);
            }
            for key in self.streams.keys() {
                self.settle(key);
            }
            for opener in self.openers.drain(..) {
                self.wakes.push(Some(opener));
            }
        }
        Ok(())
    }

    /// Tells the other side that this one goes. A server takes what is on its way until the other side has seen that: then no
    /// new streams. A client opens none.
    pub fn leave(&mut self) {
        if self.gone.is_some() || self.going != Going::No {
            return;
        }
        match self.role {
            Role::Client => {
                self.going = Going::Last(0);
                self.say_goaway(0, Code::NO_ERROR);
            }
            Role::Server => {
                self.going = Going::Told;
                self.say_goaway(MAX_STREAM, Code::NO_ERROR);
                put_head(&mut self.out, 8, kind::PING, 0, 0);
                self.out.extend_from_slice(&GOING);
            }
        }
        self.nudge();
    }

    fn last_goaway(&mut self) {
        self.going = Going::Last(self.last);
        self.say_goaway(self.last, Code::NO_ERROR);
    }

    pub(super) fn say_goaway(&mut self, last: u32, code: Code) {
        let last = match self.role {
            Role::Client => 0,
            Role::Server => last,
        };
        put_head(&mut self.out, 8, kind::GOAWAY, 0, 0);
        self.out.extend_from_slice(&last.to_be_bytes());
        self.out.extend_from_slice(&code.0.to_be_bytes());
    }

    /// Whether anything has come since this was asked before.
    pub fn heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Asks the other side whether it is there.
    pub fn ask(&mut self) {
        if self.gone.is_none() && !self.asked {
            self.asked = true;
            put_head(&mut self.out, 8, kind::PING, 0, 0);
            self.out.extend_from_slice(&THERE);
        }
    }

    /// Whether it was asked, and has not answered.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// It has not answered in time.
    pub fn silent(&mut self) {
        self.say_goaway(self.last, Code::NO_ERROR);
        self.end(Gone::Silent);
    }
}

fn size(why: &'static str) -> Violation {
    Violation::new(Code::FRAME_SIZE_ERROR, why)
}

fn flow(why: &'static str) -> Violation {
    Violation::new(Code::FLOW_CONTROL_ERROR, why)
}
