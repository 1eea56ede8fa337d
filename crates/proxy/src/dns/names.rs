//! What names outside the cluster stand for: asked of the servers of the configuration, once for all workloads of the node.
//!
//! Two things ask. An entry whose endpoints are names wants their newest addresses ([`Names::addresses`]). An entry that lists no
//! address leads to the one that a client dialled, and wants to know whether its host is there ([`Names::is_at`]): every
//! address counts that an answer had of late, also one that a workload itself was told ([`Names::learn`]). The answers
//! are those of the configured servers alone: no workload can tell us where a name is.
//!
//! The last good answer is used on while no server can be asked, for [`MAX_STALE`]; a server that says that there is no such name
//! ends it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::forward;

/// Names that are kept.
const MAX_NAMES: usize = 4096;
/// One of so many is forgotten at once where there is no room.
const FORGOTTEN: usize = 16;
/// Addresses of one name that are kept.
const MAX_ADDRESSES: usize = 64;
/// Names that are asked about at once.
const MAX_AT_ONCE: usize = 64;
/// Aliases that are followed.
const MAX_ALIASES: usize = 8;
/// An answer is not asked for again sooner, whatever it says.
const MIN_TTL: Duration = Duration::from_secs(5);
/// Nor later.
const MAX_TTL: Duration = Duration::from_secs(60 * 60);
/// How long after a failure it is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How long an answer that is too old may be used while it is asked for anew.
const GRACE: Duration = Duration::from_secs(30);
/// How long the last good answer is used while nobody can be asked.
pub(super) const MAX_STALE: Duration = Duration::from_secs(60 * 60);
/// How long an address counts as the name's after an answer had it, at least: clients keep answers longer than they say.
const SEEN: Duration = Duration::from_secs(10 * 60);
/// How long a name is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// What is known of names.
#[derive(Debug)]
pub(crate) struct Names {
    known: Mutex<HashMap<String, Known>>,
    places: Semaphore,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            places: Semaphore::new(MAX_AT_ONCE),
        }
    }
}

#[derive(Debug)]
struct Known {
    /// The newest answer, as it came.
    newest: Arc<[IpAddr]>,
    /// When it is to be asked for again, and until when it is used where nobody can be asked.
    fresh_until: Instant,
    good_until: Instant,
    /// Every address of late, and until when it counts.
    seen: BTreeMap<IpAddr, Instant>,
    used: Instant,
    /// Held by whoever asks.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// What is to be done for a name.
enum Look {
    Use(Arc<[IpAddr]>),
    /// And it is asked for meanwhile.
    Renew(Arc<[IpAddr]>, Arc<tokio::sync::Mutex<()>>),
    Ask(Arc<tokio::sync::Mutex<()>>),
}

/// What servers said.
enum Said {
    /// Addresses, and for how long; none where there is no such name.
    Addresses(Vec<IpAddr>, Duration),
    Nothing,
}

impl Names {
    /// The addresses of a name, in the order of the newest answer; none where it has none, or nobody can be asked and what was
    /// known is too old.
    pub(crate) async fn addresses(self: &Arc<Self>, servers: &[SocketAddr], name: &str) -> Arc<[IpAddr]> {
        let asking = match self.look(name) {
            Look::Use(addresses) => return addresses,
            Look::Renew(addresses, asking) => {
                if let Ok(asking) = asking.try_lock_owned() {
                    let (names, servers, name) = (Arc::clone(self), servers.to_vec(), name.to_owned());
                    tokio::spawn(async move {
                        names.ask(&servers, &name).await;
                        drop(asking);
                    });
                }
                return addresses;
            }
            Look::Ask(asking) => asking,
        };
        let _one = asking.lock().await;
        // Somebody else may have asked meanwhile.
        match self.look(name) {
            Look::Use(addresses) | Look::Renew(addresses, _) => addresses,
            Look::Ask(_) => self.ask(servers, name).await,
        }
    }

    /// Whether a name is at an address: an answer of late had it, or a new one has.
    pub(crate) async fn is_at(self: &Arc<Self>, servers: &[SocketAddr], name: &str, address: IpAddr) -> bool {
        if self.was_at(name, address) {
            return true;
        }
        self.addresses(servers, name).await.contains(&address)
    }

    /// Whether some name that `covers` admits is at an address, as far as that is known.
    pub(crate) fn some_at(&self, covers: impl Fn(&str) -> bool, address: IpAddr) -> bool {
        let (now, known) = (Instant::now(), self.locked());
        let mut all = known.iter().filter(|(name, _)| covers(name));
        all.any(|(_, known)| known.seen.get(&address).is_some_and(|until| *until > now))
    }

    /// A server answered a workload's question about a name.
    pub(crate) fn learn(&self, question: &Query, answer: &Message) {
        let Some(name) = text(question.name()) else {
            return;
        };
        if let Said::Addresses(addresses, ttl) = said(question.name(), answer)
            && !addresses.is_empty()
        {
            let now = Instant::now();
            entry(&mut self.locked(), &name, now).see(&addresses, ttl, now);
        }
    }

    fn look(&self, name: &str) -> Look {
        let (now, mut all) = (Instant::now(), self.locked());
        let known = entry(&mut all, name, now);
        known.used = now;
        let (newest, asking) = (Arc::clone(&known.newest), Arc::clone(&known.asking));
        if now < known.fresh_until {
            Look::Use(newest)
        } else if !newest.is_empty() && now < (known.fresh_until + GRACE).min(known.good_until) {
            Look::Renew(newest, asking)
        } else {
            Look::Ask(asking)
        }
    }

