//! Trace context: W3C `traceparent` and B3, as texts; and spans, which an event completes.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::event::Event;
use crate::otlp;

/// Which span of which trace a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace: [u8; 16],
    /// The span that the request comes from; never all zero.
    pub span: [u8; 8],
    /// Whether spans of the trace are recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads `traceparent` (W3C Trace Context, 3.2). A later version is read as far as this one goes.
    pub fn traceparent(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let flags: [u8; 1] = hex(flags)?;
        if version == [0xff] || (version == [0] && parts.next().is_some()) {
            return None;
        }
        Self::new(hex(trace)?, hex(span)?, flags.first()? & 1 == 1)
    }

    /// Reads the one header `b3` (openzipkin/b3-propagation): `TRACE-SPAN[-SAMPLED[-PARENT]]`. What only says whether to
    /// sample names no trace.
    pub fn b3(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (trace, span) = (parts.next()?, parts.next()?);
        Self::b3_parts(trace, span, parts.next())
    }

    /// Reads `x-b3-traceid`, `x-b3-spanid` and `x-b3-sampled`; `d` and `1` sample, and who says nothing leaves it open: it
    /// is not sampled.
    pub fn b3_parts(trace: &str, span: &str, sampled: Option<&str>) -> Option<Self> {
        let trace: [u8; 16] = match trace.len() {
            // 64 bits are the lower half.
            16 => {
                let [a, b, c, d, e, f, g, h]: [u8; 8] = hex_any_case(trace)?;
                [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
            }
            _ => hex_any_case(trace)?,
        };
        let sampled = matches!(sampled, Some("1" | "d" | "true"));
        Self::new(trace, hex_any_case(span)?, sampled)
    }

    fn new(trace: [u8; 16], span: [u8; 8], sampled: bool) -> Option<Self> {
        let whole = trace != [0; 16] && span != [0; 8];
        whole.then_some(Self { trace, span, sampled })
    }

    /// A trace that begins here, of random bytes.
    pub fn begin(random: [u8; 24], sampled: bool) -> Self {
        let (trace, span) = random.split_at(16);
        let mut new = Self {
            trace: [0; 16],
            span: [0; 8],
            sampled,
        };
        new.trace.copy_from_slice(trace);
        new.span.copy_from_slice(span);
        // Zero means none; a chance of 2^-64 that costs one bit.
        new.trace[15] |= u8::from(new.trace == [0; 16]);
        new.span[7] |= u8::from(new.span == [0; 8]);
        new
    }

    /// The same trace, from a span of random bytes.
    #[must_use]
    pub fn child(self, random: [u8; 8]) -> Self {
        let mut child = Self { span: random, ..self };
        child.span[7] |= u8::from(child.span == [0; 8]);
        child
    }

    /// As `traceparent`.
    pub fn to_traceparent(self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            text(&self.trace),
            text(&self.span),
            u8::from(self.sampled)
        )
    }

    /// The trace as text.
    pub fn trace_text(&self) -> String {
        text(&self.trace)
    }

    /// The span as text.
    pub fn span_text(&self) -> String {
        text(&self.span)
    }
}

/// Lower case alone, as `traceparent` has it.
fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex_any_case(digits)
}

fn hex_any_case<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != N * 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Which side of a call a span is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SpanKind {
    /// The callee's: OTLP's SERVER.
    Server,
    /// The caller's: OTLP's CLIENT.
    Client,
}

/// A span that has begun. Its event says the rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Itself.
    pub context: TraceContext,
    /// The span that it came from.
    pub parent: Option<[u8; 8]>,
    /// `tracestate`, as it came.
    pub state: String,
    /// Which side.
    pub kind: SpanKind,
    /// Attributes besides those of every span (Telemetry `customTags`).
    pub tags: Vec<(String, String)>,
    /// Bytes that a text may have as an attribute; the rest is cut (`maxTagLength`).
    pub max_tag_length: usize,
    /// Whose span it is.
    pub owner: SpanOwner,
}

/// Whose span it is, and who is to have it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SpanOwner {
    /// The mark of the workload's interface.
    pub mark: u32,
    /// The provider's name in MeshConfig.
    pub provider: Arc<str>,
    /// `service.name` of its resource: `NAME.NAMESPACE`, by its canonical service.
    pub service: Arc<str>,
}

/// A span that has ended, as OTLP has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// Whose it is.
    pub owner: SpanOwner,
    /// `opentelemetry.proto.trace.v1.Span`.
    pub bytes: Vec<u8>,
}

impl Span {
    /// The span with all that its event says. The event must have no secrets any more.
    pub(crate) fn finish(self, event: &Event) -> Finished {
        Finished {
            bytes: otlp::span(&self, event),
            owner: self.owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparent_is_read_as_w3c_says() {
        let context = TraceContext::traceparent(PARENT).unwrap();
        assert_eq!(context.to_traceparent(), PARENT);
        assert!(context.sampled);
        for (text, good) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", true),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e47+6-00f067aa0ba902b7-01", false),
            ("", false),
            ("é", false),
        ] {
            assert_eq!(TraceContext::traceparent(text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn b3_is_read_in_both_forms() {
        let context =
            TraceContext::b3("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90");
        let context = context.unwrap();
        assert_eq!(context.trace_text(), "80f198ee56343ba864fe8b2a57d3eff7");
        assert_eq!(context.span_text(), "e457b5a2e4d86bd1");
        assert!(context.sampled);
        let short = TraceContext::b3_parts("A3CE929D0E0E4736", "00f067aa0ba902b7", Some("0")).unwrap();
        assert_eq!(short.trace_text(), "0000000000000000a3ce929d0e0e4736");
        assert!(!short.sampled);
        for text in ["0", "1", "d", "", "x-y", "80f198ee56343ba864fe8b2a57d3eff7"] {
            assert!(TraceContext::b3(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_trace_that_begins_is_never_the_one_that_is_none() {
        let zero = TraceContext::begin([0; 24], true);
        assert!(TraceContext::traceparent(&zero.to_traceparent()).is_some());
        let child = zero.child([0; 8]);
        assert_eq!(child.trace, zero.trace);
        assert!(TraceContext::traceparent(&child.to_traceparent()).is_some());
    }
}
