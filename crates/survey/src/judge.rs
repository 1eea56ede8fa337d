//! Carries attempts out, and tells by the victim's record what came of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::Profile;
use serde_json::Value;

use crate::attempt::{Attempt, Means, OUTSIDE, Place, Sign, Target, legacy};
use crate::mesh::{Kept, Mesh, Pod, field};
use crate::row::{Evidence, Row};
use crate::witness::Witnesses;

/// How long a line of the log may take after what it tells of.
const LINE: Duration = Duration::from_millis(600);
/// How long a counter of dropped packets may take: proxies read them every second.
const COUNTER: Duration = Duration::from_millis(1500);
/// Lines about dropped packets come no closer than 5 s, each for all that were dropped since the one before.
const DROP_LINE: Duration = Duration::from_secs(9);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(50);
/// What stands for the address of the server outside, in objects.
const OUTSIDE_ADDRESS: &str = "$outside";
/// How much of a packet is shown.
const SHOWN: usize = 160;

/// Who carries out what is asked.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    mesh: &'a Mesh,
    profile: Profile,
    pods: BTreeMap<(String, String), Pod>,
    witnesses: Witnesses<'a>,
    log: Kept,
    /// The control plane's addresses.
    control: Vec<String>,
    /// Addresses of pages, of all parts.
    pages: Vec<String>,
    /// What was applied beside the world's own.
    config: String,
    /// What was said of it where not all of it came into force.
    held: Option<String>,
    rows: Vec<Waiting>,
}

/// A row whose line of the log may still come.
#[derive(Debug)]
struct Waiting {
    row: Row,
    /// The reason for which packets were dropped, and how many lines there were before.
    dropped: Option<(String, usize)>,
}

/// What an attempt came to on one pair of workloads.
#[derive(Debug)]
struct Came {
    /// What the caller saw.
    saw: String,
    /// What showed that it got through.
    sign: Option<String>,
    /// Whether the victim received it with the caller's identity beside it.
    carried: bool,
}

impl<'a> Judge<'a> {
    /// # Errors
    /// The mesh does not answer.
    pub(crate) fn new(mesh: &'a Mesh, profile: Profile) -> Result<Self, String> {
        let ports = mesh.json(&["ports"])?;
        let listed = ports.as_array().into_iter().flatten();
        let parts = listed.filter(|port| matches!(field(port, &["part"]), "ca" | "control"));
        let control = parts.map(|port| field(port, &["address"]).to_owned()).collect();
        let listed = ports.as_array().into_iter().flatten();
        let pages = listed.filter(|port| field(port, &["purpose"]).starts_with("metrics"));
        let pages = pages.map(|port| field(port, &["address"]).to_owned()).collect();
        Ok(Self {
            pods: mesh.pods()?,
            witnesses: Witnesses::new(mesh),
            log: mesh.follow()?,
            config: String::new(),
            held: None,
            rows: Vec::new(),
            mesh,
            profile,
            control,
            pages,
        })
    }

    /// Carries out one attempt, where it must work and where it must not.
    ///
    /// # Errors
    /// A part of the mesh is gone.
    pub(crate) fn attempt(&mut self, way: &Attempt) -> Result<(), String> {
        self.put_in_force(way)?;
        if let Some(place) = way.to.place() {
            self.witnesses.watch(place)?;
            self.witnesses.watch(place.twin())?;
        }
        let lines = self.log.len();
        let before = self.mesh.counters()?;
        let token = format!("mw-{}.", way.id);
        let (twin, came) = std::thread::scope(|scope| {
            let twin = scope.spawn(|| self.twin(way));
            let came = self.carry_out(way, way.from, way.to, &token);
            (twin.join(), came)
        });
        let came = came?;
        let twin = twin.map_err(|_| "the twin's attempt broke".to_owned())??;
        let lets = self.profile == Profile::Istio && way.lets.is_some();
        let mut evidence = Evidence {
            semantics: way.of,
            received: came.sign.clone(),
            twin: twin.sign.is_some(),
            twin_got: twin.sign.is_none().then_some(twin.saw),
            status: self.held.clone(),
            ..Evidence::default()
        };
        let through = came.sign.is_some();
        let dropped = if through || is_carried(way) {
            if came.carried && !through {
                evidence.note = Some(format!("the server received it as {}", caller(way.from)));
            }
            None
        } else {
            self.explain(way, lines, &before, &mut evidence)?
        };
        let victim = match (way.sign, through) {
            (Sign::Answered, true) => "; it was answered",
            (Sign::Answered, false) => "; nothing was answered",
            (Sign::Opened(_), true) => "; the application was reached",
            (Sign::Opened(_), false) => "; the application saw nothing",
            (_, true) => "; the victim received it",
            (_, false) if came.carried => "",
            (_, false) => "; the victim received nothing",
        };
        let row = Row {
            id: way.id,
            title: way.title,
            expect: expectation(way, lets),
            got: format!("{}{victim}", came.saw),
            through,
            evidence,
            lets,
        };
        self.rows.push(Waiting { row, dropped });
        Ok(())
    }

