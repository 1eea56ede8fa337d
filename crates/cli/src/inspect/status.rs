//! `status`: what is in force, and why what is not is not.

use std::time::Duration;

use admin::Failure;
use admin::verbs::{NodeState, ObjectState, ProblemLine, Proxy, RevocationList, Status as Answer};

use crate::args::{Status, Wide};
use crate::inspect::staleness;
use crate::mesh::{Mesh, last};
use crate::objects::outcome::word;
use crate::out::{Done, Out, Stop};
use crate::table::{Cell, Mood, Table};
use crate::text::clean;
use crate::text::time;

/// How long the control plane may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) async fn status(mesh: &Mesh, asked: &Status, out: &mut Out) -> Done {
    let asking = async { last(mesh.control("status", &()).await?).await };
    let answer: Answer = match tokio::time::timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Stop::Gone)) => return Err(Stop::Gone),
        Ok(Err(Stop::Failed(failure))) => return away(mesh, asked, failure, out).await,
        Err(_) => {
            let message = format!("the control plane does not answer within {} s", ANSWER.as_secs());
            return away(mesh, asked, Failure::undecided(message), out).await;
        }
    };
    match asked.output {
        Some(Wide::Json) => out.json(&answer)?,
        format => {
            let wide = asked.wide || format == Some(Wide::Wide);
            out.print(&render(&answer, wide, out.colour))?;
            let proxies = staleness::ask(mesh).await;
            more(&proxies, false, out)?;
        }
    }
    Ok(0)
}

/// The control plane is away: what the proxies say is all that can be said.
async fn away(mesh: &Mesh, asked: &Status, failure: Failure, out: &mut Out) -> Done {
    if asked.output != Some(Wide::Json) {
        let proxies = staleness::ask(mesh).await;
        more(&proxies, true, out)?;
    }
    Err(failure.into())
}

fn more(proxies: &[Proxy], all: bool, out: &mut Out) -> Result<(), Stop> {
    for table in [staleness::links(proxies, all), staleness::certificates(proxies)] {
        if !table.is_empty() {
            out.print(&format!("\n{}", table.render(out.colour)))?;
        }
    }
    Ok(())
}

fn render(status: &Answer, wide: bool, colour: bool) -> String {
    let mut out = format!("profile {}\n", clean(&status.profile));
    for default in &status.defaults {
        out += &format!("  {}\n", clean(default));
    }
    let mut section = |table: Table| {
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.render(colour));
        }
    };
    section(nodes(&status.nodes));
    section(objects(&status.objects, wide));
    section(problems(&status.problems));
    section(revocation_lists(&status.revocation_lists));
    section(list(&status.not_acted_on));
    out
}

/// The lists that certificates are judged by, and how long they still count.
fn revocation_lists(lists: &[RevocationList]) -> Table {
    let mut table = Table::new(["REVOCATION LIST OF", "NEXT UPDATE", "STATE"]);
    for list in lists {
        let left = match list.left_s {
            ..=0 => Cell::new(
                "expired: nothing that its issuer has signed is believed",
                Mood::Bad,
            ),
            left if list.due => Cell::new(format!("a new one is due, {} left", span(left)), Mood::Warning),
            left => Cell::new(format!("in force, {} left", span(left)), Mood::Good),
        };
        table.row(vec![
            list.issuer.as_str().into(),
            time(list.next_update).into(),
            left,
        ]);
    }
    table
}

/// Seconds in the largest unit of which there are two.
fn span(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let fit = units.iter().find(|(unit, _)| seconds >= 2 * unit);
    fit.map_or_else(
        || format!("{seconds} s"),
        |(unit, name)| format!("{} {name}", seconds / unit),
    )
}

fn nodes(nodes: &[NodeState]) -> Table {
    let mut table = Table::new(["NODE", "CONNECTED", "PUBLISHED", "ACKNOWLEDGED", "STATE"]);
    for node in nodes {
        let state = match &node.refused {
            Some(why) => Cell::new(format!("refused: {why}"), Mood::Bad),
            None if !node.connected => Cell::new("out of reach", Mood::Bad),
            None if node.acknowledged == node.published => Cell::new("up to date", Mood::Good),
            None => Cell::new("behind", Mood::Warning),
        };
        table.row(vec![
            node.node.as_str().into(),
            if node.connected { "yes" } else { "no" }.into(),
            node.published.to_string().into(),
            node.acknowledged.to_string().into(),
            state,
        ]);
    }
    table
}

