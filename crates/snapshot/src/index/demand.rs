//! What an index of one proxy does not know, and what of it nobody has used.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{ServiceName, canonical_ip};

use super::Index;
use crate::{Address, Resource, ResourceName, Service, Workload};

/// Questions that a look-up needs the answers of before what comes of it can be used. Empty for an index of a whole mesh.
#[derive(Debug, Default)]
pub struct Lacks(RefCell<Vec<ResourceName>>);

impl Lacks {
    /// Whether the look-up can be used.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The questions, each once.
    pub fn into_names(self) -> Vec<ResourceName> {
        let mut names = self.0.into_inner();
        names.sort();
        names.dedup();
        names
    }

    fn add(&self, name: ResourceName) {
        self.0.borrow_mut().push(name);
    }
}

/// Whether something was used since somebody last looked. Shared by an index and those that follow it.
#[derive(Clone, Debug)]
pub(super) struct Seen(Arc<AtomicBool>);

impl Seen {
    /// Used: what has just come was asked for.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn set(&self) {
        // Written once a round only: readers on other processors keep their copy.
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Something that was asked for: there, or known not to be.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) value: Option<T>,
    pub(super) seen: Seen,
}

impl<T> Known<T> {
    /// Where it was not used: whether there is nothing. `behind` says whether something that it leads to was.
    fn unused(&self, behind: impl FnOnce(&T) -> bool) -> Option<bool> {
        let used = self.seen.is_set() || self.value.as_ref().is_some_and(behind);
        (!used).then_some(self.value.is_none())
    }
}

impl Index {
    /// A Service by name; where it is not known whether there is one, that is what is lacked.
    pub(super) fn service_at(&self, namespace: &str, name: &str, lacks: &Lacks) -> Option<&Arc<Service>> {
        match self.services.get(namespace).and_then(|all| all.get(name)) {
            Some(known) => {
                known.seen.set();
                known.value.as_ref()
            }
            None if self.whole || !is_label(namespace) || !is_label(name) => None,
            None => {
                lacks.add(ResourceName::service(&ServiceName::new(namespace, name)));
                None
            }
        }
    }

    /// Sees to it that all is known of an address, which is not a cluster address that is here.
    pub(super) fn need(&self, address: IpAddr, lacks: &Lacks) {
        if self.whole {
            return;
        }
        match self.addresses.get(&canonical_ip(address)) {
            Some(known) => known.seen.set(),
            None => lacks.add(ResourceName::address(address)),
        }
    }

    /// Whether a namespace has Services.
    pub(super) fn has_services(&self, namespace: &str, lacks: &Lacks) -> bool {
        if self.whole {
            return self.services.contains_key(namespace);
        }
        match self.namespaces.get(namespace) {
            Some(known) => {
                known.seen.set();
                known.value.is_some()
            }
            None if !is_label(namespace) => false,
            None => {
                lacks.add(ResourceName::namespace(namespace));
                false
            }
        }
    }

    /// The pod that has the address, in the mesh or not, of which all must be known.
    pub fn pod_at(&self, address: IpAddr, lacks: &Lacks) -> Option<&Arc<Workload>> {
        self.need(address, lacks);
        self.pod(address)
    }

    /// Whether the answer to a question is here.
    pub fn knows(&self, question: &ResourceName) -> bool {
        self.whole || self.seen(question).is_some()
    }

    /// Notes who is needed to know whose connection it is that comes from an address.
    pub fn need_caller(&self, address: IpAddr, lacks: &Lacks) {
        let address = canonical_ip(address);
        if self.whole || self.addresses.contains_key(&address) {
            return;
        }
        match self.callers.get(&address) {
            Some(known) => known.seen.set(),
            None => lacks.add(ResourceName::caller(address)),
        }
    }

