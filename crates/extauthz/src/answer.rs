//! What an authorizer says.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prost::Message as _;
use proto::envoy::config::core::v3::HeaderValueOption;
use proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::envoy::service::auth::v3::check_response::HttpResponse;
use proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use snapshot::{HeaderPattern, HttpCheck};

use crate::changes::{Changes, Field, How, MAX_FIELDS, Unfit, is_of_hop, put_all};
use crate::frame::{FrameError, unframe};

/// Where an authorizer over HTTP lists, apart by commas, what is to be removed from the request (Envoy).
const REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// Fields of a refusal over HTTP that go with those that are listed.
const WITH_LISTED: [&str; 2] = ["www-authenticate", "location"];

/// What an authorizer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It admits.
    Allow(Changes),
    /// It refuses.
    Deny(Denied),
}

/// A refusal, as the caller gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The status.
    pub status: StatusCode,
    /// Fields.
    pub fields: Vec<Field>,
    /// The body.
    pub body: Bytes,
}

impl Denied {
    /// Sets the fields of a response. What frames a message, and what makes gRPC's status, stays as it is.
    pub fn put(&self, headers: &mut HeaderMap, grpc: bool) {
        let own = |field: &&Field| !grpc || field.name != header::CONTENT_TYPE;
        let fields: Vec<_> = self.fields.iter().filter(own).cloned().collect();
        put_all(&fields, headers);
    }
}

/// Why what came is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is no message of gRPC.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is no `CheckResponse`.
    #[error("the answer is no CheckResponse")]
    Message,
    /// It has no status.
    #[error("the answer has no status")]
    NoStatus,
    /// It admits and refuses.
    #[error("the answer contradicts itself")]
    Contradiction,
    /// What it changes cannot be changed.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The authorizer itself failed.
    #[error("the authorizer failed with status {0}")]
    Status(u16),
}

/// Reads the body of an answer over gRPC.
///
/// # Errors
/// It is no answer: then the authorizer has given none.
pub fn grpc(body: &[u8]) -> Result<Answer, AnswerError> {
    let response = CheckResponse::decode(unframe(body)?).map_err(|_| AnswerError::Message)?;
    let admits = match (&response.status, &response.http_response) {
        (Some(status), _) => status.code == 0,
        // All defaults are one message with no status; an admission must be said.
        (None, Some(HttpResponse::DeniedResponse(_))) => false,
        (None, _) => return Err(AnswerError::NoStatus),
    };
    match (admits, response.http_response) {
        (true, None) => Ok(Answer::Allow(Changes::default())),
        (true, Some(HttpResponse::OkResponse(ok))) => Ok(Answer::Allow(changes(&ok)?)),
        (true, Some(HttpResponse::DeniedResponse(_))) => Err(AnswerError::Contradiction),
        (false, Some(HttpResponse::DeniedResponse(denied))) => Ok(Answer::Deny(refusal(&denied))),
        (false, _) => Ok(Answer::Deny(Denied {
            status: StatusCode::FORBIDDEN,
            fields: Vec::new(),
            body: Bytes::new(),
        })),
    }
}

fn changes(ok: &OkHttpResponse) -> Result<Changes, Unfit> {
    let many = [
        ok.headers.len(),
        ok.headers_to_remove.len(),
        ok.response_headers_to_add.len(),
        ok.query_parameters_to_set.len(),
        ok.query_parameters_to_remove.len(),
    ];
    if many.iter().sum::<usize>() > MAX_FIELDS {
        return Err(Unfit::TooMuch);
    }
    let request = ok.headers.iter().map(|option| {
        let name = option
            .header
            .as_ref()
            .map(|h| h.key.to_ascii_lowercase())
            .unwrap_or_default();
        if name.starts_with(':') || name == "host" {
            return Err(Unfit::Routing(name));
        }
        field(option, How::Join, How::Set)
    });
    let response = ok.response_headers_to_add.iter();
    Changes {
        request: request.collect::<Result<_, _>>()?,
        // Pseudo-headers and Host stay (Envoy); a name that no field has removes nothing.
        remove: ok
            .headers_to_remove
            .iter()
            .filter_map(|name| name.to_ascii_lowercase().parse().ok())
            .collect(),
        response: response
            .map(|option| field(option, How::Add, How::Add))
            .collect::<Result<_, _>>()?,
        set_query: ok
            .query_parameters_to_set
            .iter()
            .map(|parameter| (parameter.key.clone(), parameter.value.clone()))
            .collect(),
        remove_query: ok.query_parameters_to_remove.clone(),
    }
    .checked()
}

