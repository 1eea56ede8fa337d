//! The pages of the parts that are reached over the hub's network, fetched from within it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use admin::Failure;
use admin::verbs::{Page, PageText};

use crate::site::{CA_METRICS_PORT, CONTROL_METRICS_PORT, METRICS_PORT, Site};

/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most that is read of a page, bytes.
const MAX_PAGE: u64 = 16 * 1024 * 1024;
/// The paths that may be asked for.
const PATHS: [&str; 3] = ["/metrics", "/healthz/live", "/healthz/ready"];

/// Fetches a page of a part.
///
/// # Errors
/// There is no such part or page, or it does not answer.
pub(super) async fn fetch(site: &Arc<Site>, page: Page) -> Result<PageText, Failure> {
    let address = address(site, &page.part)
        .ok_or_else(|| Failure::no(format!("there is no part `{}` that has pages", page.part)))?;
    if !PATHS.contains(&page.path.as_str()) {
        return Err(Failure::no(format!(
            "the pages of a part are {}",
            PATHS.join(", ")
        )));
    }
    let site = Arc::clone(site);
    let fetched = tokio::task::spawn_blocking(move || {
        let asked = site.hub.run(|| get(address, &page.path));
        asked.map_err(|error| error.to_string())?
    });
    let answer = fetched.await.map_err(|error| error.to_string()).flatten();
    answer.map_err(|why| Failure::undecided(format!("{address} does not answer: {why}")))
}

fn address(site: &Site, part: &str) -> Option<SocketAddr> {
    match part {
        "ca" => Some(Site::hub_address(CA_METRICS_PORT)),
        "control" => Some(Site::hub_address(CONTROL_METRICS_PORT)),
        part => {
            let name = part.strip_prefix("proxy-")?;
            let node = site.nodes.iter().find(|node| node.name == name)?;
            let ip = node.ips().into_iter().next()?;
            Some(SocketAddr::from((ip, METRICS_PORT)))
        }
    }
}

fn get(address: SocketAddr, path: &str) -> Result<PageText, String> {
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(MAX_PAGE).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().map_err(|error| error.to_string())?;
    let answer = String::from_utf8(answer).map_err(|_| "the answer is no text".to_owned())?;
    let (head, text) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(PageText {
        status: status.ok_or("the answer has no status")?,
        text: text.to_owned(),
    })
}
