use proptest::prelude::*;
use proto::envoy::config::core::v3::{HeaderValue as Value, QueryParameter};
use proto::envoy::r#type::v3::HttpStatus;
use proto::google::rpc::Status;

use super::*;
use crate::frame::frame;

fn option(key: &str, value: &str, append: Option<bool>, action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(Value {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append,
        append_action: action,
    }
}

fn said(code: Option<i32>, http_response: Option<HttpResponse>) -> Result<Answer, AnswerError> {
    let status = code.map(|code| Status {
        code,
        ..Status::default()
    });
    let message = CheckResponse {
        status,
        http_response,
    };
    grpc(&frame(&message.encode_to_vec()))
}

fn ok(edit: impl FnOnce(&mut OkHttpResponse)) -> Option<HttpResponse> {
    let mut ok = OkHttpResponse::default();
    edit(&mut ok);
    Some(HttpResponse::OkResponse(ok))
}

fn denied(code: i32) -> Option<HttpResponse> {
    Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers: vec![
            option("X-Why", "because", None, 0),
            option("bad name", "", None, 0),
        ],
        body: "no".to_owned(),
    }))
}

#[test]
fn s2_13_only_what_is_said_to_be_admitted_is() {
    assert_eq!(said(Some(0), None), Ok(Answer::Allow(Changes::default())));
    assert_eq!(said(Some(0), ok(|_| {})), Ok(Answer::Allow(Changes::default())));
    assert!(matches!(said(Some(7), None), Ok(Answer::Deny(d)) if d.status == 403));
    assert!(matches!(said(Some(7), ok(|_| {})), Ok(Answer::Deny(_))));
    assert!(matches!(said(None, denied(401)), Ok(Answer::Deny(d)) if d.status == 401));
    assert_eq!(said(None, None), Err(AnswerError::NoStatus));
    assert_eq!(said(None, ok(|_| {})), Err(AnswerError::NoStatus));
    assert_eq!(said(Some(0), denied(403)), Err(AnswerError::Contradiction));
    assert_eq!(grpc(b"\0\0\0\0\x01\xff"), Err(AnswerError::Message));
    assert_eq!(grpc(b""), Err(AnswerError::Frame(FrameError::Length)));
}

#[test]
fn s2_12_a_refusal_is_the_authorizers_word() {
    let Ok(Answer::Deny(refusal)) = said(Some(7), denied(429)) else {
        panic!()
    };
    assert_eq!(
        (refusal.status.as_u16(), refusal.body.as_ref()),
        (429, &b"no"[..])
    );
    let mut headers = HeaderMap::new();
    refusal.put(&mut headers, false);
    assert_eq!((headers.len(), headers["x-why"].as_bytes()), (1, &b"because"[..]));
    for (code, expect) in [
        (0, 403),
        (7, 403),
        (101, 403),
        (200, 200),
        (599, 599),
        (600, 403),
        (-1, 403),
        (70_000, 403),
    ] {
        assert!(
            matches!(said(Some(7), denied(code)), Ok(Answer::Deny(d)) if d.status == expect),
            "{code}"
        );
    }
}

fn refused(fields: Vec<HeaderValueOption>) -> Result<Answer, AnswerError> {
    let refusal = DeniedHttpResponse {
        status: Some(HttpStatus { code: 302 }),
        headers: fields,
        body: String::new(),
    };
    said(Some(16), Some(HttpResponse::DeniedResponse(refusal)))
}

#[test]
fn s2_12_a_refusal_over_grpc_can_set_a_field_several_times() {
    let fields = vec![
        option("set-cookie", "a=1", None, 0),
        option("Set-Cookie", "b=2", None, 0),
        option("location", "/login", None, 0),
    ];
    let Ok(Answer::Deny(refusal)) = refused(fields) else {
        panic!()
    };
    let mut headers = HeaderMap::new();
    headers.insert("set-cookie", HeaderValue::from_static("old"));
    refusal.put(&mut headers, false);
    // In place of what is there, and all of them: what Envoy makes of it.
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(headers["location"], "/login");
}

#[test]
fn a_refusal_stays_one_however_much_it_says() {
    // Else it would be no answer, which `failOpen` admits.
    let many = (0..10 * MAX_FIELDS).map(|at| option(&format!("x-{at}"), "", None, 0));
    let Ok(Answer::Deny(refusal)) = refused(many.collect()) else {
        panic!()
    };
    assert_eq!((refusal.status.as_u16(), refusal.fields.len()), (302, MAX_FIELDS));
}

#[test]
fn a_refusal_cannot_look_like_success_to_grpc_nor_frame_the_answer() {
    let fields = [
        "grpc-status",
        "content-length",
        "transfer-encoding",
        "content-type",
        "x-meshward-decision",
    ];
    let refusal = Denied {
        status: StatusCode::FORBIDDEN,
        fields: fields
            .map(|name| Field {
                name: HeaderName::from_static(name),
                value: HeaderValue::from_static("0"),
                how: How::Set,
            })
            .into(),
        body: Bytes::new(),
    };
    let mut headers = HeaderMap::new();
    refusal.put(&mut headers, true);
    assert!(headers.is_empty(), "{headers:?}");
}