    /// All that came of it, once the last lines are there and every record has shown that it is still made.
    ///
    /// # Errors
    /// A record is not made any more.
    pub(crate) fn finish(self) -> Result<Vec<Row>, String> {
        for place in self.witnesses.places() {
            self.witnesses.awake(place)?;
        }
        let end = Instant::now() + DROP_LINE;
        let lines = || self.log.since(0);
        let missing = |lines: &[Value]| {
            let mut waiting = self.rows.iter().filter_map(|waiting| waiting.dropped.as_ref());
            waiting.any(|(reason, from)| drop_line(lines, reason, *from).is_none())
        };
        while missing(&lines()) && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        let lines = lines();
        let rows = self.rows.into_iter().map(|waiting| {
            let mut row = waiting.row;
            if let Some((reason, from)) = &waiting.dropped {
                row.evidence.log = drop_line(&lines, reason, *from);
            }
            row
        });
        Ok(rows.collect())
    }

    /// Makes what the attempt wants in force, and nothing else.
    fn put_in_force(&mut self, way: &Attempt) -> Result<(), String> {
        let own = match self.profile {
            Profile::Secure => way.secure,
            Profile::Istio => way.istio,
        };
        let wanted = way
            .config
            .iter()
            .chain(own)
            .copied()
            .collect::<Vec<_>>()
            .join("\n---\n");
        let wanted = match wanted.contains(OUTSIDE_ADDRESS) {
            true => wanted.replace(OUTSIDE_ADDRESS, &self.pod(OUTSIDE)?.ip),
            false => wanted,
        };
        if wanted == self.config {
            return Ok(());
        }
        if !self.config.is_empty() {
            self.change("delete", &self.config)?;
        }
        self.held = if wanted.is_empty() {
            None
        } else {
            self.change("apply", &wanted)?
        };
        self.config = wanted;
        Ok(())
    }

    /// Changes objects. What is said of one that is taken and does not come into force as written is given back.
    fn change(&self, verb: &str, text: &str) -> Result<Option<String>, String> {
        let done = self.mesh.run(&[verb, "-f", "-"], text)?;
        let held = done.stdout.lines().find(|line| line.contains("not in force"));
        match (done.code, held) {
            (0, _) => Ok(None),
            (1, Some(line)) => Ok(Some(line.to_owned())),
            (code, _) => Err(format!(
                "{verb} ended with {code}: {}{}\n{text}",
                done.stdout, done.stderr
            )),
        }
    }

    /// The same, by the twins.
    fn twin(&self, way: &Attempt) -> Result<Came, String> {
        let to = match way.to {
            Target::Service(place) => Target::Service(place.twin()),
            Target::Pod(place) => Target::Pod(place.twin()),
            Target::Pod6(place) => Target::Pod6(place.twin()),
            // Somebody who does answer at one of the ports.
            Target::Control | Target::Pages => Target::Pod(legacy("httpbin")),
            Target::Loopback => Target::Loopback,
        };
        self.carry_out(way, way.from.twin(), to, &format!("tw-{}.", way.id))
    }

