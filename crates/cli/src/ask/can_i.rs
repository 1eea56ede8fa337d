//! `can-i`: one question, answered by the function that proxies run.

use std::fmt::Write as _;

use admin::Failure;
use admin::verbs;
use analysis::{Answer, Caller, Decision, Headers, Question, Speaks};
use serde_json::{Map, Value};

use super::args::{CanI, From};
use super::{load, target};
use crate::mesh::{Mesh, last};
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::clean;

/// The largest file that holds a token.
const MAX_TOKEN: usize = 64 * 1024;

pub(crate) async fn can_i(mesh: &Mesh, asked: &CanI, out: &mut Out) -> Done {
    let question = question(asked)?;
    let answer = if asked.files.files.is_empty() {
        let encode = |error: serde_json::Error| Failure::undecided(error.to_string());
        let body = verbs::CanI {
            question: serde_json::to_value(&question).map_err(encode)?,
            custom: serde_json::to_value(asked.custom.providers()).map_err(encode)?,
        };
        last(mesh.control("can-i", &body).await?).await?
    } else {
        let mut world = load::world(&asked.files, out).await?;
        world
            .prepare([&question.to].into_iter())
            .map_err(|error| Failure::undecided(error.to_string()))?;
        world.ask(&question, &asked.custom.providers(), true)
    };
    if !asked.quiet {
        match asked.output {
            Some(_) => out.json(&answer)?,
            None => {
                let text = render(&question, &answer, out.colour);
                out.print(&text)?;
            }
        }
    }
    Ok(code(answer.decision))
}

/// The exit code that goes with a decision.
pub(crate) fn code(decision: Decision) -> u8 {
    match decision {
        Decision::Allow => 0,
        Decision::Deny => 1,
        Decision::Unknown => 2,
    }
}

fn question(asked: &CanI) -> Result<Question<'static>, Stop> {
    let (from, outside) = match &asked.from {
        From::Account {
            trust_domain,
            namespace,
            name,
        } => {
            let caller = Caller {
                namespace: namespace.clone().into(),
                service_account: name.clone().into(),
                trust_domain: trust_domain.clone().map(Into::into),
            };
            (Some(caller), None)
        }
        From::Address(address) => (None, Some(*address)),
    };
    let mut headers = Headers::default();
    for (name, value) in &asked.header {
        let value = value.clone().into();
        match headers
            .0
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            Some((_, values)) => values.push(value),
            None => headers.0.push((name.clone().into(), vec![value])),
        }
    }
    Ok(Question {
        from,
        plaintext: asked.plaintext,
        source_ip: asked.ip.or(outside),
        remote_ip: asked.remote_ip,
        to: asked.to.clone(),
        protocol: asked.tcp.then_some(Speaks::Tcp),
        method: asked.method.clone().map(Into::into),
        path: asked.path.clone().map(Into::into),
        host: asked.host.clone().map(Into::into),
        headers,
        claims: claims(&asked.claim)?,
        token: asked.jwt.as_deref().map(token).transpose()?.map(Into::into),
        sni: asked.sni.clone().map(Into::into),
        time: Some(now()),
        ..Question::default()
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

fn token(text: &str) -> Result<String, Failure> {
    let Some(file) = text.strip_prefix('@') else {
        return Ok(text.to_owned());
    };
    let read = std::fs::read_to_string(file)
        .map_err(|error| Failure::input(format!("cannot read `{file}`: {error}")))?;
    if read.len() > MAX_TOKEN {
        return Err(Failure::input(format!("`{file}` is too long for a token")));
    }
    Ok(read.trim().to_owned())
}

/// `a=1`, `a[b]=2`; what is said twice is a list.
fn claims(pairs: &[(String, String)]) -> Result<Option<Value>, Failure> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut claims = Map::new();
    for (name, value) in pairs {
        let mut names = name.split('[').map(|part| part.trim_end_matches(']'));
        let first = names.next().unwrap_or_default();
        let mut at = claims.entry(first).or_insert(Value::Null);
        for name in names {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(inner) = at else {
                return Err(Failure::usage(format!(
                    "the claim `{name}` is both a value and an object"
                )));
            };
            at = inner.entry(name).or_insert(Value::Null);
        }
        match at {
            Value::Null => *at = Value::String(value.clone()),
            Value::Array(list) => list.push(Value::String(value.clone())),
            Value::Object(_) => {
                return Err(Failure::usage(format!(
                    "the claim `{name}` is both a value and an object"
                )));
            }
            _ => {
                let one = at.take();
                *at = Value::Array(vec![one, Value::String(value.clone())]);
            }
        }
    }
    Ok(Some(Value::Object(claims)))
}

/// The answer in a line, why, and the steps that led to it.
fn render(question: &Question<'_>, answer: &Answer, colour: bool) -> String {
    let (word, mood) = match answer.decision {
        Decision::Allow => ("yes", Mood::Good),
        Decision::Deny => ("no", Mood::Bad),
        Decision::Unknown => ("undecided", Mood::Warning),
    };
    let mut out = format!("{}: {}\n", mood.paint(word, colour), sentence(question, answer));
    let _ = write!(out, "{}", because(answer));
    if let Some(near) = &answer.near_miss {
        let at = shown_place(&near.file, near.line);
        let _ = writeln!(
            out,
            "closest: {}/{} rule {}{at} would allow it, were it not for",
            clean(&near.namespace),
            clean(&near.name),
            near.rule
        );
        for failed in &near.failed {
            let _ = writeln!(out, "  - {}", clean(failed));
        }
    }
    for replica in &answer.replicas {
        let more = replica.count.saturating_sub(replica.pods.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "  {}{more}: {}, {}; policies: {}",
            clean(&replica.pods.join(", ")),
            word_of(replica.decision),
            clean(&replica.reason),
            clean(&replica.policies.join(", "))
        );
    }
    if !answer.steps.is_empty() {
        let _ = write!(out, "\n{}", steps(answer).render(colour));
    }
    out
}

fn steps(answer: &Answer) -> Table {
    let mut table = Table::bare();
    let mut before = "";
    for step in &answer.steps {
        let at = step
            .at
            .as_deref()
            .map(|at| format!(" ({at})"))
            .unwrap_or_default();
        let stage = if before == step.stage {
            Cell::blank()
        } else {
            Cell::from(&*step.stage)
        };
        before = &step.stage;
        table.row(vec![stage, Cell::from(format!("{}{at}", step.said))]);
    }
    table
}

fn word_of(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "yes",
        Decision::Deny => "no",
        Decision::Unknown => "undecided",
    }
}

