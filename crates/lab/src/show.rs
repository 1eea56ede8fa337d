//! What the user who started the mesh is told while it stands: on standard error, a line each.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use admin::verbs::ProblemLine;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::engine::Overview;
use crate::pod::Pod;
use crate::process::logbook::Logbook;

/// How many lines wait to be written.
pub(crate) const QUEUE: usize = 1024;
/// Nobody waits longer than this without being told for what.
pub(crate) const SILENCE: Duration = Duration::from_millis(450);
/// How soon the same is said again.
const AGAIN: Duration = Duration::from_secs(3);
/// How long a pod must be ready after a failure before that is said.
const STEADY: Duration = Duration::from_secs(1);
/// How much of what is missing is listed in one line.
const LISTED: usize = 3;

/// Something to be told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A line as it is.
    Line(String),
    /// A line about what goes well: not with `--quiet`.
    Progress(String),
    /// What is wrong with what was read.
    Problem(ProblemLine),
}

/// Writes the line; a reader that is gone is no reason to end.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes all that is to be told until nobody has anything to tell; while what is wanted is not there, also that.
pub(crate) async fn tell(
    mut notices: mpsc::Receiver<Notice>,
    mut overview: watch::Receiver<Arc<Overview>>,
    quiet: bool,
    book: Option<Arc<Logbook>>,
) {
    let write = |text: &str| {
        line(text);
        if let Some(book) = &book {
            book.write(format!("{text}\n").as_bytes());
        }
    };
    let mut last = Instant::now();
    let mut said = (String::new(), last);
    let mut settled = false;
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            () = tokio::time::sleep_until(last + SILENCE), if !settled && !quiet => {
                last = Instant::now();
                let missing = missing(&overview.borrow());
                if missing != said.0 || said.1.elapsed() >= AGAIN {
                    write(&missing);
                    said = (missing, last);
                }
                continue;
            }
            changed = overview.changed() => {
                // Once all was there, only changes are news.
                settled |= overview.borrow_and_update().ready();
                if changed.is_err() { settled = true; }
                continue;
            }
        };
        match notice {
            None => return,
            Some(Notice::Line(text)) => write(&text),
            Some(Notice::Progress(text)) if !quiet => write(&text),
            Some(Notice::Progress(_)) => continue,
            Some(Notice::Problem(problem)) => write(&problem_text(&problem)),
        }
        last = Instant::now();
    }
}

/// What is missing, in one line.
pub(crate) fn missing(overview: &Overview) -> String {
    if !overview.told {
        return "waiting for the control plane".to_owned();
    }
    if overview.waiting_for.is_empty() {
        return "waiting for the proxies to have the newest configuration".to_owned();
    }
    list(&overview.waiting_for)
}

/// What is missing, in one line.
pub(crate) fn list(waiting_for: &[String]) -> String {
    let mut text = format!(
        "waiting for {}",
        waiting_for
            .iter()
            .take(LISTED)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ")
    );
    let more = waiting_for.len().saturating_sub(LISTED);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn problem_text(problem: &ProblemLine) -> String {
    let ProblemLine {
        severity,
        file,
        line,
        column,
        message,
        remedy,
        ..
    } = problem;
    let place = if file.is_empty() {
        String::new()
    } else {
        format!("{file}:{line}:{column}: ")
    };
    let remedy = if remedy.is_empty() {
        String::new()
    } else {
        format!("; {remedy}")
    };
    format!("{place}{severity}: {message}{remedy}")
}

/// Tells how a pod fares, until its end.
pub(crate) async fn follow(pod: Arc<Pod>, notices: mpsc::Sender<Notice>) {
    let since = Instant::now();
    let mut state = pod.state.subscribe();
    // What was said last: that it is ready, or why not.
    let mut said: Option<String> = None;
    loop {
        let why = state.borrow_and_update().why();
        let recovered = said.as_ref().is_some_and(|said| !said.is_empty());
        if pod.ready() && said.as_deref() != Some("") {
            // One that ends again and again is ready in between, as far as anybody can tell: that is no news.
            let pause = if recovered { STEADY } else { Duration::ZERO };
            let mut again = state.clone();
            if tokio::time::timeout(pause, again.changed()).await.is_ok() {
                continue;
            }
            let ip = pod.ips.first().map(ToString::to_string).unwrap_or_default();
            let took = since.elapsed().as_secs_f64();
            let text = format!("{}  ready  {ip}  {took:.1}s", pod.shown());
            let _ = notices.send(Notice::Progress(text)).await;
            said = Some(String::new());
        } else if !why.is_empty() && said.as_deref() != Some(why.as_str()) && !pod.leaving() {
            let _ = notices
                .send(Notice::Line(format!("{}: {why}", pod.shown())))
                .await;
            said = Some(why);
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_begins_with_its_place() {
        let problem = ProblemLine {
            severity: "error".to_owned(),
            code: "MW0001".to_owned(),
            file: "a.yaml".to_owned(),
            line: 3,
            column: 5,
            message: "there is no field `x`".to_owned(),
            remedy: "did you mean `y`?".to_owned(),
        };
        assert_eq!(
            problem_text(&problem),
            "a.yaml:3:5: error: there is no field `x`; did you mean `y`?"
        );
    }

    #[test]
    fn what_is_missing_fits_a_line() {
        let names: Vec<String> = (0..5).map(|n| format!("n/p{n}")).collect();
        assert_eq!(list(&names), "waiting for n/p0; n/p1; n/p2; and 2 more");
    }
}
