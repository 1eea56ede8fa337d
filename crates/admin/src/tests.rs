use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::*;

#[derive(Default)]
struct Parrot {
    gone: Arc<Notify>,
    name: &'static str,
}

impl Handler for Parrot {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "echo" => Ok(call.body),
            "count" => {
                for n in 0..call.parse::<u32>()? {
                    call.items
                        .send(&n)
                        .await
                        .map_err(|e| Failure::undecided(e.to_string()))?;
                }
                Ok(json!("done"))
            }
            "fds" => {
                for fd in call.fds.drain(..) {
                    File::from(fd).write_all(b"written there").unwrap();
                }
                Ok(json!(call.peer_uid))
            }
            "name" => Ok(json!(self.name)),
            "give" => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(b"given").unwrap();
                let fds = vec![file.as_fd(); MAX_FDS];
                call.items.send_with(&MAX_FDS, &fds).await.unwrap();
                Ok(Value::Null)
            }
            "wait" => {
                call.items.closed().await;
                self.gone.notify_one();
                Ok(Value::Null)
            }
            other => Err(Failure::usage(format!("no verb `{other}`"))),
        }
    }
}

struct Served {
    _dir: tempfile::TempDir,
    path: PathBuf,
    gone: Arc<Notify>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let parrot = Arc::new(Parrot::default());
    let gone = Arc::clone(&parrot.gone);
    let at = path.clone();
    let task = tokio::spawn(async move { serve(&at, parrot).await });
    while UnixStream::connect(&path).await.is_err() {
        tokio::task::yield_now().await;
    }
    Served {
        _dir: dir,
        path,
        gone,
        task,
    }
}

async fn ask(path: &std::path::Path, verb: &str, body: Value) -> Result<Value, Failure> {
    call(path, verb, body, vec![]).await.unwrap().finish().await
}

#[tokio::test]
async fn a_body_comes_back_whole_even_when_large() {
    let served = served().await;
    let text = "x".repeat(3_000_000);
    assert_eq!(
        ask(&served.path, "echo", json!([text, 1])).await,
        Ok(json!([text, 1]))
    );
    let mode = std::fs::metadata(&served.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn items_come_in_order_before_the_end() {
    let served = served().await;
    let mut answer = call(&served.path, "count", json!(1000), vec![]).await.unwrap();
    for n in 0..1000 {
        assert_eq!(answer.item().await, Some(json!(n)));
    }
    assert_eq!(answer.item().await, None);
    assert_eq!(answer.finish().await, Ok(json!("done")));
}

#[tokio::test]
async fn failures_keep_message_and_exit_code() {
    let served = served().await;
    let failure = ask(&served.path, "nonsense", Value::Null).await.unwrap_err();
    assert_eq!(failure, Failure::usage("no verb `nonsense`"));
    assert_eq!(failure.exit.code(), 64);
    let failure = ask(&served.path, "count", json!("many")).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
}

#[tokio::test]
async fn descriptors_are_passed() {
    let served = served().await;
    let mut file = tempfile::tempfile().unwrap();
    let fd = file.try_clone().unwrap().into();
    let answer = call(&served.path, "fds", Value::Null, vec![fd]).await.unwrap();
    assert_eq!(
        answer.finish().await,
        Ok(json!(rustix::process::geteuid().as_raw()))
    );
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "written there");
}

#[tokio::test]
async fn too_many_descriptors_are_refused() {
    let served = served().await;
    let file = tempfile::tempfile().unwrap();
    let fds = (0..=MAX_FDS).map(|_| file.try_clone().unwrap().into()).collect();
    assert!(call(&served.path, "fds", Value::Null, fds).await.is_err());
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_noticed() {
    let served = served().await;
    let answer = call(&served.path, "wait", Value::Null, vec![]).await.unwrap();
    drop(answer);
    tokio::time::timeout(Duration::from_secs(10), served.gone.notified())
        .await
        .expect("the handler learns that its caller is gone");
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let served = served().await;
    let mut stream = UnixStream::connect(&served.path).await.unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..(MAX_LINE >> 20) + 2 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut text = String::new();
    // The rest of what was sent is still unread when the server hangs up: the reset may overtake the last line.
    let _ = stream.read_to_string(&mut text).await;
    assert!(!text.contains("\"ok\""));
    assert_eq!(ask(&served.path, "echo", json!(1)).await, Ok(json!(1)));
}

#[tokio::test]
async fn garbage_is_answered_with_usage() {
    let served = served().await;
    for garbage in ["{}", "[]", "\u{0}", "{\"verb\":\"echo\",\"boddy\":1}"] {
        let mut stream = UnixStream::connect(&served.path).await.unwrap();
        stream.write_all(format!("{garbage}\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("\"exit\":64"), "{garbage}: {text}");
    }
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let served = served().await;
    let second = serve(&served.path, Arc::new(Parrot::default()))
        .await
        .unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    served.task.abort();
    while UnixStream::connect(&served.path).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let missing = call(&served.path, "echo", Value::Null, vec![]).await.unwrap_err();
    assert!(matches!(missing, CallError::NotThere { .. }), "{missing}");
    let path = served.path.clone();
    tokio::spawn(async move { serve(&path, Arc::new(Parrot::default())).await });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while call(&served.path, "echo", Value::Null, vec![]).await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the path was never taken over"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn descriptors_come_beside_an_item() {
    let served = served().await;
    let mut answer = call(&served.path, "give", Value::Null, vec![]).await.unwrap();
    assert_eq!(answer.item().await, Some(json!(MAX_FDS)));
    let fds = answer.take_fds();
    assert_eq!((fds.len(), answer.take_fds().len()), (MAX_FDS, 0));
    let mut text = String::new();
    let mut file = File::from(fds.into_iter().next().unwrap());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "given");
    assert_eq!(answer.finish().await, Ok(Value::Null));
}

#[tokio::test]
async fn who_serves_instead_takes_the_calls_and_leaves_the_other_those_that_it_has() {
    let served = served().await;
    let before = call(&served.path, "wait", Value::Null, vec![]).await.unwrap();
    let path = served.path.clone();
    let second = Arc::new(Parrot {
        name: "second",
        ..Parrot::default()
    });
    tokio::spawn(async move { serve_instead(&path, second).await });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while ask(&served.path, "name", Value::Null).await != Ok(json!("second")) {
        assert!(tokio::time::Instant::now() < deadline, "the path was never taken");
        tokio::task::yield_now().await;
    }
    drop(before);
    tokio::time::timeout(Duration::from_secs(10), served.gone.notified())
        .await
        .expect("a call that began before goes on");
}

#[test]
fn only_root_and_the_owner_may_speak() {
    for (peer, own, may) in [
        (0, 1000, true),
        (1000, 1000, true),
        (1001, 1000, false),
        (65534, 1000, false),
        (1000, 0, false),
        (0, 0, true),
    ] {
        assert_eq!(permitted(peer, own), may, "peer {peer}, own {own}");
    }
}

#[test]
fn exit_codes_are_the_four() {
    for code in 0..=255_u8 {
        assert_eq!(Exit::try_from(code).is_ok(), [1, 2, 64, 65].contains(&code));
    }
}
