//! Trace headers of requests: W3C Trace Context and B3, read, continued and begun.
//!
//! What came is what goes on: a caller's `traceparent` counts before its B3, and whichever it sent is written anew with the
//! proxy's own span. Where nothing came, a `traceparent` begins. A request whose headers are none of either (twice the
//! same, or not well formed) begins a trace, as W3C says.

use meshward_http::{HeaderMap, HeaderName, HeaderValue};
use snapshot::{Tag, Tracing, WHOLE};
use telemetry::{Peer, Span, SpanKind, SpanOwner, TraceContext};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
const B3: &str = "b3";
const B3_TRACE: &str = "x-b3-traceid";
const B3_SPAN: &str = "x-b3-spanid";
const B3_PARENT: &str = "x-b3-parentspanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const B3_FLAGS: &str = "x-b3-flags";

/// Bytes of `tracestate` that are kept with a span (W3C Trace Context, 3.3.1.5).
const MAX_STATE: usize = 512;

/// Headers whose values are nobody's business but the two ends'.
const SECRET: [&str; 5] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-forwarded-client-cert",
];

/// Whose request it is.
pub(crate) struct Whose<'a> {
    /// The mark of the workload whose proxy this is.
    pub(crate) mark: u32,
    /// The same, as events know it.
    pub(crate) peer: &'a Peer,
    /// Whether it calls or is called.
    pub(crate) kind: SpanKind,
}

/// Takes the request into its trace, or begins one, and writes the headers of the next hop. The span, where it is to be
/// recorded.
pub(crate) fn begin(
    headers: &mut HeaderMap,
    tracing: &Tracing,
    whose: &Whose<'_>,
    random: [u8; 32],
) -> Option<Box<Span>> {
    let came = Came::read(headers);
    let (ids, dice) = random.split_at(24);
    let mut ids: [u8; 24] = ids.try_into().unwrap_or_default();
    let (context, parent) = match came.context {
        Some(parent) => {
            let mut own = [0; 8];
            own.copy_from_slice(ids.split_at(8).0);
            (parent.child(own), Some(parent.span))
        }
        None => {
            let sampled = came.wanted.unwrap_or_else(|| chosen(dice, tracing.sampling));
            (TraceContext::begin(std::mem::take(&mut ids), sampled), None)
        }
    };
    let state = if came.w3c { state(headers) } else { String::new() };
    let tags = tags(headers, tracing);
    if tracing.propagate {
        came.write(headers, context, parent);
    }
    let recorded = match whose.kind {
        SpanKind::Client => tracing.client,
        SpanKind::Server => tracing.server,
    };
    (recorded && context.sampled).then(|| {
        Box::new(Span {
            context,
            parent,
            state,
            kind: whose.kind,
            tags,
            max_tag_length: usize::try_from(tracing.provider.max_tag_length).unwrap_or(usize::MAX),
            owner: SpanOwner {
                mark: whose.mark,
                provider: tracing.provider.name.as_str().into(),
                service: service(whose.peer).into(),
            },
        })
    })
}

/// Random bytes for [`begin`].
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    // Without randomness the ids are the same for all: traces are of no use then, and nothing else is harmed.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// A header that says that whatever it comes with is not to be traced: for requests that carry spans themselves.
pub(crate) fn unsampled(headers: &mut HeaderMap) {
    let [ids @ .., _, _, _, _, _, _, _, _] = random();
    set(headers, PARENT, &TraceContext::begin(ids, false).to_traceparent());
}

/// What the headers say.
struct Came {
    context: Option<TraceContext>,
    /// Whether that is `traceparent`'s.
    w3c: bool,
    /// B3 in one header, in several.
    single: bool,
    several: bool,
    /// What B3 says of sampling where it names no trace.
    wanted: Option<bool>,
}

impl Came {
    fn read(headers: &HeaderMap) -> Self {
        let parent = one(headers, PARENT).and_then(TraceContext::traceparent);
        let (single, sampled) = (one(headers, B3), one(headers, B3_SAMPLED));
        let several = one(headers, B3_TRACE).zip(one(headers, B3_SPAN));
        // The flag that debugs is a sample.
        let flag = one(headers, B3_FLAGS).filter(|flags| *flags == "1");
        let b3 = single.and_then(TraceContext::b3).or_else(|| {
            let (trace, span) = several?;
            TraceContext::b3_parts(trace, span, flag.or(sampled))
        });
        let wanted = match single.or(flag).or(sampled) {
            Some("0" | "false") => Some(false),
            Some("1" | "d" | "true") => Some(true),
            _ => None,
        };
        Self {
            w3c: parent.is_some(),
            context: parent.or(b3),
            single: single.is_some(),
            several: several.is_some() || sampled.is_some() || flag.is_some(),
            wanted,
        }
    }

