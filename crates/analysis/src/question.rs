//! What is asked: one connection or request, as `meshward eval` reads it from a line of JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A text that is borrowed from the line that it stands on, where nothing in it is escaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<'q>(Cow<'q, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl<'q> From<&'q str> for Text<'q> {
    fn from(text: &'q str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de: 'q, 'q> Deserialize<'de> for Text<'q> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Taken;
        impl<'de> Visitor<'de> for Taken {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        from.deserialize_str(Taken)
    }
}

/// Header fields in their order, each with its values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers<'q>(pub Vec<(Text<'q>, Vec<Text<'q>>)>);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(name, values)| (name, values)))
    }
}

impl<'de: 'q, 'q> Deserialize<'de> for Headers<'q> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Taken;
        impl<'de> Visitor<'de> for Taken {
            type Value = Headers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header fields, each with a list of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Headers(fields))
            }
        }
        from.deserialize_map(Taken)
    }
}

/// One connection or request. All but `to` may be left out.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question<'q> {
    /// Comes back with the answer.
    #[serde(default)]
    pub id: Option<Value>,
    /// The caller's identity; `null` for a caller outside the mesh.
    #[serde(default, borrow)]
    pub from: Option<Caller<'q>>,
    /// Whether the caller sends plaintext although it has an identity.
    #[serde(default)]
    pub plaintext: bool,
    /// `source.ip`; an address that nothing is known of where it is left out.
    #[serde(default, rename = "sourceIP")]
    pub source_ip: Option<IpAddr>,
    /// `remote.ip`; where it is left out, what a proxy would take: the source's, and under Istio's profile the
    /// right-most entry of X-Forwarded-For (R10).
    #[serde(default, rename = "remoteIP")]
    pub remote_ip: Option<IpAddr>,
    /// Who is called.
    #[serde(borrow)]
    pub to: Target<'q>,
    /// What the caller speaks; left out, what the port is declared as, or HTTP where something is said that only a
    /// request has.
    #[serde(default)]
    pub protocol: Option<Speaks>,
    /// The method, `GET` by default.
    #[serde(default, borrow)]
    pub method: Option<Text<'q>>,
    /// Path and query, `/` by default.
    #[serde(default, borrow)]
    pub path: Option<Text<'q>>,
    /// Host or `:authority`; the callee's name by default.
    #[serde(default, borrow)]
    pub host: Option<Text<'q>>,
    /// Other header fields.
    #[serde(default, borrow)]
    pub headers: Headers<'q>,
    /// Claims of a token that was verified.
    #[serde(default)]
    pub claims: Option<Value>,
    /// A token as it is sent.
    #[serde(default, borrow)]
    pub token: Option<Text<'q>>,
    /// The SNI of the handshake; what a mesh client would send by default.
    #[serde(default, borrow)]
    pub sni: Option<Text<'q>>,
    /// Seconds since 1970 at which a token is judged.
    #[serde(default)]
    pub time: Option<u64>,
}

/// An identity.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Caller<'q> {
    /// The namespace.
    #[serde(borrow)]
    pub namespace: Text<'q>,
    /// The service account.
    #[serde(borrow)]
    pub service_account: Text<'q>,
    /// The trust domain; the mesh's by default.
    #[serde(default, borrow)]
    pub trust_domain: Option<Text<'q>>,
}

/// Labels by key.
pub type Labels<'q> = BTreeMap<Text<'q>, Text<'q>>;

/// A workload: by its name, by a Service that it answers for, or by its labels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target<'q> {
    /// The namespace.
    #[serde(borrow)]
    pub namespace: Text<'q>,
    /// A pod or the name of what owns it.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Text<'q>>,
    /// A Service; `port` is then the Service's.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub service: Option<Text<'q>>,
    /// Labels of a workload that need not exist.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels<'q>>,
    /// The workload port, or with `service` the Service port; 0, and where it is left out, the only one that there is.
    #[serde(default)]
    pub port: u16,
    /// The address of the workload that is dialled (`destination.ip`); its own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
}

/// What a caller speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// HTTP of any version, gRPC included.
    Http,
    /// Bytes.
    Tcp,
}

/// What an external authorizer is taken to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Custom {
    /// It admits everything.
    Allow,
    /// It refuses everything.
    Deny,
    /// It is not known: a decision that hangs on it is unknown.
    Unknown,
}

/// What external authorizers are taken to say, by name; one that is not there is unknown.
pub type Providers = BTreeMap<String, Custom>;

impl Question<'_> {
    /// Whether something is said that only a request has.
    pub(crate) fn looks_like_http(&self) -> bool {
        self.method.is_some()
            || self.path.is_some()
            || self.host.is_some()
            || self.token.is_some()
            || self.claims.is_some()
            || !self.headers.0.is_empty()
    }
}
