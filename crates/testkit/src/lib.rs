//! For tests: conformance data, running meshes, counting.

#![warn(missing_docs)]
