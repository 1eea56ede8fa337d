//! A whole control plane in one process, with files, a socket, and proxies that speak delta xDS over mutual TLS.

mod bed;
mod bench;
mod files;
mod gate;
mod keys;
mod verbs;
