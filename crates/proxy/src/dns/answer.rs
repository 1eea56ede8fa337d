//! What is answered to a question: bytes in, bytes out, nothing waited for.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use model::Protocol;
use snapshot::{Answer, Endpoint, Index, Lacks, ResourceName, Service};

/// How long an answer may be kept, in seconds: as cluster DNS has it.
pub(super) const TTL: u32 = 5;

/// The largest answer over UDP, whatever the asker takes: what passes everywhere without fragments.
pub(super) const MAX_UDP: u16 = 1232;

/// The largest answer over UDP to an asker that says nothing (RFC 1035, 4.2.1).
const MIN_UDP: u16 = 512;

/// The most records of one answer.
const MAX_RECORDS: usize = 1000;

/// ExternalName may point to ExternalName; a chain longer than this is taken as a loop.
const MAX_ALIASES: usize = 8;

/// By what a question came, which says how long an answer may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// This is the answer.
    Reply(Vec<u8>),
    /// It is about a name of the world outside, and there is nobody to ask: this is the answer.
    Refused(Vec<u8>, String),
    /// Somebody else is to be asked.
    Forward(Box<Forward>),
    /// These have to be known before it can be answered; this is the answer where they cannot be.
    Unknown(Vec<ResourceName>, Vec<u8>),
    /// It deserves no answer: it is too short to have an id, or is an answer itself.
    Ignored,
}

/// A question that somebody else knows the answer to.
#[derive(Debug)]
pub(super) struct Forward {
    /// The answer as far as it goes: the asker's question, and aliases that lead out of the cluster.
    reply: Message,
    /// What to ask.
    pub(super) question: Query,
    limit: usize,
}

impl Forward {
    /// The answer with what the other server said.
    pub(super) fn with(mut self, other: Message) -> Vec<u8> {
        self.reply.metadata.response_code = other.metadata.response_code;
        self.reply.metadata.authoritative = false;
        self.reply
            .answers
            .extend(other.answers.into_iter().take(MAX_RECORDS));
        self.reply
            .authorities
            .extend(other.authorities.into_iter().take(MAX_RECORDS));
        encode(&self.reply, self.limit)
    }

    /// Nobody answered.
    pub(super) fn failed(mut self) -> Vec<u8> {
        self.reply.answers.clear();
        self.reply.metadata.response_code = ResponseCode::ServFail;
        encode(&self.reply, self.limit)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) namespace: &'a str,
    /// Whether a proxy stands before it.
    pub(super) meshed: bool,
}

/// Answers a question of a workload, as cluster DNS does. Without an index there is no answer yet; with
/// `upstreams`, names that are not the cluster's are somebody else's to answer.
pub(super) fn answer(
    query: &[u8],
    asking: Asking<'_>,
    index: Option<&Index>,
    transport: Transport,
    upstreams: bool,
) -> Outcome {
    let Some(id) = question_id(query) else {
        return Outcome::Ignored;
    };
    let Ok(message) = Message::from_vec(query) else {
        let broken = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return Outcome::Reply(encode(&broken, usize::from(MIN_UDP)));
    };
    let limit = limit(&message, transport);
    let mut reply = reply_to(&message, upstreams);
    let refuse = |mut reply: Message, code| {
        reply.metadata.response_code = code;
        Outcome::Reply(encode(&reply, limit))
    };
    if message.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return refuse(reply, ResponseCode::BADVERS);
    }
    if message.metadata.op_code != OpCode::Query {
        return refuse(reply, ResponseCode::NotImp);
    }
    let [question] = message.queries.as_slice() else {
        return refuse(reply, ResponseCode::FormErr);
    };
    if question.query_class() != DNSClass::IN {
        return refuse(reply, ResponseCode::Refused);
    }
    let Some(index) = index else {
        return refuse(reply, ResponseCode::ServFail);
    };
    reply.metadata.authoritative = true;
    let lacks = Lacks::default();
    let zone = Zone {
        index,
        namespace: asking.namespace,
        meshed: asking.meshed,
        lacks: &lacks,
    };
    let found = zone.look_up(question, &mut reply);
    if !lacks.is_empty() {
        let mut failed = reply_to(&message, upstreams);
        failed.metadata.response_code = ResponseCode::ServFail;
        return Outcome::Unknown(lacks.into_names(), encode(&failed, limit));
    }
    match found {
        Found::Yes => {
            reply.answers.truncate(MAX_RECORDS);
            Outcome::Reply(encode(&reply, limit))
        }
        Found::NoData => Outcome::Reply(encode(&zone.negative(reply, ResponseCode::NoError), limit)),
        Found::No => Outcome::Reply(encode(&zone.negative(reply, ResponseCode::NXDomain), limit)),
        Found::Elsewhere(name) if upstreams => {
            let question = Query::query(name, question.query_type());
            Outcome::Forward(Box::new(Forward {
                reply,
                question,
                limit,
            }))
        }
        // What is known of the way there is said: an alias that leads out of the cluster.
        Found::Elsewhere(_) if !reply.answers.is_empty() => Outcome::Reply(encode(&reply, limit)),
        Found::Elsewhere(name) => {
            reply.metadata.authoritative = false;
            reply.metadata.response_code = ResponseCode::Refused;
            Outcome::Refused(encode(&reply, limit), name.to_ascii())
        }
    }
}

