//! The log's queue, where whoever reads the log does not.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use telemetry::{
    Event, EventKind, HttpEvent, LOG_QUEUE, LogTarget, Peer, Reporter, Telemetry, TelemetryOptions,
};

/// `O_NONBLOCK`: a pipe is opened although nobody writes to it yet.
const WITHOUT_WAITING: i32 = 0o4000;
/// Far more than the queue, the writer and the pipe take together.
const EVENTS: usize = 4 * LOG_QUEUE;

fn request() -> Event {
    let peer = || Arc::new(Peer::default());
    let mut event = Event::new(
        EventKind::Request,
        Reporter::Destination,
        SystemTime::UNIX_EPOCH,
        peer(),
        peer(),
    );
    event.http = Some(Box::new(HttpEvent {
        path: "/".repeat(100).into(),
        ..HttpEvent::default()
    }));
    event
}

fn lost(telemetry: &Telemetry) -> usize {
    let text = telemetry.metrics_text();
    let line = text
        .lines()
        .find(|l| l.starts_with("meshward_log_events_lost_total"));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_a_log_that_is_not_read_cannot_take_is_lost_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("log");
    if !Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: no pipe can be made");
        return;
    }
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(WITHOUT_WAITING)
        .open(&pipe)
        .unwrap();
    let telemetry = Telemetry::start(&TelemetryOptions {
        target: LogTarget::File(pipe),
        ..TelemetryOptions::default()
    })
    .unwrap();
    let begin = Instant::now();
    for _ in 0..EVENTS {
        telemetry.emit(request());
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(30), "who emits waited: {took:?}");
    // What the queue holds, and what went on from it before the pipe was full.
    let lost = lost(&telemetry);
    assert!(
        lost > EVENTS - 2 * LOG_QUEUE && lost <= EVENTS - LOG_QUEUE,
        "{lost}"
    );
    drop(reader);
}