fn sentence(question: &Question<'_>, answer: &Answer) -> String {
    let who = match (&question.from, question.source_ip) {
        (Some(from), _) => format!("{}/{}", from.namespace, from.service_account),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => "a stranger".to_owned(),
    };
    let plain = match (&question.from, question.plaintext) {
        (Some(_), true) => " in plaintext",
        _ => "",
    };
    let to = target::show(&question.to);
    let does = match (&answer.path, answer.decision) {
        (Some(path), _) => {
            let method = question.method.as_deref().unwrap_or("GET");
            format!("{method} {} of {to}", path.received)
        }
        (None, _) => format!("connect to {to}"),
    };
    let may = match answer.decision {
        Decision::Allow => "may",
        Decision::Deny => "may not",
        Decision::Unknown => "may, or may not,",
    };
    clean(&format!("{who} {may} {does}{plain}")).into_owned()
}

fn because(answer: &Answer) -> String {
    let code = match (answer.decision, answer.code) {
        (Decision::Deny, code) if code > 0 => format!(" ({code})"),
        _ => String::new(),
    };
    let reason = clean(&answer.reason);
    match &answer.policy {
        Some(policy) => {
            let rule = policy
                .rule
                .map(|rule| format!(" rule {rule}"))
                .unwrap_or_default();
            let at = shown_place(&policy.file, policy.line);
            format!(
                "because: {reason}{code}, {} {}/{}{rule}{at}\n",
                policy.kind,
                clean(&policy.namespace),
                clean(&policy.name)
            )
        }
        None => format!("because: {reason}{code}\n"),
    }
}

fn shown_place(file: &str, line: u32) -> String {
    match (file, line) {
        ("", _) => String::new(),
        (file, 0) => format!(" at {}", clean(file)),
        (file, line) => format!(" at {}:{line}", clean(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_nest_and_repeat() {
        let pairs: Vec<_> = [
            ("iss", "i"),
            ("groups", "a"),
            ("groups", "b"),
            ("realm[roles]", "x"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
        let wanted = serde_json::json!({"iss": "i", "groups": ["a", "b"], "realm": {"roles": "x"}});
        assert_eq!(claims(&pairs).unwrap(), Some(wanted));
        let both = [("a", "1"), ("a[b]", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert!(claims(&both).is_err());
        assert_eq!(claims(&[]).unwrap(), None);
    }
}
