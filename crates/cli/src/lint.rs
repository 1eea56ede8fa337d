//! `lint`: mistakes in files, found by the very functions that a running mesh uses.

mod sarif;

use std::collections::HashSet;
use std::sync::Arc;

use admin::{Exit, Failure};
use analysis::Offline;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use api::{Object, Problem, Severity};
use model::Profile;

use crate::args::{Findings, Lint};
use crate::files::{self, File};
use crate::out::{Done, Out};
use crate::text::{clean, count};

/// A key stands twice in a map: the one such mistake in YAML that leaves an object to speak of.
const KEY_TWICE: &str = "MW0007";
/// What reading says of two objects of one name in a file.
const READ_TWICE: &str = "MW0107";
/// What compiling says of two objects of one name wherever they are.
const DEFINED_TWICE: &str = "MW0509";

pub(crate) async fn lint(asked: &Lint, out: &mut Out) -> Done {
    let paths: Vec<_> = asked.files.iter().chain(&asked.more).cloned().collect();
    let files = files::read(&paths, asked.recursive).await?;
    let many = files.len();
    let profile = asked.profile;
    let checked = tokio::task::spawn_blocking(move || check(&files, profile)).await;
    let Checked { objects, problems } =
        checked.map_err(|error| Failure::undecided(format!("the files could not be checked: {error}")))??;
    let errors = of(&problems, Severity::Error);
    match asked.output {
        Some(Findings::Json) => out.json(&problems)?,
        Some(Findings::Sarif) => out.json(&sarif::document(&problems))?,
        None => {
            for problem in &problems {
                out.print(&picture(problem, out.colour))?;
            }
            let warnings = of(&problems, Severity::Warning);
            let files = count(many, "file", "files");
            out.note(&match (errors, warnings) {
                (0, 0) => format!("no mistakes in {files}, {}", count(objects, "object", "objects")),
                _ => {
                    let found = [
                        count(errors, "error", "errors"),
                        count(warnings, "warning", "warnings"),
                    ];
                    format!("{} in {files}", found.join(", "))
                }
            });
        }
    }
    Ok(match errors {
        0 => 0,
        _ if problems.iter().any(is_unreadable) => Exit::Input.code(),
        _ => Exit::No.code(),
    })
}

/// Whether after this problem it is not known what the file was to hold.
pub(crate) fn is_unreadable(problem: &Problem) -> bool {
    let of_yaml = problem.code.starts_with("MW00") && problem.code != KEY_TWICE;
    problem.severity == Severity::Error && problem.object.is_none() && of_yaml
}

fn of(problems: &[Problem], severity: Severity) -> usize {
    problems
        .iter()
        .filter(|problem| problem.severity == severity)
        .count()
}

#[derive(Debug)]
struct Checked {
    objects: usize,
    problems: Vec<Problem>,
}

/// What reading says of each file, and what compiling says of them all together, a pod standing for each workload.
fn check(files: &[File], profile: Profile) -> Result<Checked, Failure> {
    let mut problems = Vec::new();
    let mut objects: Vec<Arc<Object>> = Vec::new();
    for file in files {
        let parsed = api::parse(&file.shown, &file.bytes);
        problems.extend(parsed.problems);
        objects.extend(parsed.objects.into_iter().map(Arc::new));
    }
    let many = objects.len();
    let options = compiler::Options {
        profile,
        ..compiler::Options::default()
    };
    let world =
        Offline::new(objects, Vec::new(), options).map_err(|error| Failure::undecided(error.to_string()))?;
    // Two objects of one name in one file: reading has told of them, with the line of the other.
    let place = |p: &Problem| (p.file.clone(), p.object.clone());
    let twice: HashSet<_> = problems
        .iter()
        .filter(|p| p.code == READ_TWICE)
        .map(place)
        .collect();
    let told = |p: &&Problem| p.code == DEFINED_TWICE && twice.contains(&place(p));
    let together = world.compiled().problems.iter().filter(|p| !told(p)).cloned();
    problems.extend(
        together
            .chain(world.lint())
            .map(|problem| with_source(problem, files)),
    );
    let mut told = HashSet::new();
    problems.retain(|p| {
        told.insert((
            p.file.clone(),
            p.line,
            p.column,
            p.code.clone(),
            p.message.clone(),
        ))
    });
    for problem in &mut problems {
        if profile == Profile::Istio && problem.only_secure() && problem.severity == Severity::Error {
            problem.severity = Severity::Warning;
        }
    }
    let place = |file: &str| files.iter().position(|known| known.shown == file);
    problems.sort_by_key(|p| (place(&p.file), p.line, p.column));
    Ok(Checked {
        objects: many,
        problems,
    })
}

