//! The sets of conformance data that are played on a running mesh.

mod observed;
