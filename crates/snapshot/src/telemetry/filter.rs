//! Of which calls there is an access log: the part of CEL that filters of access logs are mostly written in, read
//! (Telemetry `accessLogging[].filter`; Envoy "Attributes").

use serde::{Deserialize, Serialize};

/// A condition on what was seen of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LogFilter {
    /// `&&`.
    All(Vec<Self>),
    /// `||`.
    Any(Vec<Self>),
    /// `!`.
    Not(Box<Self>),
    /// `true` or `false`.
    Constant(bool),
    /// `has(ATTRIBUTE)`.
    Has(Attribute),
    /// An attribute that is true or false.
    Is(Attribute),
    /// `ATTRIBUTE == VALUE` and its like.
    Compare(Attribute, Comparison, Datum),
    /// `ATTRIBUTE in [VALUES]`.
    In(Attribute, Vec<Datum>),
    /// `ATTRIBUTE.startsWith(TEXT)` and its like.
    Text(Attribute, TextTest, String),
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are Envoy's, `response.code` and so on")]
pub enum Attribute {
    ResponseCode,
    ResponseCodeDetails,
    ResponseGrpcStatus,
    ResponseSize,
    RequestSize,
    RequestMethod,
    RequestPath,
    RequestUrlPath,
    RequestHost,
    RequestProtocol,
    RequestUserAgent,
    RequestId,
    ConnectionMtls,
    ConnectionRequestedServerName,
    DestinationPort,
}

/// What an attribute is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A whole number.
    Number,
    /// A text.
    Text,
    /// True or false.
    Flag,
}

/// What an attribute is compared with, or has for a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datum {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
}

/// How it is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is asked of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are CEL's")]
pub enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// All attributes by their names in Envoy.
pub const ATTRIBUTES: [(&str, Attribute); 15] = [
    ("response.code", Attribute::ResponseCode),
    ("response.code_details", Attribute::ResponseCodeDetails),
    ("response.grpc_status", Attribute::ResponseGrpcStatus),
    ("response.size", Attribute::ResponseSize),
    ("request.size", Attribute::RequestSize),
    ("request.method", Attribute::RequestMethod),
    ("request.path", Attribute::RequestPath),
    ("request.url_path", Attribute::RequestUrlPath),
    ("request.host", Attribute::RequestHost),
    ("request.protocol", Attribute::RequestProtocol),
    ("request.useragent", Attribute::RequestUserAgent),
    ("request.id", Attribute::RequestId),
    ("connection.mtls", Attribute::ConnectionMtls),
    (
        "connection.requested_server_name",
        Attribute::ConnectionRequestedServerName,
    ),
    ("destination.port", Attribute::DestinationPort),
];

impl Attribute {
    /// What it is.
    pub fn kind(self) -> Kind {
        match self {
            Self::ResponseCode
            | Self::ResponseGrpcStatus
            | Self::ResponseSize
            | Self::RequestSize
            | Self::DestinationPort => Kind::Number,
            Self::ConnectionMtls => Kind::Flag,
            _ => Kind::Text,
        }
    }
}

impl Datum {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
            Self::Flag(_) => Kind::Flag,
        }
    }
}

impl LogFilter {
    /// Whether there is an access log of a call of which `value` says what an attribute was. As in Envoy, an expression that
    /// looks at what was not there admits nothing, unless the rest of it decides all the same.
    pub fn admits(&self, value: &impl Fn(Attribute) -> Option<Datum>) -> bool {
        self.holds(value) == Some(true)
    }

    fn holds(&self, value: &impl Fn(Attribute) -> Option<Datum>) -> Option<bool> {
        match self {
            Self::All(parts) => decided(parts, false, value),
            Self::Any(parts) => decided(parts, true, value),
            Self::Not(part) => part.holds(value).map(|holds| !holds),
            Self::Constant(holds) => Some(*holds),
            Self::Has(attribute) => Some(value(*attribute).is_some()),
            Self::Is(attribute) => match value(*attribute)? {
                Datum::Flag(holds) => Some(holds),
                Datum::Number(_) | Datum::Text(_) => None,
            },
            Self::Compare(attribute, how, with) => {
                let own = value(*attribute)?;
                (own.kind() == with.kind()).then(|| how.holds(&own, with))
            }
            Self::In(attribute, list) => Some(list.contains(&value(*attribute)?)),
            Self::Text(attribute, test, with) => match value(*attribute)? {
                Datum::Text(own) => Some(match test {
                    TextTest::StartsWith => own.starts_with(with.as_str()),
                    TextTest::EndsWith => own.ends_with(with.as_str()),
                    TextTest::Contains => own.contains(with.as_str()),
                }),
                Datum::Number(_) | Datum::Flag(_) => None,
            },
        }
    }
}

/// Parts of which one that is `enough` decides; what cannot be told decides nothing.
fn decided(parts: &[LogFilter], enough: bool, value: &impl Fn(Attribute) -> Option<Datum>) -> Option<bool> {
    let mut all = Some(!enough);
    for part in parts {
        match part.holds(value) {
            Some(holds) if holds == enough => return Some(enough),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

impl Comparison {
    fn holds(self, own: &Datum, with: &Datum) -> bool {
        match self {
            Self::Equal => own == with,
            Self::NotEqual => own != with,
            Self::Less => own < with,
            Self::LessOrEqual => own <= with,
            Self::Greater => own > with,
            Self::GreaterOrEqual => own >= with,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_there_decides_nothing() {
        let value = |attribute| match attribute {
            Attribute::ResponseCode => Some(Datum::Number(404)),
            Attribute::RequestPath => Some(Datum::Text("/a?b".to_owned())),
            Attribute::ConnectionMtls => Some(Datum::Flag(true)),
            _ => None,
        };
        let code = |how, with| LogFilter::Compare(Attribute::ResponseCode, how, Datum::Number(with));
        let missing = || LogFilter::Is(Attribute::RequestMethod);
        let there = || code(Comparison::GreaterOrEqual, 400);
        for (filter, expect) in [
            (there(), true),
            (code(Comparison::Less, 404), false),
            (LogFilter::Not(Box::new(there())), false),
            (missing(), false),
            (LogFilter::Not(Box::new(missing())), false),
            (LogFilter::Any(vec![missing(), there()]), true),
            (LogFilter::All(vec![missing(), there()]), false),
            (
                LogFilter::Not(Box::new(LogFilter::All(vec![
                    missing(),
                    code(Comparison::Equal, 1),
                ]))),
                true,
            ),
            (LogFilter::Has(Attribute::RequestMethod), false),
            (LogFilter::Is(Attribute::ConnectionMtls), true),
            (
                LogFilter::Compare(Attribute::RequestPath, Comparison::Equal, Datum::Number(1)),
                false,
            ),
            (
                LogFilter::In(
                    Attribute::ResponseCode,
                    vec![Datum::Number(1), Datum::Number(404)],
                ),
                true,
            ),
            (
                LogFilter::Text(Attribute::RequestPath, TextTest::StartsWith, "/a".to_owned()),
                true,
            ),
            (
                LogFilter::Text(Attribute::RequestPath, TextTest::EndsWith, "/a".to_owned()),
                false,
            ),
            (
                LogFilter::Text(Attribute::RequestPath, TextTest::Contains, "?".to_owned()),
                true,
            ),
            (LogFilter::Constant(true), true),
        ] {
            assert_eq!(filter.admits(&value), expect, "{filter:?}");
        }
    }
}
