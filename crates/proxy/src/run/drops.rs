//! What capture dropped: counted by the kernel, told here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use capture::nflog::{Report, Reports};
use capture::node::{DropReason, Drops};
use telemetry::{Decision, Event, EventKind, Peer, Reporter};
use tokio::time::{Instant, MissedTickBehavior};

use crate::locals::Locals;
use crate::shared::{Shared, Stage, Standing};

/// How often the counters are read.
const POLL: Duration = Duration::from_secs(1);

/// How often it is tried to read reports, once a [`POLL`].
const ATTEMPTS: u32 = 60;

/// The least time between two events of one reason; what falls between is counted in the next.
const EVENT_PAUSE: Duration = Duration::from_secs(5);

/// Reads the counters every second, for metrics and for those who ask, and leaves an event where some have grown.
pub(super) async fn watch(shared: Arc<Shared>, standing: Arc<Standing>) -> Result<(), String> {
    let mut told = Told::default();
    let mut failing = false;
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut handed_over = pin!(shared.ending.reached(Stage::HandedOver));
    // Reports explain, counters count: without the former an event says less. They have one reader at a time, which may
    // be a proxy whose place is being taken.
    let mut reports = None;
    let mut attempts = 0..ATTEMPTS;
    let mut latest: BTreeMap<DropReason, Report> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = poll.tick() => {}
            // The other one tells of drops from now on. The task stays, as all do.
            () = &mut handed_over => break,
            report = next(&mut reports) => {
                latest.insert(report.reason, report);
                continue;
            }
        }
        if reports.is_none() && attempts.next().is_some() {
            reports = open(attempts.is_empty());
        }
        gauges(&shared, &standing);
        let read = tokio::task::spawn_blocking(capture::node::drops);
        match read.await.map_err(|error| error.to_string())? {
            Ok(drops) => {
                failing = false;
                let counts: Vec<_> = drops.iter().map(|d| (d.reason.name(), d.packets)).collect();
                shared.telemetry.drops(&counts);
                standing.dropped(counts);
                for grown in told.grown(&drops, Instant::now()) {
                    let report = latest.remove(&grown.reason);
                    shared
                        .telemetry
                        .emit(event(&grown, report.as_ref(), &shared.locals));
                }
            }
            // Counting is not carrying: what passes is decided all the same.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("the counters of dropped packets cannot be read: {error}");
            }
            Err(_) => {}
        }
    }
    drop(reports);
    std::future::pending().await
}

fn open(last: bool) -> Option<Reports> {
    Reports::open()
        .inspect_err(|error| {
            if last {
                tracing::warn!("drops are counted and not explained: {error}");
            }
        })
        .ok()
}

/// The next report; none comes any more once reading them has failed.
async fn next(reports: &mut Option<Reports>) -> Report {
    if let Some(open) = reports {
        match open.next().await {
            Ok(report) => return report,
            Err(error) => tracing::warn!("drops are not explained any more: {error}"),
        }
    }
    *reports = None;
    std::future::pending().await
}

fn gauges(shared: &Shared, standing: &Standing) {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let telemetry = &shared.telemetry;
    telemetry.gauge("snapshot_version", number(*shared.store.version().borrow()));
    telemetry.gauge("open", count(shared.registry.len()));
    telemetry.gauge("workloads", count(shared.locals.all().len()));
    telemetry.control_connected(standing.control_silent().is_none());
    let silent = standing.control_silent().unwrap_or_default();
    telemetry.gauge("control_silent_seconds", number(silent.as_secs()));
}

/// What has been told of each reason, and when.
#[derive(Default)]
struct Told(BTreeMap<DropReason, (Drops, Instant)>);

impl Told {
    /// What is to be told now. What was there at the first look is not news.
    fn grown(&mut self, drops: &[Drops], now: Instant) -> Vec<Drops> {
        let mut news = Vec::new();
        for drops in drops {
            let Some((before, at)) = self.0.get_mut(&drops.reason) else {
                let long_ago = now.checked_sub(EVENT_PAUSE).unwrap_or(now);
                self.0.insert(drops.reason, (*drops, long_ago));
                continue;
            };
            if drops.packets < before.packets {
                // The rules were laid anew: the counters began again.
                (before.packets, before.bytes) = (0, 0);
            }
            if drops.packets > before.packets && now.duration_since(*at) >= EVENT_PAUSE {
                news.push(Drops {
                    reason: drops.reason,
                    packets: drops.packets - before.packets,
                    bytes: drops.bytes.saturating_sub(before.bytes),
                });
                (*before, *at) = (*drops, now);
            }
        }
        news
    }
}

