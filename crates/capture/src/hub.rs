//! The hub: a bridge that joins the nodes and stands for the world outside.

use std::net::IpAddr;

use crate::netlink::route::{Route, Routes};
use crate::{Error, Netns, plan, sysctl};

/// Makes the bridge with its addresses in `hub`, a link to each of `nodes` (in order; the other end
/// is called `up0` there, still down) and routes to their pods.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn install(hub: &Netns, nodes: &[Netns]) -> Result<(), Error> {
    if nodes.len() > usize::from(plan::MAX_NODES) {
        return Err(Error::Invalid(format!(
            "{} nodes are more than {}",
            nodes.len(),
            plan::MAX_NODES
        )));
    }
    hub.run(|| build(nodes))?
}

fn build(nodes: &[Netns]) -> Result<(), Error> {
    sysctl::forwarding()?;
    let mut routes = Routes::open()?;
    let lo = routes.link("lo")?;
    routes.set_up(lo, true)?;
    routes.add_bridge(plan::FABRIC)?;
    let bridge = routes.link(plan::FABRIC)?;
    sysctl::quiet(plan::FABRIC)?;
    routes.set_up(bridge, true)?;
    routes.add_address(bridge, IpAddr::V4(plan::HUB_V4), plan::FABRIC_PREFIX.0)?;
    routes.add_address(bridge, IpAddr::V6(plan::HUB_V6), plan::FABRIC_PREFIX.1)?;
    for (index, node) in (0_u8..).zip(nodes) {
        let name = format!("node-{index}");
        routes.add_veth((&name, None), (plan::UPLINK, None), node)?;
        let link = routes.link(&name)?;
        sysctl::unaddressed(&name)?;
        routes.set_master(link, bridge)?;
        routes.set_up(link, true)?;
        let (v4, v4_prefix) = plan::pods_v4(index);
        let (v6, v6_prefix) = plan::pods_v6(index);
        for (to, prefix, via) in [
            (IpAddr::V4(v4), v4_prefix, IpAddr::V4(plan::node_v4(index))),
            (IpAddr::V6(v6), v6_prefix, IpAddr::V6(plan::node_v6(index))),
        ] {
            routes.add_route(&Route {
                link: Some(bridge),
                gateway: Some(via),
                ..Route::to(to, prefix)
            })?;
        }
    }
    Ok(())
}