fn refusal(denied: &DeniedHttpResponse) -> Denied {
    let code = denied.status.as_ref().map_or(0, |status| status.code);
    let mut fields: Vec<Field> = Vec::new();
    // A refusal stays one, whatever its fields are and however many: as no answer it could be admitted.
    for option in denied.headers.iter().take(MAX_FIELDS) {
        let Ok(mut field) = field(option, How::Add, How::Set) else {
            continue;
        };
        // The first of a name takes the place of what is there, its others follow: several cookies, say (Envoy).
        let unsaid = option.append.is_none() && option.append_action == 0;
        if unsaid && fields.iter().any(|known| known.name == field.name) {
            field.how = How::Add;
        }
        fields.push(field);
    }
    Denied {
        status: status(u16::try_from(code).unwrap_or_default()),
        fields,
        body: Bytes::copy_from_slice(denied.body.as_bytes()),
    }
}

/// The status of a refusal; 403 where it has none that a response can have.
fn status(code: u16) -> StatusCode {
    let final_ones = StatusCode::from_u16(code)
        .ok()
        .filter(|_| (200..600).contains(&code));
    final_ones.unwrap_or(StatusCode::FORBIDDEN)
}

/// One field; `appended` where it says `append`, `unsaid` where it says nothing.
fn field(option: &HeaderValueOption, appended: How, unsaid: How) -> Result<Field, Unfit> {
    let header = option.header.as_ref().ok_or(Unfit::Malformed)?;
    let bytes = if header.value.is_empty() {
        header.raw_value.as_slice()
    } else {
        header.value.as_bytes()
    };
    let how = match (option.append, HeaderAppendAction::try_from(option.append_action)) {
        (Some(true), _) => appended,
        (Some(false), _) | (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => How::Set,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => unsaid,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => How::IfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => How::IfPresent,
        (None, Err(_)) => return Err(Unfit::Malformed),
    };
    Ok(Field {
        name: header
            .key
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| Unfit::Malformed)?,
        value: HeaderValue::from_bytes(bytes).map_err(|_| Unfit::Malformed)?,
        how,
    })
}

/// Reads an answer over HTTP: 200 admits, 5xx is none, and anything else refuses.
///
/// # Errors
/// It is no answer: then the authorizer has given none.
pub fn http(
    check: &HttpCheck,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, AnswerError> {
    let taken = |patterns: &[HeaderPattern], how: fn(bool) -> How| {
        let mut fields: Vec<Field> = Vec::new();
        let listed = |name: &HeaderName| patterns.iter().any(|pattern| pattern.takes(name.as_str()));
        for (name, value) in headers.iter().filter(|(name, _)| listed(name)) {
            let again = fields.iter().any(|field| field.name == *name);
            fields.push(Field {
                name: name.clone(),
                value: value.clone(),
                how: how(again),
            });
        }
        fields
    };
    // The first line of a name takes the place of what is there, its others follow.
    let over = |again| if again { How::Add } else { How::Set };
    match status.as_u16() {
        200 => {
            let request = taken(&check.to_upstream, over);
            if request.iter().any(|field| field.name == header::HOST) {
                return Err(Unfit::Routing("host".to_owned()).into());
            }
            let lists = headers
                .get_all(REMOVE)
                .iter()
                .filter_map(|value| value.to_str().ok());
            let names = lists.flat_map(|list| list.split(','));
            let changes = Changes {
                request,
                remove: names
                    .filter_map(|name| name.trim().to_ascii_lowercase().parse().ok())
                    .take(MAX_FIELDS + 1)
                    .collect(),
                response: taken(&check.to_downstream_on_allow, |_| How::Add),
                ..Changes::default()
            };
            Ok(Answer::Allow(changes.checked()?))
        }
        code @ (..200 | 500..) => Err(AnswerError::Status(code)),
        _ => {
            let all = check.to_downstream_on_deny.is_empty();
            let listed = |name: &HeaderName| {
                all || WITH_LISTED.contains(&name.as_str())
                    || check.to_downstream_on_deny.iter().any(|p| p.takes(name.as_str()))
            };
            let mut fields: Vec<Field> = Vec::new();
            for (name, value) in headers {
                if listed(name) && *name != header::HOST && !is_of_hop(name) {
                    let again = fields.iter().any(|field| field.name == *name);
                    fields.push(Field {
                        name: name.clone(),
                        value: value.clone(),
                        how: over(again),
                    });
                }
            }
            Ok(Answer::Deny(Denied { status, fields, body }))
        }
    }
}

#[cfg(test)]
mod tests;
