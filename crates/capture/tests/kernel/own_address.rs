//! The proxy calls in a pod's name: from the pod's own address, out of the node's namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};

use capture::{INBOUND_PORT, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Echo, PATIENCE, World};

fn ask_from(source: IpAddr, mark: u32, to: SocketAddr) -> io::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asking = async {
            let mut stream = socket::connect_from(source, mark, to).await?;
            stream.write_all(b"hello").await?;
            let mut answer = vec![0; 5];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    })
}

#[test]
fn a_connection_in_a_pods_name_comes_from_its_address_and_is_answered() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    let echoes = ["p", "q"].map(|name| (name, Echo::start(&world.pod(name).ns, 8080)));
    for v6 in [false, true] {
        let own = a.at(v6, 0).ip();
        // A mesh pod of another node: its proxy sees whose call it is.
        let to = world.pod("b").at(v6, 8080);
        let answer = world.nodes[0].run(|| ask_from(own, a.port.mark, to)).unwrap();
        assert_eq!(answer.unwrap(), b"hello");
        let seen = world.seen(1);
        assert_eq!((seen.port, seen.destination), (INBOUND_PORT, to));
        assert_eq!(seen.source.ip(), own);
        // Plain pods, of this node and of another.
        for (name, echo) in &echoes {
            let to = world.pod(name).at(v6, 8080);
            let answer = world.nodes[0].run(|| ask_from(own, a.port.mark, to)).unwrap();
            assert_eq!(answer.unwrap(), b"hello", "{name}");
            assert_eq!(echo.callers.recv_timeout(PATIENCE).unwrap().ip(), own);
        }
    }
    world.nothing_seen();
}
