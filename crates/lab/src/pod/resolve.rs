//! What a pod's containers come to on this machine: programs, environments, rights. All or nothing, before any starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::{Container, SecurityContext};
use capture::process::{Capabilities, Rights};
use serde_json::Value;

use super::Pod;
use crate::desired::Wanted;
use crate::program::environment::{self, Facts};
use crate::program::{self, Program};
use crate::site::Site;

/// Where a container sees this program.
pub(crate) const PROGRAM: &str = "/run/meshward-workload";
/// Who a container runs as that must not be root and does not say who.
const NOBODY: u32 = 65_534;

/// The containers of a pod.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) init: Vec<Launch>,
    pub(crate) main: Vec<Launch>,
    pub(crate) restart: Restart,
}

/// When a container is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// How a container is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) dir: PathBuf,
    pub(crate) rights: Rights,
    /// TCP ports that it says it listens on.
    pub(crate) ports: Vec<u16>,
    pub(crate) readiness: Option<Value>,
    /// An init container that stays.
    pub(crate) sidecar: bool,
}

/// # Errors
/// What is missing or cannot be: one sentence.
pub(crate) fn resolve(site: &Site, pod: &Pod, wanted: &Wanted) -> Result<Resolved, String> {
    let (namespace, spec) = (&pod.meta.namespace, &pod.spec);
    if !wanted.has_account(namespace, spec) {
        return Err(format!(
            "error looking up service account {namespace}/{0}: serviceaccount `{0}` not found",
            spec.service_account()
        ));
    }
    if spec.containers.is_empty() {
        return Err("it has no containers".to_owned());
    }
    let restart = match spec.restart_policy.as_deref() {
        None | Some("Always") => Restart::Always,
        Some("OnFailure") => Restart::OnFailure,
        Some("Never") => Restart::Never,
        Some(other) => {
            return Err(format!(
                "restartPolicy `{other}` is none of Always, OnFailure, Never"
            ));
        }
    };
    let all = |containers: &[Container]| {
        containers
            .iter()
            .map(|container| {
                let named = |why| format!("container `{}`: {why}", container.name);
                launch(site, pod, wanted, container).map_err(named)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Resolved {
        init: all(&spec.init_containers)?,
        main: all(&spec.containers)?,
        restart,
    })
}

/// What the pod calls itself.
pub(super) fn hostname(pod: &Pod) -> &str {
    if pod.spec.hostname.is_empty() {
        &pod.meta.name
    } else {
        &pod.spec.hostname
    }
}

fn launch(site: &Site, pod: &Pod, wanted: &Wanted, container: &Container) -> Result<Launch, String> {
    let node = site.node(pod.node).ok_or("its node is not there")?;
    let facts = Facts {
        meta: &pod.meta,
        account: pod.spec.service_account(),
        node: &node.name,
        node_ips: &node.ips(),
        ips: &pod.ips,
        hostname: hostname(pod),
    };
    let env = environment::of(container, facts, wanted)?;
    // References are expanded before the words are looked at: a port may be one.
    let mut expanded = container.clone();
    for word in expanded.command.iter_mut().chain(&mut expanded.args) {
        *word = environment::expand(word, &env);
    }
    let argv = match program::of(&expanded, &site.images)? {
        Program::BuiltIn(name, args) => {
            let mut argv = vec![PROGRAM.to_owned(), "workload".to_owned(), name.to_owned()];
            argv.extend(args);
            argv
        }
        Program::Command(argv) => argv,
    };
    let tcp = container
        .ports
        .iter()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    Ok(Launch {
        name: container.name.clone(),
        argv,
        env,
        dir: PathBuf::from(if container.working_dir.is_empty() {
            "/"
        } else {
            &container.working_dir
        }),
        rights: rights(
            site.machine.one_user,
            pod.spec.host_network,
            pod.spec.security_context.as_ref(),
            container.security_context.as_ref(),
        )?,
        ports: tcp.map(|port| port.container_port).collect(),
        readiness: container.readiness_probe.clone(),
        sidecar: container.restart_policy.as_deref() == Some("Always"),
    })
}

fn rights(
    one_user: bool,
    host_network: bool,
    pod: Option<&SecurityContext>,
    container: Option<&SecurityContext>,
) -> Result<Rights, String> {
    let uid = container
        .and_then(|c| c.run_as_user)
        .or_else(|| pod.and_then(|p| p.run_as_user));
    let gid = container
        .and_then(|c| c.run_as_group)
        .or_else(|| pod.and_then(|p| p.run_as_group));
    let not_root = container
        .and_then(|c| c.run_as_non_root)
        .or_else(|| pod.and_then(|p| p.run_as_non_root))
        == Some(true);
    let uid = match uid {
        Some(0) if not_root => return Err("runAsNonRoot forbids `runAsUser: 0`".to_owned()),
        None if not_root => NOBODY,
        other => other.unwrap_or_default(),
    };
    let asked = container.and_then(|c| c.capabilities.clone()).unwrap_or_default();
    let privileged = container.and_then(|c| c.privileged) == Some(true);
    let mut capabilities = if privileged {
        Capabilities::all()
    } else {
        Capabilities::container()
    };
    if host_network && !privileged {
        // With it a process of the node could give its packets a pod's mark. Whoever needs it asks for it.
        capabilities = Capabilities::named("NET_RAW").map_or(capabilities, |raw| capabilities.without(raw));
    }
    let set = |names: &[String]| {
        names.iter().try_fold(None::<Capabilities>, |set, name| {
            let one = if name == "ALL" {
                Capabilities::all()
            } else {
                Capabilities::named(name).ok_or_else(|| format!("there is no capability `{name}`"))?
            };
            Ok::<_, String>(Some(set.map_or(one, |set| set.with(one))))
        })
    };
    if let Some(drop) = set(&asked.drop)? {
        capabilities = capabilities.without(drop);
    }
    if let Some(add) = set(&asked.add)? {
        capabilities = capabilities.with(add);
    }
    // One user is all that such a namespace has; it is told once, at the start.
    let (uid, gid) = if one_user {
        (0, 0)
    } else {
        (uid, gid.unwrap_or_default())
    };
    Ok(Rights {
        uid,
        gid,
        capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(yaml: Value) -> SecurityContext {
        serde_json::from_value(yaml).unwrap()
    }

    #[test]
    fn users_and_capabilities_as_kubernetes_has_them() {
        let pod = context(serde_json::json!({"runAsUser": 1000, "runAsGroup": 2000}));
        let none = rights(false, false, None, None).unwrap();
        assert_eq!(
            (none.uid, none.gid, none.capabilities),
            (0, 0, Capabilities::container())
        );
        let of_pod = rights(false, false, Some(&pod), None).unwrap();
        assert_eq!((of_pod.uid, of_pod.gid), (1000, 2000));
        let own = context(serde_json::json!({
            "runAsUser": 1337, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        }));
        let own = rights(false, false, Some(&pod), Some(&own)).unwrap();
        assert_eq!((own.uid, own.gid), (1337, 2000));
        assert_eq!(own.capabilities, Capabilities::named("NET_ADMIN").unwrap());
        assert_eq!(rights(true, false, Some(&pod), None).unwrap().uid, 0);
        let raw = Capabilities::named("NET_RAW").unwrap();
        assert!(none.capabilities.contains(raw));
        let on_node = rights(false, true, None, None).unwrap();
        assert!(!on_node.capabilities.contains(raw));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let not_root = context(serde_json::json!({"runAsNonRoot": true}));
        assert_eq!(rights(false, false, None, Some(&not_root)).unwrap().uid, NOBODY);
        let root = context(serde_json::json!({"runAsNonRoot": true, "runAsUser": 0}));
        assert!(rights(false, false, None, Some(&root)).is_err());
        let unknown = context(serde_json::json!({"capabilities": {"add": ["FLY"]}}));
        assert_eq!(
            rights(false, false, None, Some(&unknown)).unwrap_err(),
            "there is no capability `FLY`"
        );
    }
}
