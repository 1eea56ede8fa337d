//! What capture dropped: counted by the kernel, told here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use capture::node::{DropReason, Drops};
use telemetry::{Decision, Event, EventKind, Peer, Reporter};
use tokio::time::{Instant, MissedTickBehavior};

use crate::shared::{Shared, Standing};

/// How often the counters are read.
const POLL: Duration = Duration::from_secs(1);

/// The least time between two events of one reason; what falls between is counted in the next.
const EVENT_PAUSE: Duration = Duration::from_secs(5);

/// Reads the counters every second, for metrics and for those who ask, and leaves an event where some have grown.
pub(super) async fn watch(shared: Arc<Shared>, standing: Arc<Standing>) -> Result<(), String> {
    let mut told = Told::default();
    let mut failing = false;
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        gauges(&shared, &standing);
        let read = tokio::task::spawn_blocking(capture::node::drops);
        match read.await.map_err(|error| error.to_string())? {
            Ok(drops) => {
                failing = false;
                let counts: Vec<_> = drops.iter().map(|d| (d.reason.name(), d.packets)).collect();
                shared.telemetry.drops(&counts);
                standing.dropped(counts);
                for grown in told.grown(&drops, Instant::now()) {
                    shared.telemetry.emit(event(&grown));
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
}

fn gauges(shared: &Shared, standing: &Standing) {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let telemetry = &shared.telemetry;
    telemetry.gauge("snapshot_version", number(*shared.store.version().borrow()));
    telemetry.gauge("open", count(shared.registry.len()));
    telemetry.gauge("workloads", count(shared.locals.all().len()));
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

fn event(drops: &Drops) -> Event {
    let nobody = Arc::new(Peer::default());
    // The callee's proxy speaks where packets were on their way to a workload.
    let reporter = match drops.reason {
        DropReason::ToPodNotTcp | DropReason::NodeToPod => Reporter::Destination,
        _ => Reporter::Source,
    };
    let mut event = Event::new(
        EventKind::Drop,
        reporter,
        SystemTime::now(),
        Arc::clone(&nobody),
        nobody,
    );
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
    fn the_event_says_how_many_and_why() {
        let event = event(&udp(3));
        assert!(event.denied());
        assert_eq!(event.details, "udp");
        assert_eq!(event.message.as_deref(), Some("3 packets dropped: udp"));
        assert_eq!(event.bytes_received, 30);
    }
}
