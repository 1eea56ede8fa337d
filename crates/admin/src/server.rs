//! The answering side.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::line::{Lines, send};

/// How many calls are answered at once; the next one waits in the listen queue.
pub const MAX_CALLS: usize = 128;

/// How long a peer may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait before accepting again when the system refuses (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who answers. What it returns becomes the last line.
pub trait Handler: Send + Sync + 'static {
    /// Answers a call. Never cancelled: a caller that hangs up shows in [`Items::closed`] and as an error of [`Items::send`].
    fn call(&self, call: Call) -> impl Future<Output = Result<Value, Failure>> + Send;
}

/// A request.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub verb: String,
    /// What belongs to it; null where nothing came.
    pub body: Value,
    /// Descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
    /// The user at the other end, in our user namespace.
    pub peer_uid: u32,
    /// Where items go.
    pub items: Items,
}

impl Call {
    /// The body as a type.
    ///
    /// # Errors
    /// The body is not one; the failure is the caller's to see.
    pub fn parse<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Failure> {
        serde_json::from_value(self.body.take()).map_err(|error| {
            Failure::usage(format!("the body of `{}` is not understood: {error}", self.verb))
        })
    }
}

/// The way back to the caller, until the last line.
pub struct Items {
    stream: Arc<UnixStream>,
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl Items {
    /// Sends one item; waits while the caller does not read.
    ///
    /// # Errors
    /// The caller is gone.
    pub async fn send(&mut self, item: &impl Serialize) -> io::Result<()> {
        self.send_with(item, &[]).await
    }

    /// Sends one item with descriptors beside it, at most [`MAX_FDS`](crate::MAX_FDS); the caller gets copies.
    ///
    /// # Errors
    /// The caller is gone, or there are too many.
    pub async fn send_with(&mut self, item: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        #[derive(Serialize)]
        struct Item<'a, T> {
            item: &'a T,
        }
        let line = serde_json::to_vec(&Item { item })?;
        send(&self.stream, line, fds).await
    }

    /// Returns when the caller is gone. What it still says is not listened to.
    pub async fn closed(&mut self) {
        let mut ignored = [0; 256];
        loop {
            if self.stream.readable().await.is_err() {
                return;
            }
            match self.stream.try_read(&mut ignored) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether a peer may speak with us: root, and whoever we run as.
pub fn permitted(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

/// Listens at the path (mode 0600) and answers, until dropped. A socket that a dead process left is replaced.
///
/// # Errors
/// The path is taken by something that lives or is no socket, or cannot be bound.
pub async fn serve<H: Handler>(path: &Path, handler: Arc<H>) -> io::Result<()> {
    clear_remains(path).await?;
    accept(path, bind(path)?, handler).await
}

/// As [`serve()`], in the place of whoever listens at the path: from one moment to the next callers reach us and no more
/// the other, which goes on with the calls that it has.
///
/// # Errors
/// The path cannot be bound.
pub async fn serve_instead<H: Handler>(path: &Path, handler: Arc<H>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = bind(&new)?;
    std::fs::rename(&new, path)?;
    accept(path, listener, handler).await
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept<H: Handler>(path: &Path, listener: UnixListener, handler: Arc<H>) -> io::Result<()> {
    let own_uid = rustix::process::geteuid().as_raw();
    let places = Arc::new(Semaphore::new(MAX_CALLS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            if let Err(error) = answer(stream, own_uid, handler.as_ref()).await {
                tracing::debug!(%error, "a call ended early");
            }
            drop(place);
        });
    }
}

async fn clear_remains(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let taken = || io::Error::new(io::ErrorKind::AddrInUse, format!("`{}` is taken", path.display()));
    if !metadata.file_type().is_socket() || UnixStream::connect(path).await.is_ok() {
        return Err(taken());
    }
    std::fs::remove_file(path)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    verb: String,
    #[serde(default)]
    body: Value,
}

async fn answer<H: Handler>(stream: UnixStream, own_uid: u32, handler: &H) -> io::Result<()> {
    let peer_uid = stream.peer_cred()?.uid();
    if !permitted(peer_uid, own_uid) {
        let failure = Failure::no(format!(
            "user {peer_uid} may not speak with a mesh of user {own_uid}"
        ));
        return last(&stream, Err(failure)).await;
    }
    let mut lines = Lines::default();
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, lines.next(&stream)).await {
        Err(_) => Err(Failure::usage("the request did not come in time")),
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(line))) => serde_json::from_slice::<Request>(&line)
            .map_err(|error| Failure::usage(format!("the request is not understood: {error}"))),
        Ok(Err(error)) => Err(Failure::usage(format!("the request cannot be read: {error}"))),
    };
    let request = match request {
        Ok(request) => request,
        Err(failure) => return last(&stream, Err(failure)).await,
    };
    let stream = Arc::new(stream);
    let call = Call {
        verb: request.verb,
        body: request.body,
        fds: lines.take_fds(),
        peer_uid,
        items: Items {
            stream: Arc::clone(&stream),
        },
    };
    let result = handler.call(call).await;
    last(&stream, result).await
}

async fn last(stream: &UnixStream, result: Result<Value, Failure>) -> io::Result<()> {
    let line = match result {
        Ok(value) => json!({ "ok": value }),
        Err(failure) => json!({ "error": failure }),
    };
    send(stream, line.to_string().into_bytes(), &[]).await
}
