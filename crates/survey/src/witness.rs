//! What victims received: recorded in their own network namespaces, packet by packet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attempt::Place;
use crate::mesh::{Kept, Mesh, Pod, field};

/// How long a packet may take from the victim's link to the record.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a recorder may take to tell of what is sent to show that it is awake.
const AWAKE: Duration = Duration::from_secs(5);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(20);

/// By namespace and workload.
type Recorders = BTreeMap<(&'static str, &'static str), Kept>;

/// One recorder in each pod that was ever aimed at.
#[derive(Debug)]
pub(crate) struct Witnesses<'a> {
    mesh: &'a Mesh,
    recorders: Mutex<Recorders>,
}

impl<'a> Witnesses<'a> {
    pub(crate) fn new(mesh: &'a Mesh) -> Self {
        Self {
            mesh,
            recorders: Mutex::default(),
        }
    }

    /// Starts a recorder where there is none. Not to be called twice at a time.
    ///
    /// # Errors
    /// It does not start, or is not awake.
    pub(crate) fn watch(&self, place: Place) -> Result<(), String> {
        let key = (place.namespace, place.workload);
        if self.recorders().contains_key(&key) {
            return Ok(());
        }
        let recorder = self
            .mesh
            .keep(place, &["record", "--seconds", "3600"])
            .map_err(|why| format!("the record in {}/{}: {why}", place.namespace, place.workload))?;
        self.recorders().insert(key, recorder);
        self.awake(place)
    }

    /// How much a victim's record holds so far.
    ///
    /// # Errors
    /// It is not watched.
    pub(crate) fn mark(&self, place: Place) -> Result<usize, String> {
        let recorders = self.recorders();
        let recorder = recorders.get(&(place.namespace, place.workload));
        recorder
            .map(Kept::len)
            .ok_or_else(|| format!("{}/{} is not watched", place.namespace, place.workload))
    }

    /// Shows that a recorder still tells what it sees: silence would prove nothing otherwise.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn awake(&self, place: Place) -> Result<(), String> {
        let token = format!("awake-{}", self.recorded(place).len());
        let probe = [
            "probe",
            "udp",
            "--addr",
            "127.0.0.1:9",
            "--wait",
            "0",
            "--send",
            &token,
        ];
        let from = self.recorded(place).len();
        self.mesh.exec(place, &probe)?;
        let end = Instant::now() + AWAKE;
        while !self
            .recorded(place)
            .iter()
            .skip(from)
            .any(|line| field(line, &["data"]).contains(&token))
        {
            if Instant::now() > end {
                return Err(format!(
                    "the record in {}/{} is not made",
                    place.namespace, place.workload
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Everywhere that something is recorded.
    pub(crate) fn places(&self) -> Vec<Place> {
        let places = self.recorders();
        places
            .keys()
            .map(|(namespace, workload)| Place { namespace, workload })
            .collect()
    }

    /// The packets that came to a victim's addresses since the mark, once one of them is as `wanted`, or a while has passed.
    pub(crate) fn received(
        &self,
        place: Place,
        pod: &Pod,
        mark: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.since(place, mark).into_iter().find(|line| {
                let to = field(line, &["destination"]);
                (to == pod.ip || to == pod.ip6) && wanted(line)
            });
            if found.is_some() || Instant::now() > end {
                return found;
            }
            std::thread::sleep(POLL);
        }
    }

    fn recorders(&self) -> MutexGuard<'_, Recorders> {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since(&self, place: Place, mark: usize) -> Vec<Value> {
        let recorders = self.recorders();
        let recorder = recorders.get(&(place.namespace, place.workload));
        recorder.map(|kept| kept.since(mark)).unwrap_or_default()
    }

    fn recorded(&self, place: Place) -> Vec<Value> {
        self.since(place, 0)
    }
}
