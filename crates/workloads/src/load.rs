//! A steady load: requests, streams and connections of seven kinds, begun at a rate and not when the last has ended, each
//! checked for its content.
//!
//! `load --http HOST:PORT --grpc HOST:PORT --tcp HOST:PORT --rate N --stream MS --for S`: `N` of each kind a second, streams
//! and connections of `MS` milliseconds, for `S` seconds, without `--for` until standard input ends. Every half second it prints a JSON object in a line: what ended
//! since (`done`: kind, end in milliseconds of Unix time, microseconds), what failed (`failed`: kind, end, why), how often a
//! request was sent again of which the server had said that it was not looked at (`resent`), and for each pod and kind how
//! many answers came and the highest serial among them (`counted`).

mod http;
mod stream;
pub(crate) mod tally;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::Exit;

/// How long one may take, and each message of a stream.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many of a kind may be under way; more are failures.
const MAX_UNDER_WAY: usize = 500;
/// How often it is told.
const TELL: Duration = Duration::from_millis(500);
/// The time between two messages of a stream.
const PAUSE: Duration = Duration::from_millis(100);

/// The kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// HTTP/1.1 on connections that are kept.
    Http1,
    /// HTTP/1.1, each on a connection of its own.
    Http1New,
    /// HTTP/2 on one connection, for some time.
    Http2,
    /// gRPC, unary.
    Grpc,
    /// gRPC, messages both ways.
    GrpcStream,
    WebSocket,
    Tcp,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Http1,
        Self::Http1New,
        Self::Http2,
        Self::Grpc,
        Self::GrpcStream,
        Self::WebSocket,
        Self::Tcp,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http1New => "http1-new",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc-stream",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Ask {
    http: String,
    grpc: String,
    tcp: String,
    rate: f64,
    stream: Duration,
    /// Until standard input ends, where nothing is said.
    lasts: Option<Duration>,
}

/// What a request came to: how long it took, as the caller felt it.
type Felt = Result<Duration, String>;

struct Load {
    ask: Ask,
    news: Mutex<News>,
    under_way: [AtomicUsize; Kind::ALL.len()],
    resent: AtomicU64,
    next: AtomicU64,
    pools: http::Pools,
}

/// What has not been told yet.
#[derive(Default)]
struct News {
    done: Vec<(&'static str, u64, u64)>,
    failed: Vec<(&'static str, u64, String)>,
    /// Since the beginning: answers, and the highest serial.
    counted: BTreeMap<String, (u64, u64)>,
}

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let load = Arc::new(Load {
        ask: parse(args)?,
        news: Mutex::default(),
        under_way: Default::default(),
        resent: AtomicU64::new(0),
        next: AtomicU64::new(0),
        pools: http::Pools::default(),
    });
    let mut begun = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        begun.spawn(Arc::clone(&load).begin(kind));
    }
    let mut tell = interval(TELL);
    let mut over = std::pin::pin!(over(load.ask.lasts));
    loop {
        tokio::select! {
            _ = tell.tick() => load.tell(),
            () = &mut over => break,
        }
    }
    begun.abort_all();
    let waits = Instant::now();
    while load.open() > 0 && waits.elapsed() < PATIENCE + Duration::from_secs(2) {
        tell.tick().await;
        load.tell();
    }
    load.tell();
    Ok(0)
}

/// Returns when it has lasted as long as it is to.
async fn over(lasts: Option<Duration>) {
    if let Some(lasts) = lasts {
        return tokio::time::sleep(lasts).await;
    }
    let mut ignored = [0; 256];
    while tokio::io::stdin()
        .read(&mut ignored)
        .await
        .is_ok_and(|read| read > 0)
    {}
}

fn parse(args: &[String]) -> Result<Ask, Exit> {
    let mut ask = Ask {
        rate: 10.0,
        stream: Duration::from_secs(2),
        ..Ask::default()
    };
    for pair in args.chunks(2) {
        let [flag, value] = pair else {
            return Err(Exit::usage("each option of load wants a value"));
        };
        let number = || -> Result<f64, Exit> {
            let parsed = value.parse::<f64>().ok();
            parsed
                .filter(|n| *n > 0.0 && *n < 1e6)
                .ok_or_else(|| Exit::usage(format!("`{value}` is not a number above 0")))
        };
        match flag.as_str() {
            "--http" => ask.http.clone_from(value),
            "--grpc" => ask.grpc.clone_from(value),
            "--tcp" => ask.tcp.clone_from(value),
            "--rate" => ask.rate = number()?,
            "--stream" => ask.stream = Duration::from_secs_f64(number()? / 1000.0),
            "--for" => ask.lasts = Some(Duration::from_secs_f64(number()?)),
            other => return Err(Exit::usage(format!("`{other}` is not an option of load"))),
        }
    }
    if ask.http.is_empty() || ask.grpc.is_empty() || ask.tcp.is_empty() {
        return Err(Exit::usage("load wants --http, --grpc and --tcp, each HOST:PORT"));
    }
    Ok(ask)
}

