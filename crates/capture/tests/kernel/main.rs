//! Capture on the kernel that is there: real namespaces, links, rules and sockets.

mod dropped;
mod own_address;
mod passes;
mod rootless;
mod world;