    /// Asks for the addresses of both families.
    async fn ask(&self, servers: &[SocketAddr], name: &str) -> Arc<[IpAddr]> {
        let said = match (absolute(name), self.places.acquire().await) {
            (Some(asked), Ok(_place)) => {
                let of = async |kind| {
                    let question = Query::query(asked.clone(), kind);
                    forward::ask(servers, &question).await
                };
                let (v4, v6) = tokio::join!(of(RecordType::A), of(RecordType::AAAA));
                [v4, v6].map(|answer| answer.map_or(Said::Nothing, |answer| said(&asked, &answer)))
            }
            _ => [Said::Nothing, Said::Nothing],
        };
        let (now, mut all) = (Instant::now(), self.locked());
        let known = entry(&mut all, name, now);
        known.answered(said, now);
        Arc::clone(&known.newest)
    }

    fn was_at(&self, name: &str, address: IpAddr) -> bool {
        let now = Instant::now();
        self.locked().get_mut(name).is_some_and(|known| {
            known.used = now;
            known.seen.get(&address).is_some_and(|until| *until > now)
        })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Names {
    /// As if the servers had said so.
    pub(crate) fn know(&self, name: &str, addresses: &[&str]) {
        let (v6, v4) = addresses
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .partition(IpAddr::is_ipv6);
        let now = Instant::now();
        let said = [v4, v6].map(|addresses| Said::Addresses(addresses, MAX_TTL));
        entry(&mut self.locked(), name, now).answered(said, now);
    }
}

/// What is known of a name; room is made for one that is new.
fn entry<'a>(all: &'a mut HashMap<String, Known>, name: &str, now: Instant) -> &'a mut Known {
    if all.len() >= MAX_NAMES && !all.contains_key(name) {
        make_room(all, now);
    }
    all.entry(name.to_owned()).or_insert_with(|| Known {
        newest: Arc::default(),
        fresh_until: now,
        good_until: now,
        seen: BTreeMap::new(),
        used: now,
        asking: Arc::default(),
    })
}

/// Forgets what nobody has used for long; where that is too little, what was used the longest ago: a workload that asks for
/// very many names must not leave others without any. What is forgotten is asked for again.
fn make_room(all: &mut HashMap<String, Known>, now: Instant) {
    all.retain(|_, known| now < known.used + IDLE);
    if all.len() < MAX_NAMES {
        return;
    }
    let mut times: Vec<Instant> = all.values().map(|known| known.used).collect();
    let (_, newest, _) = times.select_nth_unstable(MAX_NAMES / FORGOTTEN);
    let newest = *newest;
    tracing::warn!("more names are in use than are kept");
    // Of those that were used at that very moment some stay.
    let mut room = MAX_NAMES / FORGOTTEN;
    all.retain(|_, known| {
        let goes = room > 0 && known.used <= newest;
        room -= usize::from(goes);
        !goes
    });
}

impl Known {
    /// Takes in what was said of each family. Of one of which nothing was said what was known stays, while it is good.
    fn answered(&mut self, said: [Said; 2], now: Instant) {
        let mut newest = Vec::new();
        let mut ttl: Option<Duration> = None;
        let mut silent = false;
        for (v6, said) in [false, true].into_iter().zip(said) {
            match said {
                Said::Addresses(addresses, lasts) => {
                    self.see(&addresses, lasts, now);
                    newest.extend(addresses);
                    ttl = Some(ttl.map_or(lasts, |other| other.min(lasts)));
                }
                Said::Nothing => {
                    silent = true;
                    let kept = self.newest.iter().filter(|address| address.is_ipv6() == v6);
                    newest.extend(kept.filter(|_| now < self.good_until));
                }
            }
        }
        newest.truncate(MAX_ADDRESSES);
        self.newest = newest.into();
        self.fresh_until = now + ttl.filter(|_| !silent).unwrap_or(RETRY);
        if !silent {
            self.good_until = now + MAX_STALE;
        }
    }

    fn see(&mut self, addresses: &[IpAddr], ttl: Duration, now: Instant) {
        self.seen.retain(|_, until| *until > now);
        for address in addresses.iter().take(MAX_ADDRESSES) {
            if self.seen.len() < MAX_ADDRESSES || self.seen.contains_key(address) {
                self.seen.insert(*address, now + ttl.max(SEEN));
            } else {
                let soonest = self.seen.iter().min_by_key(|(_, until)| **until);
                if let Some(soonest) = soonest.map(|(address, _)| *address) {
                    self.seen.remove(&soonest);
                    self.seen.insert(*address, now + ttl.max(SEEN));
                }
            }
        }
    }
}

/// What an answer says of a name, aliases followed.
fn said(name: &Name, answer: &Message) -> Said {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        _ => return Said::Nothing,
    }
    let (mut at, mut ttl) = (name.clone(), MAX_TTL);
    let mut lasts = |record: &Record| ttl = ttl.min(Duration::from_secs(record.ttl.into()));
    for _ in 0..MAX_ALIASES {
        let alias = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == at => Some((record, target.0.clone())),
            _ => None,
        });
        let Some((record, target)) = alias else { break };
        lasts(record);
        at = target;
    }
    let mut addresses = Vec::new();
    for record in answer.answers.iter().filter(|record| record.name == at) {
        match &record.data {
            RData::A(address) => addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => addresses.push(address.0.to_canonical()),
            _ => continue,
        }
        lasts(record);
        if addresses.len() >= MAX_ADDRESSES {
            break;
        }
    }
    if addresses.is_empty() {
        // What is not there may be there soon.
        ttl = ttl.min(MIN_TTL);
    }
    Said::Addresses(addresses, ttl.max(MIN_TTL))
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// A name as it is compared: in lower case, without a dot at the end.
fn text(name: &Name) -> Option<String> {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