/// The id, where there is a whole header and it is a question's.
fn question_id(query: &[u8]) -> Option<u16> {
    let header = query.first_chunk::<12>()?;
    let [high, low, flags, ..] = *header;
    (flags & 0x80 == 0).then(|| u16::from_be_bytes([high, low]))
}

fn limit(message: &Message, transport: Transport) -> usize {
    let takes = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => message
            .edns
            .as_ref()
            .map_or(MIN_UDP, |e| e.max_payload().clamp(MIN_UDP, MAX_UDP)),
    };
    usize::from(takes)
}

fn reply_to(message: &Message, upstreams: bool) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = upstreams;
    // The asker's own spelling comes back: some tell a forged answer by it. Several questions are refused without
    // being repeated, so that no reply outgrows its limit.
    if let [question] = message.queries.as_slice() {
        reply.queries.push(question.clone());
    }
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        reply.edns = Some(edns);
    }
    reply
}

/// What does not fit is not sent in part: the asker comes again over TCP.
fn encode(message: &Message, limit: usize) -> Vec<u8> {
    let whole = message.to_vec().unwrap_or_default();
    if !whole.is_empty() && whole.len() <= limit {
        return whole;
    }
    let mut short = message.truncate();
    short.additionals.clear();
    short.metadata.message_type = MessageType::Response;
    short.edns.clone_from(&message.edns);
    short.to_vec().unwrap_or_default()
}

/// What was found of a name; records are in the reply.
enum Found {
    Yes,
    NoData,
    No,
    Elsewhere(Name),
}

struct Zone<'a> {
    index: &'a Index,
    namespace: &'a str,
    meshed: bool,
    lacks: &'a Lacks,
}

