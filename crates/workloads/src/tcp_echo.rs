//! The TCP echo server of Istio's samples: each line comes back with a word in front.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{Exit, serve};

/// The longest line that is echoed.
const LINE: u64 = 64 * 1024;

/// `PORT[,PORT...] PREFIX`.
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let (Some(ports), Some(prefix)) = (args.first(), args.get(1)) else {
        return Err(Exit::usage("tcp-echo wants PORT[,PORT...] PREFIX"));
    };
    let mut listeners = Vec::new();
    for port in ports.split(',') {
        let port = port
            .trim()
            .parse()
            .map_err(|_| Exit::usage(format!("`{port}` is not a port")))?;
        let listener = serve::listen(port).await?;
        println!("listening on port {port}");
        let prefix = prefix.clone();
        listeners.push(serve::accept_loop(listener, move |stream, _| {
            echo(stream, prefix.clone())
        }));
    }
    futures_util::future::try_join_all(listeners).await?;
    Ok(0)
}

async fn echo(stream: tokio::net::TcpStream, prefix: String) {
    use tokio::io::AsyncReadExt as _;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        match (&mut read).take(LINE).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        let mut out = prefix.clone().into_bytes();
        out.push(b' ');
        out.extend_from_slice(&line);
        if write.write_all(&out).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
}