/// The last column goes on below itself: a reason a line.
fn objects(objects: &[ObjectState], wide: bool) -> Table {
    let mut heads = vec!["KIND", "NAMESPACE", "NAME", "NODES"];
    if wide {
        heads.extend(["ORIGIN", "TARGETS"]);
    }
    heads.push("STATE");
    let columns = heads.len();
    let mut table = Table::new(heads);
    for object in objects {
        let mut cells: Vec<Cell> = vec![
            object.kind.as_str().into(),
            object.namespace.as_str().into(),
            object.name.as_str().into(),
            format!("{}/{}", object.acknowledged, object.nodes).into(),
        ];
        if wide {
            cells.push(object.origin.as_str().into());
            cells.push(object.targets.join(",").into());
        }
        let (word, mood) = word(object.result);
        let shadowed = object
            .shadowed_by
            .iter()
            .map(|older| format!("shadowed by {older}"));
        let mut reasons = object.why.iter().cloned().chain(shadowed);
        cells.push(match reasons.next() {
            Some(why) => Cell::new(format!("{word}: {why}"), mood),
            None => Cell::new(word, mood),
        });
        table.row(cells);
        for why in reasons {
            let mut cells = vec![Cell::blank(); columns - 1];
            cells.push(Cell::new(format!("  {why}"), mood));
            table.row(cells);
        }
    }
    table
}

fn problems(problems: &[ProblemLine]) -> Table {
    let mut table = Table::bare();
    for problem in problems {
        let mood = match problem.severity.as_str() {
            "error" => Mood::Bad,
            "warning" => Mood::Warning,
            _ => Mood::Plain,
        };
        table.row(vec![Cell::new(line(problem), mood)]);
    }
    table
}

/// `file:line:column: severity[code]: message; remedy`, what is not known left out.
pub(crate) fn line(problem: &ProblemLine) -> String {
    let place = match (problem.file.as_str(), problem.line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}:{}: ", problem.column),
    };
    let remedy = match problem.remedy.as_str() {
        "" => String::new(),
        remedy => format!("; {remedy}"),
    };
    format!(
        "{place}{}[{}]: {}{remedy}",
        problem.severity, problem.code, problem.message
    )
}

fn list(lines: &[String]) -> Table {
    let mut table = Table::bare();
    lines.iter().for_each(|line| table.row(vec![line.into()]));
    table
}

#[cfg(test)]
mod tests {
    use admin::verbs::OutcomeKind;

    use super::*;
    use crate::pods::ps::tests::{state, status};

    #[test]
    fn a_revocation_list_says_how_long_it_counts() {
        let of = |left_s, due| RevocationList {
            issuer: "O=a".to_owned(),
            next_update: 1_767_225_600,
            left_s,
            due,
        };
        let lists = [
            of(-1, true),
            of(0, true),
            of(119, true),
            of(7_200, true),
            of(172_800, false),
        ];
        let wanted = "REVOCATION LIST OF  NEXT UPDATE           STATE
O=a                 2026-01-01T00:00:00Z  expired: nothing that its issuer has signed is believed
O=a                 2026-01-01T00:00:00Z  expired: nothing that its issuer has signed is believed
O=a                 2026-01-01T00:00:00Z  a new one is due, 119 s left
O=a                 2026-01-01T00:00:00Z  a new one is due, 2 h left
O=a                 2026-01-01T00:00:00Z  in force, 2 d left
";
        assert_eq!(revocation_lists(&lists).render(false), wanted);
    }

    #[test]
    fn every_object_says_where_it_stands() {
        let mut answer = status();
        answer.defaults.truncate(2);
        answer.nodes.push(NodeState {
            node: "node-1".to_owned(),
            connected: true,
            published: 7,
            acknowledged: 6,
            refused: Some("no room".to_owned()),
        });
        let mut shadowed = state("newer", OutcomeKind::NotInForce, &["older objects decide"]);
        shadowed
            .shadowed_by
            .push("PeerAuthentication full/older".to_owned());
        answer.objects = vec![
            state("good", OutcomeKind::Accepted, &[]),
            state(
                "bad",
                OutcomeKind::Rejected,
                &["p.yaml:3:1: error[MW0302]: no address"],
            ),
            shadowed,
        ];
        answer.problems.push(ProblemLine {
            severity: "error".to_owned(),
            code: "MW0003".to_owned(),
            file: "x.yaml".to_owned(),
            line: 2,
            column: 5,
            message: "a quote is not closed".to_owned(),
            remedy: "close it".to_owned(),
        });
        answer
            .not_acted_on
            .push("HorizontalPodAutoscaler.autoscaling: 1 accepted, not acted on".to_owned());
        let wanted = "profile secure
  mTLS STRICT where no PeerAuthentication says otherwise
  deny until an ALLOW allows

NODE    CONNECTED  PUBLISHED  ACKNOWLEDGED  STATE
node-0  yes        7          7             up to date
node-1  yes        7          6             refused: no room

KIND                 NAMESPACE  NAME   NODES  STATE
AuthorizationPolicy  full       good   2/2    accepted
AuthorizationPolicy  full       bad    2/2    rejected: p.yaml:3:1: error[MW0302]: no address
AuthorizationPolicy  full       newer  2/2    accepted, not in force: older objects decide
                                                shadowed by PeerAuthentication full/older

x.yaml:2:5: error[MW0003]: a quote is not closed; close it

HorizontalPodAutoscaler.autoscaling: 1 accepted, not acted on
";
        assert_eq!(render(&answer, false, false), wanted);
        let wide = render(&answer, true, false);
        assert!(
            wide.contains("policies.yaml:3:1  full/httpbin-0  accepted\n"),
            "{wide}"
        );
    }
}