/// The compiler knows places and no texts.
fn with_source(mut problem: Problem, files: &[File]) -> Problem {
    let text = || {
        let file = files.iter().find(|file| file.shown == problem.file)?;
        let line = usize::try_from(problem.line).ok()?.checked_sub(1)?;
        let text = file.bytes.split(|byte| *byte == b'\n').nth(line)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\r').to_owned())
    };
    problem.source = problem.source.take().or_else(text);
    problem
}

/// The problem with the line that it is about, and a mark under what is meant.
fn picture(problem: &Problem, colour: bool) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let message = clean(&problem.message);
    let title = level.primary_title(message.as_ref()).id(problem.code.as_ref());
    let file = clean(&problem.file);
    let line = usize::try_from(problem.line).unwrap_or(usize::MAX);
    let source = problem.source.as_deref().map(visible);
    let group: Group<'_> = match &source {
        Some(source) if line > 0 => {
            let start = byte_of(source, problem.column.saturating_sub(1));
            let end = byte_of(
                source,
                problem
                    .column
                    .saturating_sub(1)
                    .saturating_add(problem.length.max(1)),
            );
            let snippet = Snippet::source(source.as_str())
                .line_start(line)
                .path(file.as_ref());
            title.element(snippet.annotation(AnnotationKind::Primary.span(start..end.max(start))))
        }
        _ => {
            let column = usize::try_from(problem.column).unwrap_or(usize::MAX);
            let mut origin = Origin::path(file.as_ref());
            if line > 0 {
                origin = origin.line(line).char_column(column);
            }
            title.element(origin)
        }
    };
    let remedy = problem.remedy.as_deref().map(clean);
    let group = match &remedy {
        Some(remedy) => group.element(Level::HELP.message(remedy.as_ref())),
        None => group,
    };
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    format!("{}\n\n", renderer.render(&[group]))
}

/// The line with a sign for each character that a terminal would obey: columns stay where they are.
fn visible(line: &str) -> String {
    let sign = |c: char| match c {
        '\t' => c,
        c if clean(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8() => '\u{fffd}',
        c => c,
    };
    line.chars().map(sign).collect()
}

/// Where the character `column` (from 0) of a line begins.
fn byte_of(line: &str, column: u32) -> usize {
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File {
            shown: "dir/a.yaml".to_owned(),
            bytes: text.as_bytes().to_vec(),
        }
    }

    const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: m}\nspec:\n  rulez: []\n";

    #[test]
    fn a_mistake_is_shown_where_it_stands() {
        let checked = check(&[file(POLICY)], Profile::Secure).unwrap();
        let shown = picture(&checked.problems[0], false);
        assert!(shown.starts_with("error[MW"), "{shown}");
        for part in ["--> dir/a.yaml:5:3", "5 |   rulez: []", "  |   ^^^^^", "= help: "] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(picture(&checked.problems[0], true).contains('\u{1b}'));
    }

    #[test]
    fn two_of_one_name_are_told_once_a_file() {
        let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: m}\n";
        let twice = file(&format!("{account}---\n{account}"));
        let codes = |files: &[File]| -> Vec<String> {
            let checked = check(files, Profile::Secure).unwrap();
            checked.problems.iter().map(|p| p.code.to_string()).collect()
        };
        assert_eq!(codes(std::slice::from_ref(&twice)), [READ_TWICE]);
        let other = File {
            shown: "dir/b.yaml".to_owned(),
            bytes: account.as_bytes().to_vec(),
        };
        assert!(codes(&[twice, other]).iter().any(|code| code == DEFINED_TWICE));
    }

    #[test]
    fn what_only_the_whole_shows_is_found_too() {
        let selector = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: m}\nspec:\n  selector: {matchLabels: {app: nobody}}\n  mtls: {mode: STRICT}\n";
        let checked = check(&[file(selector)], Profile::Secure).unwrap();
        let found = checked.problems.iter().find(|p| p.code == "IST0127").unwrap();
        assert!(
            found
                .source
                .as_deref()
                .is_some_and(|line| line.contains("nobody")),
            "{found:?}"
        );
    }

    #[test]
    fn nothing_in_a_file_reaches_the_terminal_as_it_is() {
        let mut problem = Problem::new(Severity::Error, "MW0001", "odd \u{1b}[2J");
        (problem.file, problem.line, problem.column, problem.length) = ("\u{1b}c".to_owned(), 1, 2, 1);
        problem.source = Some("\u{1b}é\u{202e}".to_owned());
        problem.remedy = Some("\u{7}".to_owned());
        let shown = picture(&problem, false);
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
        assert!(shown.contains("\\u{1b}c:1:2"), "{shown}");
    }
}
