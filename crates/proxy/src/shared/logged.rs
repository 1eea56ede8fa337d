//! Whether there is an access log of an event, by a filter that Telemetry gives (Envoy "Attributes").

use snapshot::{Attribute, Datum, LogFilter};
use telemetry::{Event, Wire};

/// What is refused is logged all the same: that is for whoever takes the event to see to.
pub(crate) fn is_logged(filter: &LogFilter, event: &Event) -> bool {
    filter.admits(&|attribute| value(attribute, event))
}

fn value(attribute: Attribute, event: &Event) -> Option<Datum> {
    let http = event.http.as_deref();
    let number = |number: u64| Some(Datum::Number(i64::try_from(number).unwrap_or(i64::MAX)));
    let text = |text: &str| (!text.is_empty()).then(|| Datum::Text(text.to_owned()));
    match attribute {
        Attribute::ResponseCode => number(http?.code.into()),
        Attribute::ResponseCodeDetails => text(&event.details),
        Attribute::ResponseGrpcStatus => number(http?.grpc_status?.into()),
        Attribute::ResponseSize => number(event.bytes_sent),
        Attribute::RequestSize => number(event.bytes_received),
        Attribute::RequestMethod => text(&http?.method),
        Attribute::RequestPath => text(&http?.path),
        Attribute::RequestUrlPath => text(http?.path.split('?').next().unwrap_or_default()),
        Attribute::RequestHost => text(&http?.authority),
        Attribute::RequestProtocol => text(http?.version),
        Attribute::RequestUserAgent => text(&http?.user_agent),
        Attribute::RequestId => text(&http?.request_id),
        Attribute::ConnectionMtls => Some(Datum::Flag(matches!(
            event.wire,
            Wire::MutualTls | Wire::Hbone | Wire::Local
        ))),
        Attribute::ConnectionRequestedServerName => text(event.sni.as_deref()?),
        Attribute::DestinationPort => number(event.port.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapshot::Comparison;
    use telemetry::{EventKind, HttpEvent, Peer, Reporter};

    use super::*;

    #[test]
    fn an_event_has_what_filters_ask_for_and_nothing_that_was_not_there() {
        let nobody: Arc<Peer> = Arc::default();
        let mut event = Event::new(
            EventKind::Request,
            Reporter::Destination,
            std::time::SystemTime::UNIX_EPOCH,
            Arc::clone(&nobody),
            nobody,
        );
        event.wire = Wire::Local;
        event.port = 80;
        let compare = |attribute, with| LogFilter::Compare(attribute, Comparison::Equal, with);
        let text = |text: &str| Datum::Text(text.to_owned());
        let code = compare(Attribute::ResponseCode, Datum::Number(404));
        assert!(!is_logged(&code, &event), "a connection has no status");
        event.http = Some(Box::new(HttpEvent {
            method: "GET".into(),
            path: "/a?b=c".into(),
            code: 404,
            ..HttpEvent::default()
        }));
        for (filter, expect) in [
            (code, true),
            (compare(Attribute::RequestMethod, text("GET")), true),
            (compare(Attribute::RequestPath, text("/a?b=c")), true),
            (compare(Attribute::RequestUrlPath, text("/a")), true),
            (compare(Attribute::DestinationPort, Datum::Number(80)), true),
            (LogFilter::Is(Attribute::ConnectionMtls), true),
            (LogFilter::Has(Attribute::ResponseGrpcStatus), false),
            (LogFilter::Has(Attribute::ConnectionRequestedServerName), false),
        ] {
            assert_eq!(is_logged(&filter, &event), expect, "{filter:?}");
        }
    }
}
