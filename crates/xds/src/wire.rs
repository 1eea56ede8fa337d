//! A resource as it travels.

use std::sync::{Arc, OnceLock};

use proto::Any;
use proto::envoy::service::discovery::v3 as discovery;
use sha2::{Digest, Sha256};
use snapshot::{Resource, ResourceName};

/// The one type of resource.
pub const TYPE_URL: &str = "type.googleapis.com/meshward.dev.v1alpha1.Resource";

/// The largest message either end takes or sends, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How many resources one proxy may hold.
pub const MAX_RESOURCES: usize = 200_000;

/// How many questions one proxy may have asked and not taken back.
pub const MAX_QUESTIONS: usize = 16_384;

/// How many bytes of the hash make a version.
const VERSION_BYTES: usize = 16;

/// A resource and, once somebody needs them, its bytes and their hash: made once for all proxies.
#[derive(Debug)]
pub(crate) struct Entry {
    resource: Arc<Resource>,
    encoded: OnceLock<Option<Encoded>>,
}

/// The bytes of a resource and their hash.
#[derive(Debug)]
struct Encoded {
    version: Arc<str>,
    body: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(resource: Arc<Resource>) -> Self {
        Self {
            resource,
            encoded: OnceLock::new(),
        }
    }

    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The hash of its bytes; `None` where it cannot be written down.
    pub(crate) fn version(&self) -> Option<&Arc<str>> {
        self.encoded().map(|encoded| &encoded.version)
    }

    pub(crate) fn to_wire(&self, name: &ResourceName) -> Option<discovery::Resource> {
        let encoded = self.encoded()?;
        Some(discovery::Resource {
            name: name.as_str().to_owned(),
            aliases: Vec::new(),
            version: encoded.version.to_string(),
            resource: Some(Any {
                type_url: TYPE_URL.to_owned(),
                value: encoded.body.clone(),
            }),
        })
    }

    fn encoded(&self) -> Option<&Encoded> {
        let encode = || {
            let body = serde_json::to_vec(&self.resource).ok()?;
            let version = Arc::from(version(&body));
            Some(Encoded { version, body })
        };
        self.encoded.get_or_init(encode).as_ref()
    }
}

pub(crate) fn version(body: &[u8]) -> String {
    use std::fmt::Write;
    let hash = Sha256::digest(body);
    hash.iter()
        .take(VERSION_BYTES)
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads a resource, strictly: known type, known fields, and the name that its content has.
pub(crate) fn decode(wire: &discovery::Resource) -> Result<Resource, String> {
    let name = &wire.name;
    let body = wire
        .resource
        .as_ref()
        .ok_or_else(|| format!("the resource `{name}` has no content"))?;
    if body.type_url != TYPE_URL {
        return Err(format!("the resource `{name}` has the type `{}`", body.type_url));
    }
    let resource: Resource = serde_json::from_slice(&body.value)
        .map_err(|e| format!("the resource `{name}` is not understood: {e}"))?;
    if resource.name().as_str() != name {
        return Err(format!("the resource `{name}` holds `{}`", resource.name()));
    }
    if version(&body.value) != wire.version {
        return Err(format!("the resource `{name}` is not what its version says"));
    }
    Ok(resource)
}
