//! The way to the parts of a running mesh.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

use admin::verbs::Info;
use admin::{Answer, CallError, Failure, RunDir};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::out::Stop;

/// A mesh of this user, running or not.
#[derive(Debug)]
pub(crate) struct Mesh {
    name: String,
    dir: RunDir,
}

impl Mesh {
    pub(crate) fn named(name: &str) -> Result<Self, Stop> {
        let dir = RunDir::of(name).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            dir,
        })
    }

    #[cfg(test)]
    pub(crate) fn at(name: &str, dir: RunDir) -> Self {
        Self {
            name: name.to_owned(),
            dir,
        }
    }

    /// A command on this mesh, as a message tells people to type it.
    pub(crate) fn command(&self, words: &str) -> String {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let name = match self.name.as_str() {
            "default" => String::new(),
            name => format!("--name {name}"),
        };
        let said = ["meshward", verb, &name, rest];
        let said: Vec<&str> = said.into_iter().filter(|word| !word.is_empty()).collect();
        said.join(" ")
    }

    /// Asks whoever keeps the pods.
    pub(crate) async fn up(
        &self,
        verb: &str,
        body: &impl Serialize,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Stop> {
        self.call(&self.dir.up_socket(), "the pods", verb, body, fds)
            .await
    }

    /// Asks the control plane.
    pub(crate) async fn control(&self, verb: &str, body: &impl Serialize) -> Result<Answer, Stop> {
        let path = self.dir.control_socket();
        self.call(&path, "the control plane", verb, body, Vec::new())
            .await
    }

    /// Asks the certificate authority.
    pub(crate) async fn ca(&self, verb: &str) -> Result<Answer, Stop> {
        let path = self.dir.ca_socket();
        self.call(&path, "the certificate authority", verb, &(), Vec::new())
            .await
    }

    /// Asks a node's proxy.
    pub(crate) async fn proxy(&self, node: &str, verb: &str, body: &impl Serialize) -> Result<Answer, Stop> {
        let path = self.dir.proxy_socket(node);
        let part = format!("the proxy of node {node}");
        self.call(&path, &part, verb, body, Vec::new()).await
    }

    /// What runs.
    pub(crate) async fn info(&self) -> Result<Info, Stop> {
        last(self.up("info", &(), Vec::new()).await?).await
    }

    /// Where the parts and the pods write what they print.
    pub(crate) fn logs(&self) -> std::path::PathBuf {
        self.dir.logs()
    }

    /// The nodes that are meant: the one that is named, or all.
    pub(crate) async fn nodes(&self, named: Option<&str>) -> Result<Vec<String>, Stop> {
        let all = self.info().await?.nodes;
        match named {
            None => Ok(all),
            Some(node) if all.iter().any(|known| known == node) => Ok(vec![node.to_owned()]),
            Some(node) => {
                let message = format!("there is no node `{node}`: the nodes are {}", all.join(", "));
                Err(Failure::no(message).into())
            }
        }
    }

    async fn call(
        &self,
        path: &Path,
        part: &str,
        verb: &str,
        body: &impl Serialize,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Stop> {
        let body = serde_json::to_value(body).map_err(|error| Failure::undecided(error.to_string()))?;
        let error = match admin::call(path, verb, body, fds).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let name = &self.name;
        let message = match error {
            CallError::NotThere { .. } if !self.dir.root().exists() => {
                let up = self.command("up DIR");
                format!("no mesh named `{name}` runs here: start one with `{up}`")
            }
            CallError::NotThere { .. } if path == self.dir.up_socket() => {
                let (down, up) = (self.command("down"), self.command("up DIR"));
                format!(
                    "mesh `{name}` does not answer; it is starting, or `{down}` clears what is left and `{up}` starts it anew"
                )
            }
            CallError::NotThere { .. } => {
                let info = self.command("info");
                format!("{part} of mesh `{name}` does not answer: see `{info}`")
            }
            CallError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                format!("mesh `{name}` belongs to another user")
            }
            CallError::Io { source, .. } => format!("cannot speak with {part} of mesh `{name}`: {source}"),
        };
        Err(Failure::undecided(message).into())
    }
}

/// A value of the mesh's as a type.
///
/// # Errors
/// It is not one: the other side is of another version.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Stop> {
    serde_json::from_value(value).map_err(|error| {
        let message =
            format!("the mesh's answer is not understood ({error}): is it of this program's version?");
        Failure::undecided(message).into()
    })
}

/// The last line of an answer as a type.
///
/// # Errors
/// What the other side says, or that it is not understood.
pub(crate) async fn last<T: DeserializeOwned>(answer: Answer) -> Result<T, Stop> {
    decode(answer.finish().await?)
}

/// The items of an answer as a type.
///
/// # Errors
/// As [`last`].
pub(crate) async fn items<T: DeserializeOwned>(mut answer: Answer) -> Result<Vec<T>, Stop> {
    let mut items = Vec::new();
    while let Some(item) = answer.item().await {
        items.push(decode(item)?);
    }
    answer.finish().await?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_messages_name_reach_the_mesh() {
        let said = |name: &str, words: &str| Mesh::named(name).unwrap().command(words);
        assert_eq!(said("default", "up DIR"), "meshward up DIR");
        assert_eq!(said("two", "up DIR"), "meshward up --name two DIR");
        assert_eq!(said("two", "down"), "meshward down --name two");
    }
}
