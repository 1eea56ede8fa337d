//! What came of it: a table, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Passed;
use crate::news::Said;

/// How many failures are told one by one.
const MAX_TOLD: usize = 100;
/// How many reasons a table has.
const MAX_REASONS: usize = 12;

/// The outcome of a soak.
pub(crate) struct Report {
    pub(crate) phases: Vec<Passed>,
    pub(crate) said: Said,
}

/// Figures of some requests.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Of a phase.
struct Of<'a> {
    phase: &'a Passed,
    figures: Figures,
    failures: usize,
    excused: usize,
}

impl Figures {
    /// From microseconds, to milliseconds.
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: usize| {
            let at = (micros.len() * share / 100).min(micros.len().saturating_sub(1));
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of some minutes")]
            let ms = micros.get(at).copied().unwrap_or_default() as f64 / 1000.0;
            ms
        };
        Self {
            requests: micros.len(),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Report {
    pub(crate) fn new(phases: Vec<Passed>, said: Said) -> Self {
        Self { phases, said }
    }

    /// Whether nothing failed that must not, and everything that servers counted was answered but for what may have failed.
    pub(crate) fn is_good(&self) -> bool {
        let of = self.of_phases();
        let failures: usize = of.iter().map(|of| of.failures).sum();
        let excused: u64 = of
            .iter()
            .map(|of| u64::try_from(of.excused).unwrap_or_default())
            .sum();
        let unanswered: u64 = self.said.unanswered().values().sum();
        failures == 0 && unanswered <= excused && !self.said.done.is_empty()
    }

    fn of_phases(&self) -> Vec<Of<'_>> {
        let last = self.phases.len().saturating_sub(1);
        let with = self.phases.iter().enumerate().map(|(at, phase)| {
            // What came before the first, or after the last, is theirs.
            let from = if at == 0 { 0 } else { phase.begin };
            let next = self.phases.get(at + 1).map_or(u64::MAX, |next| next.begin);
            let to = if at == last { u64::MAX } else { next };
            let within = |end: u64| (from..to).contains(&end);
            let done = self.said.done.iter().filter(|done| within(done.1));
            let failed = self.said.failed.iter().filter(|failed| within(failed.1));
            let (excused, failures): (Vec<_>, Vec<_>) =
                failed.partition(|failed| failed.1 >= phase.begin && failed.1 <= phase.excused);
            Of {
                phase,
                figures: Figures::of(done.map(|done| done.2).collect()),
                failures: failures.len(),
                excused: excused.len(),
            }
        });
        with.collect()
    }

    fn of_kinds(&self) -> BTreeMap<&str, (Figures, usize)> {
        let mut micros: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for done in &self.said.done {
            micros.entry(&done.0).or_default().push(done.2);
        }
        let failed = |kind: &str| self.said.failed.iter().filter(|failed| failed.0 == kind).count();
        let kinds = micros.into_iter();
        kinds
            .map(|(kind, micros)| (kind, (Figures::of(micros), failed(kind))))
            .collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let head = [
            "PHASE",
            "SECONDS",
            "REQUESTS",
            "FAILURES",
            "P50 ms",
            "P99 ms",
            "MAX ms",
            "PROXY MiB",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for of in self.of_phases() {
            let failures = match of.excused {
                0 => of.failures.to_string(),
                excused => format!("{} (and {excused} open ones)", of.failures),
            };
            rows.push([
                of.phase.name.to_owned(),
                format!("{:.1}", seconds(of.phase)),
                of.figures.requests.to_string(),
                failures,
                format!("{:.1}", of.figures.p50),
                format!("{:.1}", of.figures.p99),
                format!("{:.1}", of.figures.max),
                (of.phase.rss / 1024).to_string(),
            ]);
        }
        for row in &rows {
            let cells = row.iter().enumerate().map(|(at, cell)| {
                let width = rows.iter().filter_map(|row| row.get(at)).map(String::len).max();
                format!("{cell:width$}", width = width.unwrap_or_default())
            });
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        text.push('\n');
        for (kind, (figures, failures)) in self.of_kinds() {
            let Figures {
                requests,
                p50,
                p99,
                max,
            } = figures;
            let _ = writeln!(
                text,
                "{kind:12} {requests:7} requests, {failures} failures, p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
            );
        }
        text.push('\n');
        for phase in &self.phases {
            for did in &phase.did {
                let _ = writeln!(text, "{}: {did}", phase.name);
            }
            for why in &phase.could_not {
                let _ = writeln!(text, "{}: not done: {why}", phase.name);
            }
        }
        for ((kind, why), count) in self.reasons().into_iter().take(MAX_REASONS) {
            let _ = writeln!(text, "failed {count} times: {kind}: {why}");
        }
        let unanswered: u64 = self.said.unanswered().values().sum();
        let _ = writeln!(
            text,
            "{} requests sent again that a proxy had not looked at; {unanswered} counted by a server and not answered",
            self.said.resent()
        );
        text
    }

    fn reasons(&self) -> Vec<((&str, &str), usize)> {
        let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for failed in &self.said.failed {
            *reasons.entry((&failed.0, &failed.2)).or_default() += 1;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    /// For machines.
    pub(crate) fn json(&self) -> String {
        let phases = self.of_phases().into_iter().map(|of| {
            let mut value = figures(of.figures, of.failures);
            if let Value::Object(map) = &mut value {
                map.insert("phase".to_owned(), json!(of.phase.name));
                map.insert("seconds".to_owned(), json!(seconds(of.phase)));
                map.insert("excused".to_owned(), json!(of.excused));
                map.insert("did".to_owned(), json!(of.phase.did));
                map.insert("couldNot".to_owned(), json!(of.phase.could_not));
                map.insert("proxyRssKib".to_owned(), json!(of.phase.rss));
            }
            value
        });
        let kinds = self
            .of_kinds()
            .into_iter()
            .map(|(kind, (of, failures))| (kind, figures(of, failures)));
        let failed = self.said.failed.iter().take(MAX_TOLD).map(|failed| {
            json!({ "kind": failed.0, "atMs": failed.1, "why": failed.2, "phase": self.phase_at(failed.1) })
        });
        let value = json!({
            "good": self.is_good(),
            "phases": phases.collect::<Vec<_>>(),
            "kinds": kinds.collect::<BTreeMap<_, _>>(),
            "failures": failed.collect::<Vec<_>>(),
            "resent": self.said.resent(),
            "unanswered": self.said.unanswered(),
        });
        format!("{value}\n")
    }

    fn phase_at(&self, at: u64) -> &str {
        let found = self.phases.iter().rev().find(|phase| phase.begin <= at);
        found.map_or("", |phase| phase.name)
    }
}

fn figures(of: Figures, failures: usize) -> Value {
    json!({ "requests": of.requests, "failures": failures, "p50Ms": of.p50, "p99Ms": of.p99, "maxMs": of.max })
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some hours")]
fn seconds(phase: &Passed) -> f64 {
    phase.end.saturating_sub(phase.begin) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::news::News;

    fn phase(name: &'static str, begin: u64, end: u64, excused: u64) -> Passed {
        Passed {
            name,
            begin,
            end,
            excused,
            did: vec!["did".to_owned()],
            could_not: vec![],
            rss: 2048,
        }
    }

    fn report(failed: &str) -> Report {
        let news = News::default();
        let line = format!(
            r#"{{"done":[["http1",150,1000],["http1",250,3000]],"failed":[{failed}],"resent":0,"counted":{{"p http1":[2,3]}}}}"#
        );
        news.of_client().take(&line).unwrap();
        let phases = vec![phase("calm", 100, 200, 0), phase("killed", 200, 300, 240)];
        Report::new(phases, news.taken())
    }

    #[test]
    fn what_was_open_at_a_killed_proxy_is_excused_and_nothing_else() {
        for (failed, good) in [
            (r#"["tcp",230,"reset"]"#, true),
            (r#"["tcp",241,"late"]"#, false),
            (r#"["tcp",199,"early"]"#, false),
            // Counted by a server, and nobody was answered.
            ("", false),
        ] {
            assert_eq!(report(failed).is_good(), good, "{failed}");
        }
    }

    #[test]
    fn the_table_and_the_plot_have_each_phase() {
        let report = report(r#"["tcp",230,"reset"]"#);
        let table = report.table();
        assert!(
            table.contains("calm") && table.contains("0 (and 1 open ones)"),
            "{table}"
        );
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["phases"][1]["excused"], 1);
        assert_eq!(json["phases"][0]["p50Ms"], 1.0);
        let svg = crate::plot::svg(&report);
        assert!(svg.starts_with("<svg") && svg.contains("killed") && svg.ends_with("</svg>\n"));
    }
}
