//! How a backend reads paths, where that is not how the mesh writes them (semantics 3.6 OURS, P6, P8, P10).

mod readings;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use readings::readings;

/// How often a backend may be said to decode a path.
pub const MAX_DECODE: u8 = 3;

/// What a backend makes of a path before it acts on it.
///
/// Decisions look at every reading that follows: a DENY refuses on each, an ALLOW must admit all. The backend still
/// receives what the mesh's mode says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialect {
    /// `case-insensitive`: ASCII letters are compared without regard to case.
    pub case_insensitive: bool,
    /// `strip-params`: `;...` is dropped from each segment.
    pub strip_params: bool,
    /// `decode=N`: percent escapes are decoded so many times more, 0 to [`MAX_DECODE`].
    pub decode: u8,
    /// `collapse`: runs of slashes become one, dot segments are resolved.
    pub collapse: bool,
}

/// Why an annotation is no dialect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DialectError {
    /// Not one of the words.
    #[error(
        "`{0}` is not one of `case-insensitive`, `strip-params`, `decode=1` to `decode={MAX_DECODE}`, `collapse`, `plain`"
    )]
    Word(String),
    /// What stands before `=` is no port.
    #[error("`{0}` is neither a port from 1 to 65535 nor `*`")]
    Port(String),
    /// A port, or the rest, is spoken of twice.
    #[error("`{0}` is given twice")]
    Twice(String),
}

impl Dialect {
    /// A backend that reads paths as the mesh writes them.
    pub const PLAIN: Self = Self {
        case_insensitive: false,
        strip_params: false,
        decode: 0,
        collapse: false,
    };

    /// Everything that backends are known to do: for one of which nothing certain is known.
    pub const ALL: Self = Self {
        case_insensitive: true,
        strip_params: true,
        decode: MAX_DECODE,
        collapse: true,
    };

    /// Whether paths are read as they are.
    pub fn is_plain(self) -> bool {
        self == Self::PLAIN
    }

    /// What either does.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            case_insensitive: self.case_insensitive | other.case_insensitive,
            strip_params: self.strip_params | other.strip_params,
            decode: self.decode.max(other.decode),
            collapse: self.collapse | other.collapse,
        }
    }
}

/// Words with commas between them; `plain` says that there is none.
impl FromStr for Dialect {
    type Err = DialectError;

    fn from_str(text: &str) -> Result<Self, DialectError> {
        let mut dialect = Self::PLAIN;
        for word in text.split(',').map(str::trim) {
            match word {
                "plain" => {}
                "case-insensitive" => dialect.case_insensitive = true,
                "strip-params" => dialect.strip_params = true,
                "collapse" => dialect.collapse = true,
                _ => {
                    let times = word.strip_prefix("decode=").and_then(|n| n.parse().ok());
                    let times = times.filter(|n| (1..=MAX_DECODE).contains(n) && !word.contains('+'));
                    dialect.decode = times.ok_or_else(|| DialectError::Word(word.to_owned()))?;
                }
            }
        }
        Ok(dialect)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.case_insensitive {
            words.push("case-insensitive".to_owned());
        }
        if self.strip_params {
            words.push("strip-params".to_owned());
        }
        if self.decode > 0 {
            words.push(format!("decode={}", self.decode));
        }
        if self.collapse {
            words.push("collapse".to_owned());
        }
        if words.is_empty() {
            words.push("plain".to_owned());
        }
        f.write_str(&words.join(","))
    }
}

/// The dialects of a workload's ports: the value of the annotation `meshward.dev/path-dialect`.
///
/// `case-insensitive,decode=2` speaks of all ports; `8080=strip-params; *=collapse` of one, and of all others.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialects {
    /// Of ports that are not named.
    pub others: Dialect,
    /// Of workload ports.
    pub ports: BTreeMap<u16, Dialect>,
}

impl Dialects {
    /// Every port, in every way.
    pub fn all() -> Self {
        Self {
            others: Dialect::ALL,
            ports: BTreeMap::new(),
        }
    }

    /// Whether every port is plain.
    pub fn is_plain(&self) -> bool {
        self.each().all(|dialect| dialect.is_plain())
    }

    /// Of a workload port.
    pub fn of(&self, port: u16) -> Dialect {
        self.ports.get(&port).copied().unwrap_or(self.others)
    }

    /// All dialects that occur.
    pub fn each(&self) -> impl Iterator<Item = Dialect> {
        std::iter::once(self.others).chain(self.ports.values().copied())
    }

    /// What either says, port by port.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let ports = self.ports.keys().chain(other.ports.keys());
        Self {
            others: self.others.union(other.others),
            ports: ports
                .map(|port| (*port, self.of(*port).union(other.of(*port))))
                .collect(),
        }
    }
}

impl FromStr for Dialects {
    type Err = DialectError;

    fn from_str(text: &str) -> Result<Self, DialectError> {
        let mut others = None;
        let mut ports = BTreeMap::new();
        for part in text.split(';').map(str::trim) {
            // `decode=2` is no port: words begin with a letter.
            let (name, words) = match part.split_once('=') {
                Some((name, words)) if !name.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    (name.trim(), words)
                }
                _ => ("*", part),
            };
            let dialect = words.parse()?;
            let twice = if name == "*" {
                others.replace(dialect).is_some()
            } else {
                let number = || DialectError::Port(name.to_owned());
                let port = name.parse().map_err(|_| number())?;
                if port == 0 || name.starts_with('+') {
                    return Err(number());
                }
                ports.insert(port, dialect).is_some()
            };
            if twice {
                return Err(DialectError::Twice(name.to_owned()));
            }
        }
        Ok(Self {
            others: others.unwrap_or_default(),
            ports,
        })
    }
}

#[cfg(test)]
mod tests;