    fn carry_out(&self, way: &Attempt, from: Place, to: Target, token: &str) -> Result<Came, String> {
        let victim = to.place();
        let server = match to {
            // On the way to a pod's own proxy there is nobody to answer but in the twin.
            Target::Loopback => (from == way.from.twin()).then_some(from),
            _ => victim,
        };
        let served = server.filter(|_| !way.serve.is_empty());
        let _served = match served {
            Some(place) => Some(self.serve(place, way.serve)?),
            None => None,
        };
        let mark = match victim.filter(|_| way.to.place().is_some()) {
            Some(place) => Some((place, self.witnesses.mark(place)?)),
            None => None,
        };
        if let Some(script) = way.who.after {
            self.mesh.exec(from, &["sh", "-c", script])?;
        }
        let (mut saw, mut answered) = (Vec::new(), None);
        for address in self.addresses(way, to)? {
            let done = self.mesh.exec(from, &texts(&words(way, &address, token)))?;
            let said: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
            let outcome = field(&said, &["outcome"]);
            if outcome.is_empty() {
                saw.push(format!("not sent: {}", done.stderr.trim()));
            } else {
                saw.push(outcome.to_owned());
            }
            // A page for metrics that says that it has no such page has told nothing.
            let no_page = to == Target::Control && outcome == "http-404";
            if is_answer(outcome, field(&said, &["data"])) && !no_page {
                answered = Some(format!("{address}: {outcome}"));
            }
        }
        let sign = match (mark, way.sign) {
            (_, Sign::Answered) => answered,
            (Some((place, mark)), sign) => self.sign(place, mark, sign, token, from),
            (None, _) => None,
        };
        let identity = caller(from);
        let carried = is_carried(way)
            && mark.is_some_and(|(place, mark)| {
                self.sign(place, mark, Sign::Told(&identity), token, from)
                    .is_some()
            });
        saw.sort();
        saw.dedup();
        Ok(Came {
            saw: saw.join(", "),
            sign,
            carried,
        })
    }

    fn serve(&self, place: Place, words: &str) -> Result<Kept, String> {
        let words: Vec<_> = words.split(' ').collect();
        self.mesh.keep(place, &words).map_err(|why| {
            format!(
                "`{}` in {}/{}: {why}",
                words.join(" "),
                place.namespace,
                place.workload
            )
        })
    }

    /// Whether the victim's record holds what shows that it got through.
    fn sign(&self, place: Place, mark: usize, sign: Sign<'_>, token: &str, from: Place) -> Option<String> {
        let pod = self.pod(place).ok()?;
        let identity = caller(from);
        let found = self.witnesses.received(place, &pod, mark, |packet| {
            let data = field(packet, &["data"]);
            match sign {
                Sign::Received => data.contains(token),
                Sign::Anonymous => data.contains(token) && !data.contains(&identity),
                Sign::Told(text) => data.contains(token) && data.contains(text),
                Sign::Opened(port) => packet["syn"] == true && packet["port"] == port,
                Sign::Answered => false,
            }
        })?;
        let line: String = found.to_string().chars().take(SHOWN).collect();
        Some(line)
    }

    fn pod(&self, place: Place) -> Result<Pod, String> {
        let key = (place.namespace.to_owned(), place.workload.to_owned());
        let found = self.pods.get(&key).cloned();
        found.ok_or_else(|| format!("there is no pod of {}/{}", place.namespace, place.workload))
    }

    /// Where it is sent to: addresses with a port, or without one where the means has none.
    fn addresses(&self, way: &Attempt, to: Target) -> Result<Vec<String>, String> {
        let hosts = match to {
            Target::Service(place) => vec![format!("{}.{}", place.workload, place.namespace)],
            Target::Pod(place) => vec![self.pod(place)?.ip],
            Target::Pod6(place) => vec![format!("[{}]", self.pod(place)?.ip6)],
            Target::Loopback => vec!["127.0.0.1".to_owned()],
            Target::Pages => return Ok(self.pages.clone()),
            Target::Control => {
                let hosts = self.control.iter().filter_map(|address| address.rsplit_once(':'));
                let mut hosts: Vec<_> = hosts.map(|(host, _)| host.to_owned()).collect();
                hosts.sort();
                hosts.dedup();
                hosts
            }
        };
        let ports: &[u16] = match &way.means {
            Means::Http(port, ..) | Means::Tcp(port, _) | Means::Listen(port) | Means::Udp(port) => {
                std::slice::from_ref(port)
            }
            Means::Ports(ports) => ports,
            // The twin's server has pages of its own.
            Means::Page(_) => &[8080],
            Means::Raw(_) => return Ok(hosts),
        };
        let pairs = hosts
            .iter()
            .flat_map(|host| ports.iter().map(move |port| format!("{host}:{port}")));
        let mut all: Vec<_> = pairs.collect();
        if to == Target::Control {
            all.extend(self.control.iter().cloned());
            all.sort();
            all.dedup();
        }
        Ok(all)
    }

