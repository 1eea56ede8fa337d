//! From a question to a reply, without a socket.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use snapshot::{Answer, Endpoint, Index};

/// How long a client may keep an answer, in seconds: endpoints change.
const TTL: u32 = 5;
/// What fits into a datagram where the client does not say (RFC 1035).
const PLAIN_DATAGRAM: u16 = 512;
/// The largest datagram that is sent, whatever the client says (RFC 9715).
const MAX_DATAGRAM: u16 = 1232;
/// ExternalName may lead to ExternalName.
const MAX_CHAIN: usize = 8;

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// The namespace that short names are of.
    pub(crate) namespace: &'a str,
    /// Whether it asks over TCP, where every reply fits.
    pub(crate) stream: bool,
    /// Whether other names are asked elsewhere.
    pub(crate) forwards: bool,
}

/// What to do with a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Send this.
    Reply(Vec<u8>),
    /// Send this: the name is not the cluster's, and nobody else is asked.
    Refused(Vec<u8>, String),
    /// Ask the configured servers.
    Forward,
    /// Say nothing: it is not a question.
    Silence,
}

/// Answers a question from a snapshot. Never panics, whatever the bytes are.
pub(crate) fn answer(question: &[u8], asker: Asker<'_>, index: Option<&Index>) -> Verdict {
    let Ok(asked) = Message::from_vec(question) else {
        return malformed(question);
    };
    if asked.metadata.message_type != MessageType::Query {
        return Verdict::Silence;
    }
    let mut reply = response(&asked);
    let [query] = asked.queries.as_slice() else {
        return finish(&mut reply, ResponseCode::FormErr, &asked, asker);
    };
    if asked.metadata.op_code != OpCode::Query {
        return finish(&mut reply, ResponseCode::NotImp, &asked, asker);
    }
    if query.query_class() != DNSClass::IN {
        return finish(&mut reply, ResponseCode::Refused, &asked, asker);
    }
    // Before its first snapshot a proxy knows nobody: the client asks again.
    let Some(index) = index else {
        return finish(&mut reply, ResponseCode::ServFail, &asked, asker);
    };
    let code = match query.query_type() {
        RecordType::PTR => reverse(query, index, &mut reply),
        RecordType::SRV => service(query, index, asker, &mut reply),
        _ => addresses(query, index, asker, &mut reply),
    };
    match code {
        Some(code) => {
            if reply.answers.is_empty() {
                reply.add_authority(authority(index));
            }
            finish(&mut reply, code, &asked, asker)
        }
        None if asker.forwards => Verdict::Forward,
        None => {
            let name = text(query.name());
            match finish(&mut reply, ResponseCode::Refused, &asked, asker) {
                Verdict::Reply(bytes) => Verdict::Refused(bytes, name),
                other => other,
            }
        }
    }
}

/// Whether a reply is one to this question.
pub(super) fn replies(question: &[u8], reply: &[u8]) -> bool {
    let (Ok(asked), Ok(said)) = (Message::from_vec(question), Message::from_vec(reply)) else {
        return false;
    };
    said.metadata.message_type == MessageType::Response
        && said.metadata.id == asked.metadata.id
        && said.queries == asked.queries
}

/// The reply where everybody who was asked failed.
pub(super) fn failed(question: &[u8]) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).ok()?;
    let mut reply = response(&asked);
    reply.metadata.response_code = ResponseCode::ServFail;
    reply.to_vec().ok()
}

/// A, AAAA, CNAME and types that no name here has. `None`: the name is not the cluster's.
fn addresses(query: &Query, index: &Index, asker: Asker<'_>, reply: &mut Message) -> Option<ResponseCode> {
    let mut name = text(query.name());
    let mut owner = query.name().clone();
    let v6 = query.query_type() == RecordType::AAAA;
    for _ in 0..MAX_CHAIN {
        match index.resolve(&name, asker.namespace, v6) {
            Answer::Addresses(found) => {
                if matches!(query.query_type(), RecordType::A | RecordType::AAAA) {
                    for address in found {
                        reply.add_answer(record(&owner, data(address)));
                    }
                }
                return Some(ResponseCode::NoError);
            }
            Answer::NoData => return Some(ResponseCode::NoError),
            Answer::NxDomain if reply.answers.is_empty() => return Some(ResponseCode::NXDomain),
            Answer::NotOurs if reply.answers.is_empty() => return None,
            // The alias is ours, and what it stands for is not.
            Answer::NxDomain | Answer::NotOurs => return Some(ResponseCode::NoError),
            Answer::Cname(alias) => {
                let Ok(target) = Name::from_str(&format!("{}.", alias.as_str().trim_end_matches('.'))) else {
                    return Some(ResponseCode::ServFail);
                };
                reply.add_answer(record(&owner, RData::CNAME(CNAME(target.clone()))));
                if query.query_type() == RecordType::CNAME {
                    return Some(ResponseCode::NoError);
                }
                name = text(&target);
                owner = target;
            }
        }
    }
    Some(ResponseCode::ServFail)
}