/// The report is of one of the packets.
fn event(drops: &Drops, report: Option<&Report>, locals: &Locals) -> Event {
    let pod = report.and_then(|r| locals.all().into_iter().find(|l| l.mark == r.mark));
    let peer = |address: Option<SocketAddr>, is_pod: bool| {
        let pod = pod.as_deref().filter(|_| is_pod);
        // Dropped is what nobody has proven: the identity stays out of it.
        Arc::new(Peer {
            address,
            namespace: pod.map(|p| p.namespace.as_str()).unwrap_or_default().into(),
            pod: pod.map(|p| p.pod.as_str()).unwrap_or_default().into(),
            ..Peer::default()
        })
    };
    let packet = report.and_then(|r| r.packet.as_ref());
    let (from, to) = packet.and_then(|p| p.ports).unwrap_or_default();
    let source = packet.map(|p| SocketAddr::new(p.source, from));
    let destination = packet.map(|p| SocketAddr::new(p.destination, to));
    // The callee's proxy speaks where packets were on their way to a workload.
    let (reporter, inwards) = match drops.reason {
        DropReason::ToPodNotTcp | DropReason::NodeToPod => (Reporter::Destination, true),
        _ => (Reporter::Source, false),
    };
    let mut event = Event::new(
        EventKind::Drop,
        reporter,
        SystemTime::now(),
        peer(source, !inwards),
        peer(destination, inwards),
    );
    event.port = to;
    event.decision = Decision::Deny;
    event.protocol = "packets";
    event.details = drops.reason.name().into();
    event.bytes_received = drops.bytes;
    event.message = Some(format!("{} packets dropped: {}", drops.packets, drops.reason.name()).into());
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(packets: u64) -> Drops {
        Drops {
            reason: DropReason::Udp,
            packets,
            bytes: packets * 10,
        }
    }

    #[test]
    fn p_16_new_drops_are_told_and_not_too_often() {
        let mut told = Told::default();
        let begin = Instant::now() + EVENT_PAUSE;
        assert_eq!(told.grown(&[udp(7)], begin), []);
        assert_eq!(told.grown(&[udp(7)], begin + POLL), []);
        assert_eq!(told.grown(&[udp(9)], begin + POLL * 2), [udp(2)]);
        assert_eq!(told.grown(&[udp(10)], begin + POLL * 3), []);
        let later = begin + POLL * 2 + EVENT_PAUSE;
        assert_eq!(told.grown(&[udp(12)], later), [udp(3)]);
        assert_eq!(told.grown(&[udp(1)], later + EVENT_PAUSE), [udp(1)]);
    }

    #[test]
    fn the_event_says_how_many_and_why_and_whose() {
        let unexplained = event(&udp(3), None, &Locals::default());
        assert!(unexplained.denied());
        assert_eq!(unexplained.details, "udp");
        assert_eq!(unexplained.message.as_deref(), Some("3 packets dropped: udp"));
        assert_eq!(unexplained.bytes_received, 30);
        assert_eq!(unexplained.source.address, None);

        let locals = Locals::of([crate::Registration {
            mark: 0x100,
            uid: model::WorkloadUid::new("u"),
            namespace: "full".to_owned(),
            pod: "web-1".to_owned(),
            identity: None,
            addresses: vec![],
            token: "/t".into(),
        }]);
        let report = Report {
            reason: DropReason::Udp,
            interface: 1,
            mark: 0x100,
            packet: Some(capture::nflog::Packet {
                source: [10, 77, 0, 2].into(),
                destination: [10, 77, 0, 3].into(),
                protocol: 17,
                ports: Some((4000, 123)),
                length: 30,
            }),
        };
        let explained = event(&udp(3), Some(&report), &locals);
        assert_eq!(&*explained.source.pod, "web-1");
        assert_eq!(&*explained.destination.pod, "");
        assert_eq!(
            explained.destination.address,
            Some("10.77.0.3:123".parse().unwrap())
        );
        assert_eq!(explained.port, 123);
    }
}
