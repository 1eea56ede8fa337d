//! Where events go.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{broadcast, mpsc};

use crate::event::Event;
use crate::metrics::Metrics;
use crate::render::{self, Format};
use crate::trace::{Finished, Span};
use crate::traffic::{Flow, Known, Progress};

/// How many events may wait for the log writer. Past it they are counted as lost, never waited for.
pub const LOG_QUEUE: usize = 8192;
/// Bytes of the access log that are written at once; the line that goes beyond is the last.
const BATCH: usize = 64 * 1024;

/// How many spans may wait to be sent. Past it they are counted as lost.
pub const SPAN_QUEUE: usize = 4096;

/// How many events are kept for those who ask what has just happened.
pub const LOG_BACKLOG: usize = 1000;

/// How long a process that ends waits for the log's writer.
pub const FLUSH: Duration = Duration::from_secs(2);

/// Where the access log is written.
#[derive(Clone, Debug, Default)]
pub enum LogTarget {
    /// Nowhere; subscribers still see every event.
    #[default]
    None,
    /// The process's standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// What to start with.
#[derive(Clone, Debug, Default)]
pub struct TelemetryOptions {
    /// Where lines go.
    pub target: LogTarget,
    /// How they look.
    pub format: Format,
}

/// The one place that events go to. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    queue: Option<mpsc::Sender<Entry>>,
    live: broadcast::Sender<Arc<Event>>,
    backlog: Mutex<VecDeque<Arc<Event>>>,
    spans: mpsc::Sender<Finished>,
    finished: Mutex<Option<mpsc::Receiver<Finished>>>,
}

/// What belongs to an event.
#[derive(Debug, Default)]
pub struct Attached {
    /// Of a connection that was told to be [`Telemetry::opened`].
    pub flow: Option<Flow>,
    /// The span that it completes.
    pub span: Option<Box<Span>>,
    /// What other events of its connection were counted in.
    pub known: Option<Arc<Known>>,
}

/// What the log's writer is sent.
enum Entry {
    Event(Arc<Event>),
    /// All that came before is to be on disk when this is answered.
    Flush(std::sync::mpsc::SyncSender<()>),
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Events from now on, after those that were kept.
#[derive(Debug)]
pub struct Subscription {
    /// The newest events, oldest first.
    pub backlog: Vec<Arc<Event>>,
    /// What comes. A reader that is too slow is told how many it missed.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Telemetry {
    /// Starts the log writer, a thread of its own: a slow disk never holds up traffic.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn start(options: &TelemetryOptions) -> io::Result<Self> {
        let writer: Option<Box<dyn Write + Send>> = match &options.target {
            LogTarget::None => None,
            LogTarget::Stdout => Some(Box::new(io::stdout())),
            LogTarget::File(path) => Some(Box::new(
                std::fs::OpenOptions::new().create(true).append(true).open(path)?,
            )),
        };
        let metrics = Metrics::new();
        let queue = match writer {
            None => None,
            Some(writer) => {
                let (send, receive) = mpsc::channel(LOG_QUEUE);
                let (format, lost) = (options.format, metrics.log_lost.clone());
                std::thread::Builder::new()
                    .name("access-log".to_owned())
                    .stack_size(256 * 1024)
                    .spawn(move || write_lines(receive, writer, format, &lost))?;
                Some(send)
            }
        };
        let (live, _) = broadcast::channel(1024);
        let (spans, finished) = mpsc::channel(SPAN_QUEUE);
        Ok(Self(Arc::new(Inner {
            metrics,
            queue,
            live,
            backlog: Mutex::default(),
            spans,
            finished: Mutex::new(Some(finished)),
        })))
    }

    /// Takes an event. Never blocks.
    pub fn emit(&self, event: Event) {
        self.take(Arc::new(event), Attached::default());
    }

    /// Takes an event with what belongs to it. It is kept as it is: an event of which nobody else holds a share is not copied.
    pub fn emit_with(&self, event: Arc<Event>, attached: Attached) {
        self.take(event, attached);
    }

