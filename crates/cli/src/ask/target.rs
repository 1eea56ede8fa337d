//! Who is called, as a person types it.

use analysis::{Labels, Target};

/// Words for kinds whose name is a workload's.
const WORKLOADS: [&str; 11] = [
    "deploy",
    "deployment",
    "deployments",
    "sts",
    "statefulset",
    "ds",
    "daemonset",
    "job",
    "workload",
    "po",
    "pod",
];
const SERVICES: [&str; 3] = ["svc", "service", "services"];

/// `NS/SVC[:PORT]`, `NS/KIND/NAME[:PORT]`, `NS/LABEL=VALUE,...[:PORT]`.
///
/// # Errors
/// It is none of them: what to write.
pub(crate) fn parse(text: &str) -> Result<Target<'static>, String> {
    let (what, port) = match text.rsplit_once(':') {
        Some((what, port)) => {
            let port = port.parse().ok().filter(|port| *port > 0);
            (
                what,
                port.ok_or_else(|| format!("`{text}`: after `:` stands a port"))?,
            )
        }
        None => (text, 0),
    };
    match what.split_once('/') {
        Some((namespace, what)) if !namespace.is_empty() && !what.is_empty() => {
            within(namespace, what, port, false)
        }
        _ => Err(
            "write NAMESPACE/SERVICE:PORT, NAMESPACE/deploy/NAME:PORT or NAMESPACE/LABEL=VALUE:PORT"
                .to_owned(),
        ),
    }
}

/// `NAME`, `KIND/NAME` or `LABEL=VALUE,...` of a namespace. `workload` says whether a bare name is a workload's.
///
/// # Errors
/// As [`parse`].
pub(crate) fn within(
    namespace: &str,
    what: &str,
    port: u16,
    workload: bool,
) -> Result<Target<'static>, String> {
    let mut target = Target {
        namespace: namespace.to_owned().into(),
        port,
        ..Target::default()
    };
    if what.contains('=') {
        target.labels = Some(labels(what)?);
        return Ok(target);
    }
    match what.split_once('/') {
        None if workload => target.workload = Some(what.to_owned().into()),
        None => target.service = Some(what.to_owned().into()),
        Some((kind, name)) if WORKLOADS.contains(&kind) && !name.is_empty() => {
            target.workload = Some(name.to_owned().into());
        }
        Some((kind, name)) if SERVICES.contains(&kind) && !name.is_empty() => {
            target.service = Some(name.to_owned().into());
        }
        Some((kind, _)) => {
            return Err(format!(
                "`{kind}` is no kind of workload: write deploy, sts, ds, job, pod or svc"
            ));
        }
    }
    Ok(target)
}

fn labels(text: &str) -> Result<Labels<'static>, String> {
    let pairs = text.split(',').map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned().into(), value.to_owned().into())),
        _ => Err(format!("`{pair}` is no LABEL=VALUE")),
    });
    pairs.collect()
}

/// As [`parse`] reads it.
pub(crate) fn show(target: &Target<'_>) -> String {
    let port = match target.port {
        0 => String::new(),
        port => format!(":{port}"),
    };
    let what = match (&target.service, &target.workload, &target.labels) {
        (Some(service), ..) => service.to_string(),
        (_, Some(workload), _) => format!("workload {workload}"),
        (_, _, Some(labels)) => {
            let pairs: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        }
        _ => String::new(),
    };
    match &target.workload {
        Some(workload) if target.service.is_none() => format!("{}/{workload}{port}", target.namespace),
        _ => format!("{}/{what}{port}", target.namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_service_a_workload_or_labels() {
        let shown = |text: &str| {
            let target = parse(text).unwrap();
            (
                target.service.as_deref().map(str::to_owned),
                target.workload.as_deref().map(str::to_owned),
                target.labels.clone().map(|l| l.len()),
                target.port,
            )
        };
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(shown("a/web"), (own("web"), None, None, 0));
        assert_eq!(shown("a/svc/web:80"), (own("web"), None, None, 80));
        assert_eq!(shown("a/deploy/web:8080"), (None, own("web"), None, 8080));
        assert_eq!(shown("a/pod/web-0"), (None, own("web-0"), None, 0));
        assert_eq!(shown("a/app=web,version=v1:9"), (None, None, Some(2), 9));
        for wrong in [
            "web",
            "a/",
            "/web",
            "a/web:http",
            "a/web:0",
            "a/secret/x",
            "a/app=x,y:1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
