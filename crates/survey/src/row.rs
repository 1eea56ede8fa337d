//! What came of an attempt, for programs and for people.

use std::fmt::Write as _;

use model::Profile;
use serde::Serialize;

/// What came of one attempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// Its stable name.
    pub id: &'static str,
    /// What was tried.
    pub title: &'static str,
    /// What should come of it: `refused`, `refused, which Istio does not: WHY`, `carried with the caller's identity`, or
    /// `let through: WHY` where Istio's defaults do and the profile is Istio's.
    pub expect: String,
    /// What came of it: what the caller saw, and what the victim received.
    pub got: String,
    /// Whether it got through.
    pub through: bool,
    /// What stands behind it.
    pub evidence: Evidence,
    /// Whether it may get through under the profile.
    #[serde(skip)]
    pub(crate) lets: bool,
}

/// What stands behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Evidence {
    /// Rows of the semantics.
    pub semantics: &'static str,
    /// The packet at the victim by which it is known to have got through, cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// Whether the same worked for the twins, where nothing is enforced.
    pub twin: bool,
    /// What the twin got, where it did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin_got: Option<String>,
    /// The line of the access log by which it was refused: reason, and whose proxy speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The counter that grew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What `apply` said of an object of the attempt that does not come into force as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why there is neither line nor counter, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Row {
    /// Whether something got through that should not, or the attempt proved nothing.
    pub fn is_amiss(&self) -> bool {
        (self.through && !self.lets) || !self.evidence.twin
    }

    /// Whether the refusal left neither a line nor a counter, and nothing says why.
    pub fn is_silent(&self) -> bool {
        let evidence = &self.evidence;
        !self.through && evidence.note.is_none() && (evidence.log.is_none() || evidence.metric.is_none())
    }

    fn why(&self) -> String {
        let evidence = &self.evidence;
        if !evidence.twin {
            let got = evidence.twin_got.as_deref().unwrap_or_default();
            return format!("proves nothing: it fails without enforcement too ({got})");
        }
        if self.through {
            return self.expect.trim_start_matches("let through: ").to_owned();
        }
        let said = [&evidence.log, &evidence.note];
        let said: Vec<&str> = said.into_iter().flatten().map(String::as_str).collect();
        let slips = self.expect.strip_prefix("refused, which Istio does not: ");
        if let Some(slips) = slips {
            return format!("{}; Istio: {slips}", said.join("; "));
        }
        if said.is_empty() {
            "no line says why".to_owned()
        } else {
            said.join("; ")
        }
    }
}

/// The table, with a line below that counts.
pub(crate) fn table(rows: &[Row], profile: Profile) -> String {
    let head = ["ATTEMPT", "ROWS", "THROUGH", "EXPECTED", "GOT", "WHY"].map(str::to_owned);
    let body = rows.iter().map(|row| {
        let through = match (row.through, row.is_amiss()) {
            (true, true) => "YES",
            (true, false) => "yes",
            (false, true) => "?",
            (false, false) => "no",
        };
        let expect = row.expect.split(':').next().unwrap_or_default().to_owned();
        [
            row.id.to_owned(),
            row.evidence.semantics.to_owned(),
            through.to_owned(),
            expect,
            row.got.clone(),
            row.why(),
        ]
    });
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(body).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let text = cells.collect::<Vec<_>>().join("  ");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", text.trim_end());
    }
    let count = |what: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| what(row)).count();
    let through = count(&|row| row.through);
    let should_not = count(&|row| row.through && !row.lets);
    let nothing = count(&|row| !row.evidence.twin);
    let silent = count(&Row::is_silent);
    let _ = writeln!(
        out,
        "\nprofile {profile}: {} attempts, {through} got through, {should_not} of them should not; {nothing} proved nothing; {silent} refused without a line and a counter",
        rows.len()
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(through: bool, lets: bool, twin: bool) -> Row {
        Row {
            id: "x",
            title: "t",
            expect: "refused".to_owned(),
            got: "reset".to_owned(),
            through,
            evidence: Evidence {
                twin,
                ..Evidence::default()
            },
            lets,
        }
    }

    #[test]
    fn what_gets_through_and_what_proves_nothing_is_amiss() {
        assert!(row(true, false, true).is_amiss());
        assert!(!row(true, true, true).is_amiss());
        assert!(!row(false, false, true).is_amiss());
        assert!(row(false, false, false).is_amiss());
    }

    #[test]
    fn the_table_counts() {
        let text = table(
            &[row(true, false, true), row(false, false, true)],
            Profile::Secure,
        );
        assert!(
            text.contains("2 attempts, 1 got through, 1 of them should not"),
            "{text}"
        );
        assert!(text.contains("YES"), "{text}");
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
    }

    #[test]
    fn json_has_the_fields_that_scripts_read() {
        let json = serde_json::to_value(row(false, false, true)).unwrap();
        let mut keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["evidence", "expect", "got", "id", "through", "title"]);
    }
}