    /// Spans that have ended, for whoever sends them: the first who asks gets them.
    pub fn take_spans(&self) -> Option<mpsc::Receiver<Finished>> {
        self.0.finished.lock().ok()?.take()
    }

    /// A connection is open from now on: it is counted, and so are its bytes as they go by. `None` where there is no room
    /// for a series of it.
    pub fn opened(&self, event: &Event, progress: &Arc<Progress>) -> Option<Flow> {
        self.0.metrics.opened(event, progress)
    }

    fn take(&self, mut event: Arc<Event>, attached: Attached) {
        match Arc::get_mut(&mut event) {
            Some(event) => event.redact(),
            None => event = Arc::new(event.redacted()),
        }
        if let Some(span) = attached.span
            && self.0.spans.try_send(span.finish(&event)).is_err()
        {
            self.spans_lost(1);
        }
        let known = attached.known.as_deref();
        self.0.metrics.record(&event, attached.flow, known);
        if event.unlogged && !event.denied() {
            return;
        }
        let mut oldest = None;
        if let Ok(mut backlog) = self.0.backlog.lock() {
            if backlog.len() >= LOG_BACKLOG {
                oldest = backlog.pop_front();
            }
            backlog.push_back(Arc::clone(&event));
            // Sent under the lock, so that a subscriber sees each event once: in the backlog or live.
            if self.0.live.receiver_count() > 0 {
                let _ = self.0.live.send(Arc::clone(&event));
            }
        }
        // Nobody waits for what is given back.
        drop(oldest);
        if let Some(queue) = &self.0.queue
            && queue.try_send(Entry::Event(event)).is_err()
        {
            self.0.metrics.log_lost.inc();
        }
    }

