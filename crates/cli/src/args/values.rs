//! What a word's value may be: formats, profiles, durations, names.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use model::Profile;

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

/// The one machine format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Json {
    Json,
}

/// Machine formats of findings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Findings {
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// A table, or more of it, or JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Wide {
    Json,
    Wide,
}

pub(super) fn mesh_name(text: &str) -> Result<String, String> {
    match admin::RunDir::of(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn profile(text: &str) -> Result<Profile, String> {
    text.parse()
}

pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    api::duration_ms(text)
        .ok_or_else(|| format!("`{text}` is no duration: write for example `60s` or `1m30s`"))
}

pub(crate) fn wait(text: &str) -> Result<u64, String> {
    match text {
        "false" => Ok(0),
        "true" => milliseconds("60s"),
        other => milliseconds(other),
    }
}

pub(super) fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("write an image and a command: `--image 'nginx=python3 -m http.server 80'`".to_owned()),
    }
}

/// A DNS server: an address, port 53 where none is said.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    alone.or_else(|_| text.parse()).map_err(|_| {
        format!("`{text}` is no address: write for example `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:5353`")
    })
}