    /// Looks for the line and the counter by which it was refused.
    fn explain(
        &self,
        way: &Attempt,
        lines: usize,
        before: &BTreeMap<String, u64>,
        evidence: &mut Evidence,
    ) -> Result<Option<(String, usize)>, String> {
        let end = Instant::now() + LINE;
        let refusal = loop {
            let new = self.log.since(lines);
            let mut ours = new.iter().filter(|line| self.is_refusal_of(way, line));
            let denied = ours
                .clone()
                .find(|line| field(line, &["decision"]) == "deny")
                .cloned();
            // The other side's line says less: it sees only that it was refused.
            if denied.is_some() || Instant::now() > end {
                break denied.or_else(|| ours.next().cloned());
            }
            std::thread::sleep(POLL);
        };
        let reason = refusal.as_ref().map(|line| field(line, &["reason"]).to_owned());
        let end = Instant::now() + COUNTER;
        loop {
            let now = self.mesh.counters()?;
            let mut grown = now
                .iter()
                .filter(|(name, count)| **count > before.get(*name).copied().unwrap_or(0));
            let found = match &reason {
                Some(reason) => grown.find(|(name, _)| *name == reason),
                // Dropped packets have names in lower case.
                None => grown.find(|(name, _)| name.chars().all(|c| !c.is_ascii_uppercase())),
            };
            if let Some((name, _)) = found {
                if let Some(line) = refusal {
                    evidence.log = Some(shown(&line));
                    evidence.metric = Some(format!("meshward_denials_total{{reason=\"{name}\"}}"));
                    return Ok(None);
                }
                evidence.metric = Some(format!(
                    "meshward_capture_dropped_packets_total{{reason=\"{name}\"}}"
                ));
                return Ok(Some((name.clone(), lines)));
            }
            if Instant::now() > end {
                break;
            }
            std::thread::sleep(POLL);
        }
        evidence.log = refusal.as_ref().map(shown);
        if evidence.log.is_none() || evidence.metric.is_none() {
            evidence.note = unlogged(way).map(str::to_owned);
        }
        Ok(None)
    }

    /// Whether a line of the log refuses what this attempt's caller did, or what was done to its victim.
    fn is_refusal_of(&self, way: &Attempt, line: &Value) -> bool {
        let of = |side: &str, place: Place| {
            let own = field(line, &[side, "namespace"]) == place.namespace
                && field(line, &[side, "workload"]) == place.workload;
            let address = field(line, &[side, "address"]);
            let by_address = self.pod(place).is_ok_and(|pod| {
                address.starts_with(&format!("{}:", pod.ip))
                    || address.starts_with(&format!("[{}]:", pod.ip6))
            });
            own || by_address
        };
        !field(line, &["reason"]).is_empty()
            && (of("source", way.from) || way.to.place().is_some_and(|place| of("destination", place)))
    }
}

/// What the attempt's own program is told.
fn words(way: &Attempt, address: &str, token: &str) -> Vec<String> {
    let mut words: Vec<String> = ["probe".to_owned()].into();
    let mut put = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let own_host = format!("Host: {host}");
    match way.means {
        Means::Http(_, start, headers) => {
            let mut lines = vec![format!("{start}{token} HTTP/1.1")];
            if !headers.iter().any(|line| line.starts_with("Host:")) {
                lines.push(own_host);
            }
            lines.extend(headers.iter().map(|line| (*line).to_owned()));
            lines.push("Connection: close".to_owned());
            let text = lines.join("\\r\\n") + "\\r\\n\\r\\n";
            put(&["tcp", "--wait", "2", "--send", &text]);
        }
        Means::Ports(_) => {
            let text = format!(
                "GET /debug/configz?{token} HTTP/1.1\\r\\n{own_host}\\r\\nConnection: close\\r\\n\\r\\n"
            );
            put(&["tcp", "--wait", "1", "--send", &text]);
        }
        Means::Page(path) => {
            let text =
                format!("GET {path}?{token} HTTP/1.1\\r\\n{own_host}\\r\\nConnection: close\\r\\n\\r\\n");
            put(&["tcp", "--wait", "1", "--send", &text]);
        }
        Means::Tcp(_, text) => put(&["tcp", "--wait", "1", "--send", &format!("{text}{token}\\r\\n")]),
        Means::Listen(_) => put(&["tcp", "--read-first", "--wait", "1", "--send", token]),
        Means::Udp(_) => put(&["udp", "--wait", "0.3", "--send", token]),
        Means::Raw(protocol) => put(&["raw", "--protocol", &protocol.to_string(), "--send", token]),
    }
    put(&["--addr", address]);
    let who = way.who;
    for (option, value) in [("--uid", who.uid), ("--gid", who.gid), ("--mark", who.mark)] {
        if let Some(value) = value {
            put(&[option, &value.to_string()]);
        }
    }
    words
}