    /// Those of the questions whose answers nobody has used since [`Self::begin_round`], each with whether the answer was
    /// that there is nothing. What is at an address is in use as long as a Service of it is.
    pub fn unused<'q>(
        &self,
        questions: impl IntoIterator<Item = &'q ResourceName>,
    ) -> Vec<(ResourceName, bool)> {
        let used = |name: &ServiceName| self.known_service(name).is_some_and(|known| known.seen.is_set());
        let unused = |name: &ResourceName| match Question::read(name)? {
            Question::Service(namespace, name) => self.services.get(namespace)?.get(name)?.unused(|_| false),
            Question::Address(address) => {
                let behind = |at: &Arc<Address>| at.service.iter().chain(&at.serving).any(used);
                self.addresses.get(&address)?.unused(behind)
            }
            Question::Caller(address) => self.callers.get(&address)?.unused(|()| false),
            Question::Namespace(name) => self.namespaces.get(name)?.unused(|()| false),
        };
        let each = questions.into_iter();
        each.filter_map(|name| unused(name).map(|absent| (name.clone(), absent)))
            .collect()
    }

    /// Those of the questions whose answer was that there is nothing.
    pub fn absent<'q>(&self, questions: impl IntoIterator<Item = &'q ResourceName>) -> Vec<ResourceName> {
        let absent = |name: &&ResourceName| {
            let value = match Question::read(name)? {
                Question::Service(namespace, name) => self
                    .services
                    .get(namespace)?
                    .get(name)?
                    .value
                    .as_ref()
                    .map(|_| ()),
                Question::Address(address) => self.addresses.get(&address)?.value.as_ref().map(|_| ()),
                Question::Caller(address) => self.callers.get(&address)?.value,
                Question::Namespace(name) => self.namespaces.get(name)?.value,
            };
            Some(value.is_none())
        };
        let each = questions.into_iter();
        each.filter(|name| absent(name) == Some(true)).cloned().collect()
    }

    /// From now on it counts what is used.
    pub fn begin_round(&self) {
        let services = self.services.values().flat_map(|all| all.values());
        services.for_each(|known| known.seen.clear());
        self.addresses.values().for_each(|known| known.seen.clear());
        self.callers.values().for_each(|known| known.seen.clear());
        self.namespaces.values().for_each(|known| known.seen.clear());
    }

    pub(super) fn known_service(&self, name: &ServiceName) -> Option<&Known<Arc<Service>>> {
        self.services.get(name.namespace())?.get(name.name())
    }

    /// Takes in an answer that is no Service.
    pub(super) fn add_answer(&mut self, answer: &Resource, before: Option<&Self>) {
        let seen = |name: &ResourceName| {
            let before = before.and_then(|before| before.seen(name));
            before.cloned().unwrap_or_else(Seen::new)
        };
        let (question, there) = match answer {
            Resource::Absent(name) => (name.clone(), false),
            other => (other.name(), true),
        };
        let seen = seen(&question);
        let value = there.then_some(());
        match Question::read(&question) {
            Some(Question::Service(namespace, name)) if !there => {
                let known = Known { value: None, seen };
                let all = self.services.entry(namespace.to_owned()).or_default();
                all.entry(name.to_owned()).or_insert(known);
            }
            Some(Question::Address(address)) => {
                let value = match answer {
                    Resource::Address(at) => Some(Arc::clone(at)),
                    _ => None,
                };
                self.addresses.insert(address, Known { value, seen });
            }
            Some(Question::Caller(address)) => {
                self.callers.insert(address, Known { value, seen });
            }
            Some(Question::Namespace(name)) => {
                self.namespaces.insert(name.to_owned(), Known { value, seen });
            }
            Some(Question::Service(..)) | None => {}
        }
    }

    fn seen(&self, question: &ResourceName) -> Option<&Seen> {
        match Question::read(question)? {
            Question::Service(namespace, name) => Some(&self.services.get(namespace)?.get(name)?.seen),
            Question::Address(address) => Some(&self.addresses.get(&address)?.seen),
            Question::Caller(address) => Some(&self.callers.get(&address)?.seen),
            Question::Namespace(name) => Some(&self.namespaces.get(name)?.seen),
        }
    }
}

/// Whether a text can be the name of a Service or a namespace at all; what cannot is not asked about (RFC 1123, 63 bytes).
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

/// What a proxy may ask for, read from its name.
enum Question<'a> {
    Service(&'a str, &'a str),
    Address(IpAddr),
    Caller(IpAddr),
    Namespace(&'a str),
}

impl<'a> Question<'a> {
    fn read(name: &'a ResourceName) -> Option<Self> {
        match name.as_str().split_once('/')? {
            ("service", rest) => rest
                .split_once('/')
                .map(|(namespace, name)| Self::Service(namespace, name)),
            ("address", rest) => rest.parse().ok().map(Self::Address),
            ("caller", rest) => rest.parse().ok().map(Self::Caller),
            ("namespace", rest) => Some(Self::Namespace(rest)),
            _ => None,
        }
    }
}
