//! Capture on the kernel that is there: real namespaces, links, rules and sockets.

mod dropped;
mod passes;
mod rootless;
mod world;