    fn write(&self, headers: &mut HeaderMap, context: TraceContext, parent: Option<[u8; 8]>) {
        set(headers, PARENT, &context.to_traceparent());
        if !self.w3c {
            // It belongs to a trace that is not this one.
            headers.remove(STATE);
        }
        let sampled = if context.sampled { "1" } else { "0" };
        let (trace, span) = (context.trace_text(), context.span_text());
        let parent = parent.map(|span| TraceContext { span, ..context }.span_text());
        if self.single {
            let up = parent.as_deref().map(|up| format!("-{up}")).unwrap_or_default();
            set(headers, B3, &format!("{trace}-{span}-{sampled}{up}"));
        }
        if self.several {
            set(headers, B3_TRACE, &trace);
            set(headers, B3_SPAN, &span);
            set(headers, B3_SAMPLED, sampled);
            headers.remove(B3_FLAGS);
            match parent {
                Some(parent) => set(headers, B3_PARENT, &parent),
                None => drop(headers.remove(B3_PARENT)),
            }
        }
    }
}

/// The value of a header that is there once, and is text.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn state(headers: &HeaderMap) -> String {
    let lines = headers.get_all(STATE).iter();
    let texts: Vec<&str> = lines.filter_map(|value| value.to_str().ok()).collect();
    let all = texts.join(",");
    if all.len() > MAX_STATE { String::new() } else { all }
}

/// Whether a throw of dice falls within a share of [`WHOLE`].
fn chosen(dice: &[u8], share: u32) -> bool {
    let throw = dice
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    throw % u64::from(WHOLE) < u64::from(share)
}

fn tags(headers: &HeaderMap, tracing: &Tracing) -> Vec<(String, String)> {
    let value = |tag: &Tag| match tag {
        Tag::Literal(value) => value.clone(),
        Tag::Header { name, default } => match headers.get(name) {
            Some(_) if SECRET.contains(&name.as_str()) => "REDACTED".to_owned(),
            Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            None => default.clone(),
        },
    };
    let all = tracing.tags.iter().map(|(name, tag)| (name.clone(), value(tag)));
    all.filter(|(_, value)| !value.is_empty()).collect()
}

/// Istio's `service.name`: the canonical service, and its namespace.
fn service(peer: &Peer) -> String {
    let name = match &*peer.canonical_name {
        "" => &*peer.workload,
        name => name,
    };
    format!("{name}.{}", peer.namespace)
}

