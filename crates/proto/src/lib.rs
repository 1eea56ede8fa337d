//! Wire messages, generated from `proto/` by `cargo xtask proto` and committed, so that building needs no compiler for them.

/// The envelope of every xDS resource.
pub use prost_types::Any;
pub use prost_types::Struct;
/// A point in time on the wire.
pub use prost_types::Timestamp;

/// `envoy.*`
pub mod envoy {
    /// `envoy.config`
    pub mod config {
        /// `envoy.config.core`
        pub mod core {
            /// `envoy.config.core.v3`
            pub mod v3 {
                include!("gen/envoy.config.core.v3.rs");
            }
        }
    }
    /// `envoy.service`
    pub mod service {
        /// `envoy.service.auth`
        pub mod auth {
            /// `envoy.service.auth.v3`
            pub mod v3 {
                include!("gen/envoy.service.auth.v3.rs");
            }
        }
        /// `envoy.service.discovery`
        pub mod discovery {
            /// `envoy.service.discovery.v3`
            pub mod v3 {
                include!("gen/envoy.service.discovery.v3.rs");
            }
        }
    }
    /// `envoy.type`
    pub mod r#type {
        /// `envoy.type.v3`
        pub mod v3 {
            include!("gen/envoy.r#type.v3.rs");
        }
    }
}

/// `google.rpc`
pub mod google {
    /// `google.rpc`
    pub mod rpc {
        include!("gen/google.rpc.rs");
    }
}

/// `istio.v1.auth`
pub mod istio {
    /// `istio.v1`
    pub mod v1 {
        /// `istio.v1.auth`
        pub mod auth {
            include!("gen/istio.v1.auth.rs");
        }
    }
}