#[test]
fn fields_of_an_admission_are_set_joined_or_added() {
    let found = said(
        Some(0),
        ok(|ok| {
            ok.headers = vec![
                option("A", "1", None, 0),
                option("b", "1", Some(true), 0),
                option("c", "1", Some(false), 0),
                option("d", "1", None, 1),
                option("e", "1", None, 2),
                option("f", "1", None, 3),
            ];
            ok.response_headers_to_add = vec![option("g", "1", None, 0), option("h", "1", Some(false), 0)];
            ok.headers_to_remove = vec!["X-Gone".to_owned(), ":path".to_owned()];
            ok.query_parameters_to_set = vec![QueryParameter {
                key: "k".to_owned(),
                value: "v".to_owned(),
            }];
        }),
    );
    let Ok(Answer::Allow(changes)) = found else {
        panic!("{found:?}")
    };
    let how: Vec<_> = changes.request.iter().map(|f| (f.name.as_str(), f.how)).collect();
    assert_eq!(
        how,
        [
            ("a", How::Set),
            ("b", How::Join),
            ("c", How::Set),
            ("d", How::IfAbsent),
            ("e", How::Set),
            ("f", How::IfPresent)
        ]
    );
    let how: Vec<_> = changes
        .response
        .iter()
        .map(|f| (f.name.as_str(), f.how))
        .collect();
    assert_eq!(how, [("g", How::Add), ("h", How::Set)]);
    assert_eq!(changes.remove, ["x-gone"]);
    assert_eq!(changes.set_query, [("k".to_owned(), "v".to_owned())]);
}

#[test]
fn an_admission_that_cannot_be_carried_out_is_none() {
    for (name, value) in [(":path", "/x"), ("Host", "x"), (":method", "GET")] {
        let got = said(Some(0), ok(|ok| ok.headers = vec![option(name, value, None, 0)]));
        assert!(
            matches!(got, Err(AnswerError::Unfit(Unfit::Routing(_)))),
            "{name}: {got:?}"
        );
    }
    for (name, value, action) in [("a b", "", 0), ("a", "x\r\ny: z", 0), ("", "", 0), ("a", "x", 9)] {
        let got = said(
            Some(0),
            ok(|ok| ok.headers = vec![option(name, value, None, action)]),
        );
        assert_eq!(got, Err(AnswerError::Unfit(Unfit::Malformed)), "{name}");
    }
    let many = said(Some(0), ok(|ok| ok.headers = vec![option("a", "", None, 0); 101]));
    assert_eq!(many, Err(AnswerError::Unfit(Unfit::TooMuch)));
    let long = "x".repeat(70_000);
    let long = said(Some(0), ok(|ok| ok.headers = vec![option("a", &long, None, 0)]));
    assert_eq!(long, Err(AnswerError::Unfit(Unfit::TooMuch)));
}

fn answered(
    check: &HttpCheck,
    status: u16,
    fields: &[(&'static str, &'static str)],
) -> Result<Answer, AnswerError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let status = StatusCode::from_u16(status).unwrap();
    http(check, status, &headers, Bytes::from_static(b"body"))
}

#[test]
fn s2_13_over_http_only_200_admits() {
    let check = HttpCheck::default();
    for status in 200..600 {
        let got = answered(&check, status, &[]);
        match status {
            200 => assert_eq!(got, Ok(Answer::Allow(Changes::default()))),
            500.. => assert_eq!(got, Err(AnswerError::Status(status))),
            _ => assert!(
                matches!(got, Ok(Answer::Deny(d)) if d.status == status),
                "{status}"
            ),
        }
    }
}

#[test]
fn over_http_listed_fields_go_on_and_others_do_not() {
    let patterns = |texts: &[&str]| texts.iter().map(|text| HeaderPattern::new(text)).collect();
    let check = HttpCheck {
        to_upstream: patterns(&["authorization", "x-user-*"]),
        to_downstream_on_deny: patterns(&["content-type"]),
        to_downstream_on_allow: patterns(&["set-cookie"]),
        ..HttpCheck::default()
    };
    let fields = [
        ("authorization", "a"),
        ("x-user-id", "1"),
        ("x-user-id", "2"),
        ("set-cookie", "c"),
        ("content-type", "text/html"),
        ("location", "/there"),
        ("x-envoy-auth-headers-to-remove", "x-a, X-B"),
        ("content-length", "4"),
    ];
    let Ok(Answer::Allow(changes)) = answered(&check, 200, &fields) else {
        panic!()
    };
    let how: Vec<_> = changes.request.iter().map(|f| (f.name.as_str(), f.how)).collect();
    assert_eq!(
        how,
        [
            ("authorization", How::Set),
            ("x-user-id", How::Set),
            ("x-user-id", How::Add)
        ]
    );
    assert_eq!(changes.remove, ["x-a", "x-b"]);
    assert_eq!(changes.response.len(), 1);
    let names = |check: &HttpCheck| match answered(check, 302, &fields) {
        Ok(Answer::Deny(refusal)) => refusal
            .fields
            .iter()
            .map(|f| f.name.to_string())
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names(&check), ["content-type", "location"]);
    // Where nothing is listed, everything but what frames the message.
    assert_eq!(names(&HttpCheck::default()).len(), 7);
}

proptest! {
    #[test]
    fn no_bytes_do_more_than_fail(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = grpc(&body);
        let _ = grpc(&frame(&body));
    }
}
