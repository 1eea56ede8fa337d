//! Why a message was not taken.

use http::{HeaderValue, StatusCode, header};
use model::Reason;

use crate::{Body, Response};

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $variant:ident = $status:literal, $details:literal, $text:literal;)*) => {
        /// What is wrong with a message. Total: there is no other way to be refused here.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
        pub enum Fault {
            $($(#[doc = $doc])* #[error($text)] $variant,)*
        }

        impl Fault {
            /// The status of the answer.
            pub fn status(self) -> StatusCode {
                let code: u16 = match self { $(Self::$variant => $status,)* };
                StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST)
            }

            /// Envoy's word for it, in response code details.
            pub fn details(self) -> &'static str {
                match self { $(Self::$variant => $details,)* }
            }
        }
    };
}

faults! {
    /// A line feed without a carriage return before it, or the other way round.
    BareLineEnd = 400, "http1.codec_error", "a line does not end with CR LF";
    /// A NUL or another control character.
    Control = 400, "http1.invalid_characters", "the head holds a control character";
    /// The request line is not `METHOD TARGET HTTP/1.1`.
    RequestLine = 400, "http1.codec_error", "the request line is malformed";
    /// Not one of the methods that HTTP/1 proxies know (O-07).
    Method = 400, "http1.codec_error", "the method is not known";
    /// The target is in no form that fits the method, or has a byte that does not belong there.
    Target = 400, "http1.invalid_url", "the request target is malformed";
    /// The target is too long.
    TargetTooLong = 414, "http1.codec_error", "the request target is too long";
    /// A version that is not HTTP/1.
    HttpVersion = 400, "http1.codec_error", "the version is not HTTP/1.1";
    /// HTTP/1.0 where it is not taken.
    LowVersion = 426, "low_version", "HTTP/1.0 is not taken here";
    /// A header line starts with white space.
    Folding = 400, "http1.codec_error", "a header line is folded";
    /// A header field's name is empty or has a byte that no name has, white space before the colon included.
    FieldName = 400, "http1.codec_error", "a header field has a malformed name";
    /// A header field's value has a byte that no value has.
    FieldValue = 400, "http1.codec_error", "a header field has a malformed value";
    /// A name that only looks like one of those that say where a message ends.
    FramingLookalike = 400, "http1.codec_error", "a header field is named nearly like one that frames the message";
    /// The head is longer than [`crate::limits::MAX_HEAD`].
    HeadTooLong = 431, "http1.headers_too_large", "the head is too long";
    /// More fields than [`crate::limits::MAX_FIELDS`].
    TooManyFields = 431, "http1.too_many_headers", "the head has too many fields";
    /// Content-Length is not one number, or comes more than once.
    ContentLength = 400, "http1.content_length_invalid", "content-length is not one number";
    /// Transfer-Encoding is not exactly `chunked`, or comes more than once.
    TransferEncoding = 400, "http1.invalid_transfer_encoding", "transfer-encoding is not `chunked`";
    /// Content-Length and Transfer-Encoding.
    LengthAndEncoding = 400, "http1.content_length_and_chunked_not_allowed", "content-length and transfer-encoding come together";
    /// Transfer-Encoding in HTTP/1.0.
    EncodingInHttp10 = 400, "http1.invalid_transfer_encoding", "HTTP/1.0 knows no transfer-encoding";
    /// No Host, or an empty one.
    MissingHost = 400, "missing_host_header", "the host is missing";
    /// Several Hosts.
    SeveralHosts = 400, "http1.codec_error", "the host comes more than once";
    /// The Host is no host.
    Host = 400, "http1.codec_error", "the host is malformed";
    /// The target's authority and the Host differ.
    HostMismatch = 400, "http1.codec_error", "the target and the host name different authorities";
    /// CONNECT.
    Connect = 404, "route_not_found", "CONNECT is refused";
    /// An expectation other than `100-continue`.
    Expectation = 417, "expectation_unknown", "the expectation is not known";
    /// A chunk's size line is malformed.
    ChunkSize = 400, "http1.codec_error", "a chunk's size is malformed";
    /// A chunk does not end where its size says.
    ChunkEnd = 400, "http1.codec_error", "a chunk does not end where its size says";
    /// Trailers that are malformed or too many.
    Trailers = 400, "http1.codec_error", "the trailers are malformed";
    /// The head did not arrive in time.
    HeadTimeout = 408, "request_header_timeout", "the head did not arrive in time";
}

/// What broke a connection or a message, in the codec's words.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Broken(#[from] pub(crate) Codec);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Codec {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Stream(#[from] http2::StreamError),
    #[error(transparent)]
    Gone(#[from] http2::Gone),
}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Self(error.into())
    }
}

impl From<http2::StreamError> for Broken {
    fn from(error: http2::StreamError) -> Self {
        Self(error.into())
    }
}

impl From<http2::Gone> for Broken {
    fn from(gone: http2::Gone) -> Self {
        Self(gone.into())
    }
}

impl Broken {
    /// What the stream of somebody else ends with for its sake.
    pub(crate) fn code(&self) -> http2::Code {
        match &self.0 {
            Codec::Stream(error) => error.code(),
            Codec::Http1(_) | Codec::Gone(_) => http2::Code::INTERNAL_ERROR,
        }
    }
}

impl Fault {
    /// The reason that the access log gives.
    pub fn reason(self) -> Reason {
        match self {
            Self::HeadTooLong | Self::TooManyFields | Self::TargetTooLong => Reason::LimitReached,
            Self::HeadTimeout => Reason::Timeout,
            Self::Connect => Reason::MethodRefused,
            _ => Reason::ProtocolError,
        }
    }

    /// The answer, and on HTTP/1 the connection's last word.
    pub(crate) fn response(self, close: bool) -> Response {
        let text = self.status().canonical_reason().unwrap_or("Bad Request");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status();
        if close {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }
}