/// PTR: of a Service's cluster address its name, of a pod's the name that DNS knows it by.
fn reverse(query: &Query, index: &Index, reply: &mut Message) -> Option<ResponseCode> {
    let Ok(network) = query.name().parse_arpa_name() else {
        return Some(ResponseCode::NXDomain);
    };
    let address = network.addr();
    let domain = &index.mesh().cluster_domain;
    let host = match (index.vip(address, 0), index.pod(address)) {
        (Some((service, _)), _) => Some(service.host.as_str().to_owned()),
        (None, Some(pod)) => {
            let dashed = address.to_string().replace(['.', ':'], "-");
            Some(format!("{dashed}.{}.pod.{domain}", pod.pod.namespace()))
        }
        (None, None) => None,
    };
    let name = host.and_then(|host| Name::from_str(&format!("{}.", host.trim_end_matches('.'))).ok())?;
    reply.add_answer(record(query.name(), RData::PTR(PTR(name))));
    Some(ResponseCode::NoError)
}

/// SRV of a named port: `_http._tcp.web.ns.svc.cluster.local` (Kubernetes DNS specification 2.3.2, 2.4.2).
fn service(query: &Query, index: &Index, asker: Asker<'_>, reply: &mut Message) -> Option<ResponseCode> {
    let name = text(query.name());
    let mut parts = name.splitn(3, '.');
    let (Some(port), Some(transport), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return addresses(query, index, asker, reply);
    };
    let (Some(port), Some(transport)) = (port.strip_prefix('_'), transport.strip_prefix('_')) else {
        return addresses(query, index, asker, reply);
    };
    let Some(service) = index.service_by_host(rest, asker.namespace) else {
        let known = index.resolve(rest, asker.namespace, false);
        return (known != Answer::NotOurs).then_some(ResponseCode::NXDomain);
    };
    let udp = transport.eq_ignore_ascii_case("udp");
    let found = service
        .ports
        .iter()
        .find(|p| p.name.eq_ignore_ascii_case(port) && (p.protocol == model::Protocol::Udp) == udp);
    let Some(found) = found else {
        return Some(ResponseCode::NXDomain);
    };
    let host = service.host.as_str().trim_end_matches('.');
    if service.headless {
        let named = |e: &&Endpoint| e.ready && e.ports.contains_key(&found.port);
        for endpoint in service.endpoints.iter().filter(named) {
            let own = endpoint.hostname.clone().or_else(|| {
                let first = endpoint.addresses.first()?;
                Some(first.to_string().replace(['.', ':'], "-"))
            });
            let target = own.and_then(|own| Name::from_str(&format!("{own}.{host}.")).ok());
            let port = endpoint.ports.get(&found.port).copied().unwrap_or(found.port);
            if let Some(target) = target {
                reply.add_answer(record(query.name(), RData::SRV(SRV::new(0, 100, port, target))));
            }
        }
    } else if let Ok(target) = Name::from_str(&format!("{host}.")) {
        reply.add_answer(record(
            query.name(),
            RData::SRV(SRV::new(0, 100, found.port, target)),
        ));
    }
    Some(ResponseCode::NoError)
}

fn response(asked: &Message) -> Message {
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    // As it was written, letter by letter: clients check it.
    reply.add_queries(asked.queries.iter().take(1).cloned());
    if asked.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_DATAGRAM);
        reply.set_edns(edns);
    }
    reply
}

fn finish(reply: &mut Message, code: ResponseCode, asked: &Message, asker: Asker<'_>) -> Verdict {
    reply.metadata.response_code = code;
    let Ok(bytes) = reply.to_vec() else {
        return Verdict::Silence;
    };
    let offered = asked.edns.as_ref().map_or(PLAIN_DATAGRAM, Edns::max_payload);
    let limit = usize::from(offered.clamp(PLAIN_DATAGRAM, MAX_DATAGRAM));
    if asker.stream || bytes.len() <= limit {
        return Verdict::Reply(bytes);
    }
    // What does not fit is asked again over TCP.
    match reply.truncate().to_vec() {
        Ok(bytes) => Verdict::Reply(bytes),
        Err(_) => Verdict::Silence,
    }
}

/// FORMERR for what has at least a query's header; nothing for the rest, which may be a reply to somebody else's forgery.
fn malformed(question: &[u8]) -> Verdict {
    let (Some(id), Some(flags)) = (
        question.get(..2).and_then(|b| b.first_chunk::<2>()),
        question.get(2),
    ) else {
        return Verdict::Silence;
    };
    if question.len() < 12 || flags & 0x80 != 0 {
        return Verdict::Silence;
    }
    let reply = Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, ResponseCode::FormErr);
    reply.to_vec().map_or(Verdict::Silence, Verdict::Reply)
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL, data)
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// What a negative answer is kept by (RFC 2308).
fn authority(index: &Index) -> Record {
    let domain = index.mesh().cluster_domain.trim_end_matches('.');
    let name = |text: String| Name::from_str(&text).unwrap_or_else(|_| Name::root());
    let soa = SOA::new(
        name(format!("ns.dns.{domain}.")),
        name(format!("hostmaster.{domain}.")),
        1,
        7200,
        1800,
        86400,
        TTL,
    );
    Record::from_rdata(name(format!("{domain}.")), TTL, RData::SOA(soa))
}

/// The name as text without the last dot.
fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests;
