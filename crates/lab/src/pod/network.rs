//! A pod's way into the network, and out of it: what a container network plugin does.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use capture::{Netns, plan};
use identity::token::Claims;
use model::WorkloadUid;
use proxy::Registration;

use super::{Order, Pod, resolve};
use crate::process::with_source;
use crate::site::{Site, write_private};

/// Files of the pod's own, and where its containers see them.
pub(super) fn files(site: &Site, pod: &Pod) -> Vec<(PathBuf, PathBuf)> {
    let Some(node) = site.node(pod.node) else {
        return Vec::new();
    };
    let dir = site.pod_dir(&node.name, pod.uid());
    let mut files = vec![
        (dir.join("hosts"), PathBuf::from("/etc/hosts")),
        (dir.join("hostname"), PathBuf::from("/etc/hostname")),
        (site.exe.clone(), PathBuf::from(resolve::PROGRAM)),
    ];
    if !pod.spec.host_network {
        files.push((dir.join("resolv.conf"), PathBuf::from("/etc/resolv.conf")));
    }
    files
}

/// Makes the pod's namespace and links it to its node. Who its mark stands for is written before the link comes up.
///
/// # Errors
/// One sentence.
pub(super) async fn attach(site: Arc<Site>, pod: Arc<Pod>) -> Result<Arc<Netns>, String> {
    let attached = tokio::task::spawn_blocking(move || blocking_attach(&site, &pod));
    attached.await.map_err(|error| error.to_string())?
}

fn blocking_attach(site: &Site, pod: &Pod) -> Result<Arc<Netns>, String> {
    let node = site.node(pod.node).ok_or("its node is not there")?;
    write_files(site, pod, &node.name)?;
    if pod.spec.host_network {
        return Ok(Arc::clone(&node.netns));
    }
    let fail = |error: capture::Error| with_source(&error);
    let netns = Netns::create(&pod.netns).map_err(fail)?;
    // A pod that brings a proxy of its own has a token, as every pod has that Istio's injector has seen.
    let outsider = compiler::outsider(&pod.meta.labels, &pod.meta.annotations).is_some();
    if pod.identity.is_some() || outsider {
        site.tokens.for_pod(Claims {
            namespace: pod.meta.namespace.clone(),
            service_account: pod.spec.service_account().to_owned(),
            pod_name: pod.meta.name.clone(),
            pod_uid: pod.uid().to_owned(),
            node: node.name.clone(),
        })?;
    }
    let registration = Registration {
        mark: pod.port.mark,
        uid: WorkloadUid::new(pod.uid()),
        namespace: pod.meta.namespace.clone(),
        pod: pod.meta.name.clone(),
        identity: pod.identity.clone(),
        addresses: pod.ips.clone(),
        token: site.run.token(pod.uid()),
    };
    let text = serde_json::to_vec(&registration).map_err(|error| error.to_string())?;
    let path = registration_path(site, &node.name, pod);
    write_private(&path, &text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    node.netns
        .run(|| capture::node::attach(&node.setup, &netns, &pod.port))
        .and_then(|inner| inner)
        .map_err(fail)?;
    // As container runtimes have it: a pod's ports are its own, so its programs need no right to take low ones.
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"))
        .map_err(fail)?
        .map_err(|error| format!("cannot open low ports to the pod's programs: {error}"))?;
    Ok(Arc::new(netns))
}

fn registration_path(site: &Site, node: &str, pod: &Pod) -> PathBuf {
    site.run.workloads(node).join(format!("{}.json", pod.port.mark))
}

/// Takes back all that [`attach`] did, as far as it came. What cannot be taken back is told in the log.
pub(super) async fn detach(site: &Arc<Site>, pod: &Arc<Pod>) {
    let (site, pod) = (Arc::clone(site), Arc::clone(pod));
    let _ = tokio::task::spawn_blocking(move || {
        let Some(node) = site.node(pod.node) else {
            return;
        };
        let tell = |error: capture::Error| {
            tracing::warn!(
                pod = pod.shown(),
                error = with_source(&error),
                "something of a pod is left"
            );
        };
        if !pod.spec.host_network {
            // When everything ends, links, rules and routes go with the node's namespace, and faster.
            let node_ends = matches!(*pod.order.borrow(), Order::StopSoon | Order::Kill);
            if !node_ends {
                let detached = node.netns.run(|| capture::node::detach(&pod.port));
                let _ = detached.and_then(|inner| inner).map_err(tell);
            }
            let _ = Netns::delete(&pod.netns).map_err(tell);
            let _ = std::fs::remove_file(registration_path(&site, &node.name, &pod));
            site.tokens.remove(pod.uid());
        }
        let _ = std::fs::remove_dir_all(site.pod_dir(&node.name, pod.uid()));
    })
    .await;
}

fn write_files(site: &Site, pod: &Pod, node: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let dir = site.pod_dir(node, pod.uid());
    let hostname = resolve::hostname(pod);
    for (name, text) in [
        ("resolv.conf", resolv_conf(&pod.meta.namespace)),
        ("hosts", hosts(pod, hostname)),
        ("hostname", format!("{hostname}\n")),
    ] {
        let path = dir.join(name);
        let open = |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644));
        write_private(&path, text.as_bytes())
            .and_then(|()| open(&path))
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(())
}

fn resolv_conf(namespace: &str) -> String {
    format!(
        "nameserver {}\nnameserver {}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
        plan::CLUSTER_DNS_V4,
        plan::CLUSTER_DNS_V6
    )
}

fn hosts(pod: &Pod, hostname: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let names = if pod.spec.subdomain.is_empty() {
        hostname.to_owned()
    } else {
        let (subdomain, namespace) = (&pod.spec.subdomain, &pod.meta.namespace);
        format!("{hostname}.{subdomain}.{namespace}.svc.cluster.local\t{hostname}")
    };
    for ip in &pod.ips {
        let ip: &IpAddr = ip;
        text.push_str(&format!("{ip}\t{names}\n"));
    }
    text
}