impl Zone<'_> {
    fn look_up(&self, question: &Query, reply: &mut Message) -> Found {
        let name = question.name();
        if let Some(address) = reverse(name) {
            return self.reverse(name, address, question.query_type(), reply);
        }
        let Some(text) = text(name) else {
            return self.foreign(name);
        };
        if text.starts_with('_') {
            return self.port(name, &text, question.query_type(), reply);
        }
        match question.query_type() {
            RecordType::A => self.addresses(name, text, false, reply),
            RecordType::AAAA => self.addresses(name, text, true, reply),
            kind => match self.resolve(&text, false) {
                Answer::Cname(target) if kind == RecordType::CNAME => {
                    let Some(target) = absolute(target.as_str()) else {
                        return Found::NoData;
                    };
                    reply.add_answer(record(name, RData::CNAME(CNAME(target))));
                    Found::Yes
                }
                Answer::NotOurs => self.foreign(name),
                Answer::NxDomain => Found::No,
                Answer::Addresses(_) | Answer::NoData | Answer::Cname(_) => Found::NoData,
            },
        }
    }

    fn resolve(&self, text: &str, v6: bool) -> Answer {
        if self.meshed {
            self.index.resolve(text, self.namespace, v6, self.lacks)
        } else {
            self.index.resolve_plain(text, self.namespace, v6, self.lacks)
        }
    }

    fn addresses(&self, name: &Name, text: String, v6: bool, reply: &mut Message) -> Found {
        let (mut name, mut text) = (name.clone(), text);
        for _ in 0..MAX_ALIASES {
            match self.resolve(&text, v6) {
                Answer::Addresses(found) => {
                    for address in found.into_iter().take(MAX_RECORDS) {
                        reply.add_answer(record(&name, RData::from(address)));
                    }
                    return Found::Yes;
                }
                Answer::Cname(target) => {
                    let Some(target_name) = absolute(target.as_str()) else {
                        return Found::NoData;
                    };
                    reply.add_answer(record(&name, RData::CNAME(CNAME(target_name.clone()))));
                    (name, text) = (target_name, target.as_str().to_owned());
                }
                Answer::NoData => return Found::NoData,
                Answer::NxDomain => return Found::No,
                Answer::NotOurs => return self.foreign(&name),
            }
        }
        Found::NoData
    }

    /// A name without a dot is one of a search path, and nobody's outside; one below our zone is ours to deny.
    fn foreign(&self, name: &Name) -> Found {
        let ours = absolute(&self.index.mesh().cluster_domain).is_some_and(|zone| zone.zone_of(name));
        if ours || name.num_labels() < 2 {
            return Found::No;
        }
        Found::Elsewhere(name.clone())
    }

    fn reverse(&self, name: &Name, address: IpAddr, kind: RecordType, reply: &mut Message) -> Found {
        let domain = &self.index.mesh().cluster_domain;
        let target = match self.index.vip(address, 0) {
            Some((service, _)) => service.host.as_str().to_owned(),
            None => match self.index.pod_at(address, self.lacks) {
                Some(pod) => pod_name(address, pod.pod.namespace(), domain),
                None => return Found::Elsewhere(name.clone()),
            },
        };
        match absolute(&target) {
            Some(target) if kind == RecordType::PTR => {
                reply.add_answer(record(name, RData::PTR(PTR(target))));
                Found::Yes
            }
            _ => Found::NoData,
        }
    }

    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc…` (Kubernetes DNS specification 2.3.2, 2.4.2).
    fn port(&self, name: &Name, text: &str, kind: RecordType, reply: &mut Message) -> Found {
        let mut labels = text.splitn(3, '.');
        let (Some(port), Some(transport), Some(host)) = (labels.next(), labels.next(), labels.next()) else {
            return self.foreign(name);
        };
        let port = port.strip_prefix('_').unwrap_or(port).to_ascii_lowercase();
        let udp = transport.eq_ignore_ascii_case("_udp");
        if !udp && !transport.eq_ignore_ascii_case("_tcp") {
            return self.foreign(name);
        }
        let Some(service) = self.index.service_by_host(host, self.namespace, self.lacks) else {
            return self.foreign(name);
        };
        let is = |p: &&snapshot::ServicePort| p.name == port && (p.protocol == Protocol::Udp) == udp;
        let Some(port) = service.ports.iter().find(is).filter(|_| !port.is_empty()) else {
            return Found::No;
        };
        if kind != RecordType::SRV {
            return Found::NoData;
        }
        if service.headless {
            self.endpoints(name, &service, port.port, reply)
        } else {
            self.target(name, service.host.as_str(), port.port, &service.vips, reply)
        }
        if reply.answers.is_empty() {
            return Found::No;
        }
        Found::Yes
    }

    fn endpoints(&self, name: &Name, service: &Service, port: u16, reply: &mut Message) {
        let ready = service.endpoints.iter().filter(|e| e.ready);
        for endpoint in ready.take(MAX_RECORDS) {
            let Some(port) = endpoint.ports.get(&port) else {
                continue;
            };
            if let Some(target) = self.endpoint_name(service, endpoint) {
                self.target(name, &target, *port, &endpoint.addresses, reply);
            }
        }
    }

    fn endpoint_name(&self, service: &Service, endpoint: &Endpoint) -> Option<String> {
        if let Some(hostname) = &endpoint.hostname {
            return Some(format!("{hostname}.{}", service.host.as_str()));
        }
        let address = *endpoint.addresses.first()?;
        let pod = self.index.pod(address)?;
        let domain = &self.index.mesh().cluster_domain;
        Some(pod_name(address, pod.pod.namespace(), domain))
    }

    fn target(&self, name: &Name, target: &str, port: u16, addresses: &[IpAddr], reply: &mut Message) {
        let Some(target) = absolute(target) else {
            return;
        };
        for address in addresses {
            reply.add_additional(record(&target, RData::from(*address)));
        }
        reply.add_answer(record(name, RData::SRV(SRV::new(0, 100, port, target))));
    }

    fn negative(&self, mut reply: Message, code: ResponseCode) -> Message {
        reply.metadata.response_code = code;
        let domain = &self.index.mesh().cluster_domain;
        let names = (
            absolute(domain),
            absolute(&format!("ns.dns.{domain}")),
            absolute(&format!("hostmaster.{domain}")),
        );
        if let (Some(zone), Some(server), Some(contact)) = names {
            let soa = SOA::new(server, contact, 1, 7200, 1800, 86_400, TTL);
            reply.add_authority(record(&zone, RData::SOA(soa)));
        }
        reply
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// `10-77-0-2.NAMESPACE.pod.DOMAIN`.
fn pod_name(address: IpAddr, namespace: &str, domain: &str) -> String {
    let dashed = match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        // Written out: a label may neither begin nor end with a dash.
        IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:x}")).join("-"),
    };
    format!("{dashed}.{namespace}.pod.{domain}")
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The name as text, where its labels are such as the cluster has: a dot within a label would be read as two.
fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !label.iter().all(plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    (!text.is_empty()).then_some(text)
}

/// The address that a whole name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

#[cfg(test)]
mod tests;