impl Load {
    /// Begins those of a kind at the rate that is asked for.
    async fn begin(self: Arc<Self>, kind: Kind) {
        // Streams last: a fifth as many carry as many messages.
        let share = match kind {
            Kind::GrpcStream | Kind::WebSocket | Kind::Tcp => 5.0,
            _ => 1.0,
        };
        let mut ticks = interval(Duration::from_secs_f64(share / self.ask.rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let Some(counter) = self.under_way.get(kind as usize) else {
                return;
            };
            if counter.load(Ordering::Relaxed) >= MAX_UNDER_WAY {
                self.ended(kind, Err("too many are under way".to_owned()));
                continue;
            }
            counter.fetch_add(1, Ordering::Relaxed);
            let load = Arc::clone(&self);
            tokio::spawn(async move {
                let felt = load.one(kind).await;
                load.ended(kind, felt);
                if let Some(counter) = load.under_way.get(kind as usize) {
                    counter.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    }

    async fn one(&self, kind: Kind) -> Felt {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match kind {
            Kind::Http1 | Kind::Http1New | Kind::Http2 | Kind::Grpc => {
                let begin = Instant::now();
                patient(self.request(kind, number)).await?;
                Ok(begin.elapsed())
            }
            Kind::GrpcStream => self.grpc_stream(number).await,
            Kind::WebSocket => self.websocket(number).await,
            Kind::Tcp => self.tcp(number).await,
        }
    }

    fn ended(&self, kind: Kind, felt: Felt) {
        let now = unix_ms();
        let mut news = self.news();
        match felt {
            Ok(felt) => {
                let micros = u64::try_from(felt.as_micros()).unwrap_or(u64::MAX);
                news.done.push((kind.as_str(), now, micros));
            }
            Err(why) => news.failed.push((kind.as_str(), now, why)),
        }
    }

    /// Notes who answered; what follows the line that says so.
    fn counted<'a>(&self, kind: Kind, answer: &'a str) -> Result<&'a str, String> {
        let malformed = || {
            format!(
                "not an answer of the server: {:?}",
                answer.get(..80).unwrap_or(answer)
            )
        };
        let (line, rest) = answer.split_once('\n').ok_or_else(malformed)?;
        let (who, serial) = line.rsplit_once(' ').ok_or_else(malformed)?;
        let serial: u64 = serial.parse().map_err(|_| malformed())?;
        if !who.ends_with(&format!(" {}", kind.as_str())) {
            return Err(format!("an answer to another kind: {line}"));
        }
        let mut news = self.news();
        let counted = news.counted.entry(who.to_owned()).or_default();
        counted.0 += 1;
        counted.1 = counted.1.max(serial);
        Ok(rest)
    }

    fn open(&self) -> usize {
        self.under_way.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    fn tell(&self) {
        let mut news = self.news();
        println!(
            "{}",
            json!({
                "done": std::mem::take(&mut news.done),
                "failed": std::mem::take(&mut news.failed),
                "resent": self.resent.load(Ordering::Relaxed),
                "counted": news.counted,
            })
        );
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

async fn patient<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())))
}

async fn connect(to: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(to)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A text that is another for each number, of some bytes to some thousand.
fn text(number: u64) -> String {
    let length = usize::try_from(number.wrapping_mul(7919) % 4000).unwrap_or_default() + 20;
    let mut text = format!("n{number} ");
    while text.len() < length {
        text.push_str(&format!(
            "{:x}.",
            number.wrapping_mul(0x9E37_79B9).wrapping_add(text.len() as u64)
        ));
    }
    text
}

/// How a difference is told.
fn same(wanted: &str, got: &str) -> Result<(), String> {
    if wanted == got {
        return Ok(());
    }
    let at = wanted
        .bytes()
        .zip(got.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "another content: {} bytes instead of {}, the first {at} as they should be",
        got.len(),
        wanted.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_and_have_bounds() {
        let texts: std::collections::BTreeSet<_> = (0..500).map(text).collect();
        assert_eq!(texts.len(), 500);
        assert!(texts.iter().all(|t| (20..4200).contains(&t.len())));
        assert!(same("abc", "abc").is_ok());
        assert!(same("abc", "abd").unwrap_err().contains("first 2"));
    }

    #[tokio::test]
    async fn every_kind_is_carried_and_counted() {
        let ports: Vec<u16> = (0..3)
            .map(|_| {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                listener.local_addr().unwrap().port()
            })
            .collect();
        let words = |flags: [&str; 3], host: &str| -> Vec<String> {
            let pairs = flags.iter().zip(&ports);
            pairs
                .flat_map(|(flag, port)| [(*flag).to_owned(), format!("{host}{port}")])
                .collect()
        };
        let server = words(["--http", "--grpc", "--tcp"], "");
        tokio::spawn(async move { tally::run(&server).await.map_err(|_| ()) });
        let mut client = words(["--http", "--grpc", "--tcp"], "127.0.0.1:");
        client.extend(["--stream", "300"].map(str::to_owned));
        let load = Load {
            ask: parse(&client).unwrap(),
            news: Mutex::default(),
            under_way: Default::default(),
            resent: AtomicU64::new(0),
            next: AtomicU64::new(0),
            pools: http::Pools::default(),
        };
        for port in &ports {
            while TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for kind in Kind::ALL {
            for _ in 0..3 {
                load.one(kind)
                    .await
                    .unwrap_or_else(|why| panic!("{kind:?}: {why}"));
            }
        }
        let news = load.news();
        assert_eq!(news.counted.len(), Kind::ALL.len(), "{:?}", news.counted);
        assert!(
            news.counted.values().all(|counted| *counted == (3, 3)),
            "{:?}",
            news.counted
        );
    }
}