    /// Waits until the log's lines are written, or for [`FLUSH`]: for a process that ends. Blocks its thread.
    pub fn flush(&self) {
        let Some(queue) = &self.0.queue else { return };
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let end = Instant::now() + FLUSH;
        let mut entry = Entry::Flush(answer);
        while let Err(error) = queue.try_send(entry) {
            match error {
                mpsc::error::TrySendError::Full(again) if Instant::now() < end => entry = again,
                _ => return,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = answered.recv_timeout(end.saturating_duration_since(Instant::now()));
    }

    /// The kept events and all that follow.
    pub fn subscribe(&self) -> Subscription {
        match self.0.backlog.lock() {
            Ok(backlog) => Subscription {
                backlog: backlog.iter().cloned().collect(),
                live: self.0.live.subscribe(),
            },
            Err(_) => Subscription {
                backlog: Vec::new(),
                live: self.0.live.subscribe(),
            },
        }
    }

    /// Absolute counts of packets that capture dropped, by stable reason.
    pub fn drops(&self, counts: &[(&'static str, u64)]) {
        self.0.metrics.drops(counts);
    }

    /// Sets `meshward_state{what=…}`: versions, ages in seconds, numbers of connections.
    pub fn gauge(&self, what: &str, value: i64) {
        self.0.metrics.gauge(what, value);
    }

    /// Whether the control plane's stream is open.
    pub fn control_connected(&self, connected: bool) {
        self.0.metrics.control_connected(connected);
    }

    /// A collector has taken so many spans.
    pub fn spans_sent(&self, spans: u64) {
        self.0.metrics.spans.sent.inc_by(spans);
    }

    /// So many spans are lost: the queue was full, or no collector took them.
    pub fn spans_lost(&self, spans: u64) {
        self.0.metrics.spans.lost.inc_by(spans);
    }

    /// All metrics in OpenMetrics text (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn metrics_text(&self) -> String {
        self.0.metrics.text()
    }
}

/// Writes lines until nobody sends any more. A full disk loses lines, never traffic: what could not be written is counted, and
/// what comes once there is room again begins on a line of its own.
fn write_lines(
    mut receive: mpsc::Receiver<Entry>,
    mut writer: Box<dyn Write + Send>,
    format: Format,
    lost: &Counter,
) {
    let mut lines = String::new();
    let mut torn = false;
    while let Some(entry) = receive.blocking_recv() {
        lines.clear();
        if torn {
            lines.push('\n');
        }
        let (mut next, mut count, mut asked) = (Some(entry), 0, Vec::new());
        // All that is waiting is written at once, up to a bound.
        while let Some(entry) = next {
            match entry {
                Entry::Event(event) => {
                    lines.push_str(&render::line(&event, format));
                    lines.push('\n');
                    count += 1;
                }
                Entry::Flush(answer) => asked.push(answer),
            }
            next = (lines.len() < BATCH).then(|| receive.try_recv().ok()).flatten();
        }
        if count > 0 {
            let written = writer.write_all(lines.as_bytes()).and_then(|()| writer.flush());
            torn = written.is_err();
            if torn {
                lost.inc_by(count);
            }
        }
        for answer in asked {
            let _ = answer.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, EventKind, HttpEvent, Peer, Reporter, Wire};
    use std::time::SystemTime;

    fn request(code: u16) -> Event {
        let mut event = Event::new(
            EventKind::Request,
            Reporter::Destination,
            SystemTime::UNIX_EPOCH,
            Arc::new(Peer {
                workload: "sleep".into(),
                namespace: "full".into(),
                ..Peer::default()
            }),
            Arc::new(Peer {
                workload: "httpbin".into(),
                namespace: "full".into(),
                ..Peer::default()
            }),
        );
        event.http = Some(Box::new(HttpEvent {
            code,
            ..HttpEvent::default()
        }));
        event.protocol = "http";
        event.wire = Wire::MutualTls;
        event.service = Some("httpbin.full.svc.cluster.local".into());
        event.duration = Duration::from_millis(7);
        event
    }

    #[test]
    fn istio_names_and_labels() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        telemetry.emit(request(200));
        telemetry.emit(request(200));
        let text = telemetry.metrics_text();
        let line = text
            .lines()
            .find(|l| l.starts_with("istio_requests_total{"))
            .unwrap();
        for part in [
            r#"reporter="destination""#,
            r#"source_workload="sleep""#,
            r#"destination_service="httpbin.full.svc.cluster.local""#,
            r#"destination_service_name="httpbin""#,
            r#"destination_service_namespace="full""#,
            r#"response_code="200""#,
            r#"request_protocol="http""#,
            r#"response_flags="-""#,
            r#"connection_security_policy="mutual_tls""#,
            r#"source_principal="unknown""#,
        ] {
            assert!(line.contains(part), "{part} not in {line}");
        }
        assert!(line.ends_with(" 2"), "{line}");
        assert!(text.contains("istio_request_duration_milliseconds_bucket{"));
    }

    #[test]
    fn refusals_are_counted_by_reason_and_exist_from_the_start() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        let name = r#"meshward_denials_total{reporter="destination",reason="DENY_NO_ALLOW"}"#;
        assert!(telemetry.metrics_text().contains(&format!("{name} 0")));
        let mut event = request(403);
        event.decision = Decision::Deny;
        event.reason = Some(model::Reason::DenyNoAllow);
        telemetry.emit(event);
        assert!(telemetry.metrics_text().contains(&format!("{name} 1")));
    }

    #[test]
    fn drops_are_absolute_counts() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        telemetry.drops(&[("udp", 3)]);
        telemetry.drops(&[("udp", 5)]);
        assert!(
            telemetry
                .metrics_text()
                .contains(r#"meshward_capture_dropped_packets_total{reason="udp"} 5"#)
        );
    }

    #[test]
    fn series_are_bounded() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        for n in 0..(crate::traffic::SERIES + 5) {
            let mut event = request(200);
            event.service = Some(Arc::from(n.to_string()));
            event.kind = EventKind::Connection;
            telemetry.emit(event);
        }
        assert!(
            telemetry
                .metrics_text()
                .contains("meshward_metrics_series_dropped_total 5")
        );
    }

    #[test]
    fn the_backlog_is_bounded_and_live_follows() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        for _ in 0..LOG_BACKLOG + 3 {
            telemetry.emit(request(200));
        }
        let mut subscription = telemetry.subscribe();
        assert_eq!(subscription.backlog.len(), LOG_BACKLOG);
        telemetry.emit(request(201));
        assert_eq!(
            subscription.live.try_recv().unwrap().http.as_ref().unwrap().code,
            201
        );
        assert!(subscription.live.try_recv().is_err());
    }