/// Whether somebody answered what was asked: not a TLS alert, which says that it was not understood, and not a proxy that says that
/// it goes nowhere.
fn is_answer(outcome: &str, data: &str) -> bool {
    let refusal = ["http-502", "http-503"].contains(&outcome);
    !data.is_empty() && !refusal && !data.starts_with("\u{15}\u{3}")
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The service account of a workload of the samples.
fn account(place: Place) -> &'static str {
    match place.workload {
        "httpbin" | "banner" | "sleep" => place.workload,
        _ => "attacker",
    }
}

fn caller(place: Place) -> String {
    format!(
        "spiffe://cluster.local/ns/{}/sa/{}",
        place.namespace,
        account(place)
    )
}

/// Whether it is to arrive, and only by whose word is asked.
fn is_carried(way: &Attempt) -> bool {
    matches!(way.sign, Sign::Anonymous | Sign::Told(_))
}

/// What should come of it.
fn expectation(way: &Attempt, lets: bool) -> String {
    match (way.lets, way.slips) {
        (Some(why), _) if lets => format!("let through: {why}"),
        _ if is_carried(way) => "carried with the caller's identity".to_owned(),
        (_, Some(why)) => format!("refused, which Istio does not: {why}"),
        _ => "refused".to_owned(),
    }
}

/// Why nothing is logged where nothing need be.
fn unlogged(way: &Attempt) -> Option<&'static str> {
    match (way.to, way.means) {
        (Target::Pages, _) => {
            Some("no proxy stands between: the part itself resets the connection, and says so in its own log")
        }
        (Target::Control | Target::Loopback, _) => Some(
            "no proxy stands between: what listens there wants TLS and an identity before it says anything, pages of metrics have nothing of it, and elsewhere nothing listens",
        ),
        (_, Means::Udp(53)) => Some("answered by the mesh's own DNS, whichever server was asked"),
        _ => None,
    }
}

/// A line in short.
fn shown(line: &Value) -> String {
    let reason = field(line, &["reason"]);
    let policy = match (
        field(line, &["policy", "namespace"]),
        field(line, &["policy", "name"]),
    ) {
        ("", _) | (_, "") => String::new(),
        (namespace, name) => format!(" by {namespace}/{name}"),
    };
    format!(
        "{reason}{policy}, said by the {}'s proxy",
        field(line, &["reporter"])
    )
}

/// The line about packets that were dropped for this reason, among those after the first `from`.
fn drop_line(lines: &[Value], reason: &str, from: usize) -> Option<String> {
    let mut new = lines.iter().skip(from);
    let found = new.find(|line| field(line, &["kind"]) == "drop" && field(line, &["details"]) == reason)?;
    let message = field(found, &["message"]);
    Some(format!(
        "{message}, said by the {}'s proxy",
        field(found, &["reporter"])
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ways;

    #[test]
    fn every_probe_carries_the_token_and_says_where() {
        for way in ways::all() {
            let words = words(way, "10.0.0.1:80", "tok");
            let at = words.iter().position(|word| word == "--send").unwrap();
            assert!(words[at + 1].contains("tok"), "{}: {words:?}", way.id);
            assert!(words.iter().any(|word| word == "10.0.0.1:80"), "{}", way.id);
        }
    }

    #[test]
    fn an_alert_and_a_refusal_by_ones_own_proxy_are_no_answers() {
        for (outcome, data, expect) in [
            ("http-200", "HTTP/1.1 200 OK", true),
            ("http-404", "HTTP/1.1 404 Not Found", true),
            ("http-502", "HTTP/1.1 502 Bad Gateway", false),
            ("data+closed", "\u{15}\u{3}\u{1}\0\u{2}\u{2}2", false),
            ("data+closed", "hello", true),
            ("reset", "", false),
        ] {
            assert_eq!(is_answer(outcome, data), expect, "{outcome} {data:?}");
        }
    }

    #[test]
    fn a_host_of_ones_own_stands_alone() {
        let forged = ways::all().find(|way| way.id == "registry-only-host").unwrap();
        let text = words(forged, "10.0.0.1:80", "tok").join(" ");
        assert_eq!(text.matches("Host:").count(), 1, "{text}");
    }

    #[test]
    fn a_drop_is_told_by_a_line_that_came_later() {
        let lines = [
            json!({"kind": "drop", "details": "udp", "message": "1 packets dropped: udp", "reporter": "source"}),
            json!({"kind": "drop", "details": "icmp", "message": "2 packets dropped: icmp", "reporter": "source"}),
        ];
        assert!(drop_line(&lines, "udp", 0).is_some());
        assert!(drop_line(&lines, "udp", 1).is_none());
        assert_eq!(
            drop_line(&lines, "icmp", 1).unwrap(),
            "2 packets dropped: icmp, said by the source's proxy"
        );
    }
}