#[cfg(test)]
mod tests {
    use model::ServiceName;
    use snapshot::TraceProvider;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn tracing() -> Tracing {
        Tracing {
            provider: TraceProvider {
                name: "otel".to_owned(),
                service: ServiceName::new("observe", "collector"),
                port: 4317,
                path: None,
                headers: Vec::new(),
                timeout_ms: 1000,
                max_tag_length: 256,
            },
            sampling: 0,
            client: true,
            server: true,
            propagate: true,
            tags: Vec::new(),
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        map
    }

    fn go(map: &mut HeaderMap, tracing: &Tracing, kind: SpanKind) -> Option<Box<Span>> {
        let peer = Peer {
            canonical_name: "web".into(),
            namespace: "full".into(),
            ..Peer::default()
        };
        let whose = Whose {
            mark: 1,
            peer: &peer,
            kind,
        };
        begin(map, tracing, &whose, [7; 32])
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let came = format!("00-{TRACE}-{SPAN}-01");
        let mut map = headers(&[(PARENT, &came), (STATE, "a=1"), (STATE, "b=2")]);
        let span = go(&mut map, &tracing(), SpanKind::Client).unwrap();
        assert_eq!(map[PARENT], format!("00-{TRACE}-0707070707070707-01"));
        assert_eq!(map.get_all(STATE).iter().count(), 2);
        assert_eq!(span.state, "a=1,b=2");
        assert_eq!(span.parent.map(|span| span[1]), Some(0xf0));
        assert_eq!(&*span.owner.service, "web.full");
        assert!(!map.contains_key(B3));
    }

    #[test]
    fn what_is_not_sampled_goes_on_unsampled_and_leaves_no_span() {
        let came = format!("00-{TRACE}-{SPAN}-00");
        let mut map = headers(&[(PARENT, &came)]);
        let always = Tracing {
            sampling: WHOLE,
            ..tracing()
        };
        assert!(go(&mut map, &always, SpanKind::Server).is_none());
        assert_eq!(map[PARENT], format!("00-{TRACE}-0707070707070707-00"));
    }

    #[test]
    fn where_nothing_came_sampling_says_whether_a_span_is_recorded() {
        for (share, recorded) in [(0, false), (WHOLE, true)] {
            let mut map = headers(&[(STATE, "a=1")]);
            let settings = Tracing {
                sampling: share,
                ..tracing()
            };
            let span = go(&mut map, &settings, SpanKind::Client);
            assert_eq!(span.is_some(), recorded);
            let flags = if recorded { "01" } else { "00" };
            assert!(map[PARENT].to_str().unwrap().ends_with(flags), "{map:?}");
            assert!(!map.contains_key(STATE), "it is of no trace: {map:?}");
        }
        assert!(chosen(&[0; 8], 1) && !chosen(&[0; 8], 0));
    }

    #[test]
    fn b3_goes_on_in_the_form_that_it_came_in() {
        let mut map = headers(&[(B3, &format!("{TRACE}-{SPAN}-1"))]);
        let span = go(&mut map, &tracing(), SpanKind::Client).unwrap();
        assert_eq!(map[B3], format!("{TRACE}-0707070707070707-1-{SPAN}"));
        assert_eq!(map[PARENT], format!("00-{TRACE}-0707070707070707-01"));
        assert!(span.parent.is_some());

        let mut map = headers(&[
            (B3_TRACE, TRACE),
            (B3_SPAN, SPAN),
            (B3_PARENT, "1111111111111111"),
            (B3_SAMPLED, "1"),
        ]);
        assert!(go(&mut map, &tracing(), SpanKind::Server).is_some());
        assert_eq!(map[B3_TRACE], TRACE);
        assert_eq!(map[B3_SPAN], "0707070707070707");
        assert_eq!(map[B3_PARENT], SPAN);
        assert_eq!(map[B3_SAMPLED], "1");

        // Only the wish to be sampled, or not to be.
        for (wish, recorded) in [("1", true), ("d", true), ("0", false)] {
            let mut map = headers(&[(B3, wish)]);
            assert_eq!(
                go(&mut map, &tracing(), SpanKind::Client).is_some(),
                recorded,
                "{wish}"
            );
        }
    }

    #[test]
    fn what_is_malformed_or_twice_there_begins_anew() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for fields in [
            vec![(PARENT, "00-xyz-1-01")],
            vec![(PARENT, good.as_str()), (PARENT, good.as_str())],
        ] {
            let mut map = headers(&fields);
            assert!(go(&mut map, &tracing(), SpanKind::Client).is_none());
            assert_eq!(map.get_all(PARENT).iter().count(), 1);
            assert!(!map[PARENT].to_str().unwrap().contains(TRACE));
        }
    }

    #[test]
    fn nothing_is_written_where_headers_are_not_to_be_passed_on() {
        let settings = Tracing {
            propagate: false,
            sampling: WHOLE,
            ..tracing()
        };
        let mut map = headers(&[("x-other", "1")]);
        assert!(go(&mut map, &settings, SpanKind::Client).is_some());
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn tags_never_hold_credentials() {
        let header = |name: &str| Tag::Header {
            name: name.to_owned(),
            default: String::new(),
        };
        let settings = Tracing {
            sampling: WHOLE,
            tags: vec![
                ("a".to_owned(), Tag::Literal("1".to_owned())),
                ("b".to_owned(), header("x-team")),
                ("c".to_owned(), header("authorization")),
                ("d".to_owned(), header("x-absent")),
            ],
            ..tracing()
        };
        let mut map = headers(&[("x-team", "blue"), ("authorization", "Bearer x")]);
        let span = go(&mut map, &settings, SpanKind::Client).unwrap();
        let tags: Vec<_> = span.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tags, [("a", "1"), ("b", "blue"), ("c", "REDACTED")]);
    }
}