    #[test]
    fn lines_reach_the_file() {
        let path = std::env::temp_dir().join(format!("meshward-log-{}", std::process::id()));
        let telemetry = Telemetry::start(&TelemetryOptions {
            target: LogTarget::File(path.clone()),
            format: Format::Text,
        })
        .unwrap();
        for _ in 0..100 {
            telemetry.emit(request(200));
        }
        telemetry.flush();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.lines().count(), 100);
        std::fs::remove_file(path).unwrap();
    }

    /// A proxy's log on a disk of 64 KiB; `None` after saying why not.
    fn small_disk() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(directory),
            other => {
                println!("skipped: no small disk: {other:?}");
                None
            }
        }
    }

    fn lost(telemetry: &Telemetry) -> u64 {
        let text = telemetry.metrics_text();
        let line = text
            .lines()
            .find(|l| l.starts_with("meshward_log_events_lost_total"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn soon(what: &str, so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !so() {
            assert!(begin.elapsed() < Duration::from_secs(10), "not soon: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_full_disk_loses_lines_that_are_counted_and_nobody_waits() {
        let Some(directory) = small_disk() else {
            return;
        };
        let (log, filler) = (directory.path().join("log"), directory.path().join("filler"));
        let options = TelemetryOptions {
            target: LogTarget::File(log.clone()),
            ..TelemetryOptions::default()
        };
        let telemetry = Telemetry::start(&options).unwrap();
        telemetry.emit(request(200));
        soon("the first line", || {
            std::fs::read_to_string(&log).unwrap().ends_with('\n')
        });
        let _ = std::fs::write(&filler, vec![b'x'; 64 * 1024]);
        let begin = Instant::now();
        for _ in 0..2000 {
            telemetry.emit(request(201));
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "who emits waited");
        soon("what could not be written is counted", || lost(&telemetry) > 0);
        // What still waits would fill the room.
        telemetry.flush();
        std::fs::remove_file(&filler).unwrap();
        soon("lines come again, each whole", || {
            telemetry.emit(request(299));
            std::fs::read_to_string(&log).unwrap().contains("299")
        });
        let text = std::fs::read_to_string(&log).unwrap();
        let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        // At most the line that met the full disk is torn.
        let broken = text
            .lines()
            .filter(|line| !line.is_empty() && !whole(line))
            .count();
        assert!(broken <= 1, "{broken} lines are torn");
        drop(telemetry);
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(directory.path())
            .status();
    }

    #[test]
    fn lines_that_a_full_disk_loses_are_counted_and_nobody_waits() {
        if !std::path::Path::new("/dev/full").exists() {
            println!("skipped: no /dev/full");
            return;
        }
        let telemetry = Telemetry::start(&TelemetryOptions {
            target: LogTarget::File("/dev/full".into()),
            format: Format::Json,
        })
        .unwrap();
        // More than the writer's buffer holds, fewer than the queue takes.
        for _ in 0..1000 {
            telemetry.emit(request(200));
        }
        telemetry.flush();
        let text = telemetry.metrics_text();
        let line = text
            .lines()
            .find(|line| line.starts_with("meshward_log_events_lost_total"))
            .unwrap();
        let lost: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(lost > 500, "{line}");
    }

    #[test]
    fn tokens_reach_neither_log_nor_subscribers() {
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        let mut event = request(200);
        if let Some(http) = event.http.as_deref_mut() {
            http.path = "/a?access_token=secret".into();
            http.path_normalized = Some("/b?access_token=secret".into());
        }
        telemetry.emit(event);
        let kept = telemetry.subscribe().backlog;
        let text = render::line(&kept[0], Format::Json) + &render::line(&kept[0], Format::Text);
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("/a?access_token=REDACTED"), "{text}");
    }
}
