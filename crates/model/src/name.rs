//! Names of objects.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! namespaced {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            namespace: Arc<str>,
            name: Arc<str>,
        }

        impl $name {
            /// Builds the name from its two parts.
            pub fn new(namespace: &str, name: &str) -> Self {
                Self { namespace: Arc::from(namespace), name: Arc::from(name) }
            }

            /// The Kubernetes namespace.
            pub fn namespace(&self) -> &str {
                &self.namespace
            }

            /// The name within its namespace.
            pub fn name(&self) -> &str {
                &self.name
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text.split_once('/') {
                    Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                        Ok(Self::new(namespace, name))
                    }
                    _ => Err(format!("`{text}` is not NAMESPACE/NAME")),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

namespaced! {
    /// A Kubernetes Service: `NAMESPACE/NAME`.
    ServiceName
}

namespaced! {
    /// A workload as people know it, the thing that owns pods (a Deployment, say, or a bare Pod): `NAMESPACE/NAME`.
    WorkloadId
}

/// One pod for the length of its life: Kubernetes' `metadata.uid`, or what the embedded default makes
/// in its place. Opaque; never reused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadUid(Arc<str>);

impl WorkloadUid {
    /// Wraps the text.
    pub fn new(uid: &str) -> Self {
        Self(Arc::from(uid))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
