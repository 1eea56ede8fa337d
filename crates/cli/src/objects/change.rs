//! `apply` and `delete`.

use admin::verbs::{Document, Name, Outcome, OutcomeKind};
use admin::{Answer, Failure, verbs};
use api::Severity;

use super::outcome;
use crate::args::{Apply, Delete};
use crate::files::{self, File};
use crate::mesh::{Mesh, decode};
use crate::out::{Done, Out, Stop};

pub(crate) async fn apply(mesh: &Mesh, asked: &Apply, out: &mut Out) -> Done {
    let files = files::read(&asked.files, asked.recursive).await?;
    let json = asked.output.is_some();
    let Texts { documents, mut said } = texts(files, out);
    for outcome in said.iter().filter(|_| !json) {
        out.print(&outcome::render(outcome, out.colour))?;
    }
    if !documents.is_empty() {
        let body = verbs::Apply {
            documents,
            wait_ms: asked.wait,
            dry_run: asked.dry_run,
        };
        said.extend(tell(mesh.control("apply", &body).await?, json, out).await?);
    }
    if said.is_empty() {
        return Err(Failure::input("there is no object in what was given").into());
    }
    if json {
        out.json(&said)?;
    }
    Ok(outcome::applied(&said))
}

pub(crate) async fn delete(mesh: &Mesh, asked: &Delete, out: &mut Out) -> Done {
    let json = asked.output.is_some();
    let objects = names(&asked.words, &asked.namespace)?;
    let files = files::read(&asked.files, asked.recursive).await?;
    let Texts { documents, mut said } = texts(files, out);
    for outcome in said.iter().filter(|_| !json) {
        out.print(&outcome::render(outcome, out.colour))?;
    }
    let unread = !said.is_empty();
    let body = verbs::Delete {
        documents,
        objects,
        wait_ms: asked.wait,
    };
    if !body.documents.is_empty() || !body.objects.is_empty() {
        said.extend(tell(mesh.control("delete", &body).await?, json, out).await?);
    }
    if said.is_empty() {
        return Err(Failure::input("there is no object in what was given").into());
    }
    if json {
        out.json(&said)?;
    }
    Ok(if unread { 65 } else { outcome::deleted(&said) })
}

/// The outcomes, each printed as soon as it is known unless they are wanted as one document.
async fn tell(mut answer: Answer, json: bool, out: &mut Out) -> Result<Vec<Outcome>, Stop> {
    let mut said = Vec::new();
    while let Some(item) = answer.item().await {
        let outcome: Outcome = decode(item)?;
        if !json {
            out.print(&outcome::render(&outcome, out.colour))?;
        }
        said.push(outcome);
    }
    answer.finish().await?;
    Ok(said)
}

/// Files as texts.
#[derive(Debug, Default)]
struct Texts {
    documents: Vec<Document>,
    /// What is to be said of files that are no text.
    said: Vec<Outcome>,
}

/// Files that are no text are rejected here: the mesh takes text. What is odd in the others is said beside.
fn texts(files: Vec<File>, out: &mut Out) -> Texts {
    let mut texts = Texts::default();
    for File { shown, bytes } in files {
        let parsed = api::parse(&shown, &bytes);
        for problem in parsed.problems.iter().filter(|p| p.severity == Severity::Warning) {
            out.note(&problem.one_line());
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.len() <= api::MAX_BYTES => texts.documents.push(Document { file: shown, text }),
            _ => texts.said.push(Outcome {
                kind: String::new(),
                namespace: String::new(),
                name: shown,
                result: OutcomeKind::Rejected,
                change: String::new(),
                why: parsed.problems.iter().map(api::Problem::one_line).collect(),
                nodes: 0,
                acknowledged: 0,
            }),
        }
    }
    texts
}

/// `KIND NAME...` or `KIND/NAME...`.
fn names(words: &[String], namespace: &str) -> Result<Vec<Name>, Stop> {
    let name = |kind: &str, name: &str| Name {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let slashed = words
        .iter()
        .map(|word| word.split_once('/'))
        .collect::<Option<Vec<_>>>();
    match (slashed, words) {
        (Some(pairs), _) => Ok(pairs.into_iter().map(|(kind, one)| name(kind, one)).collect()),
        (None, [kind, rest @ ..]) if !rest.is_empty() && !kind.contains('/') => {
            Ok(rest.iter().map(|one| name(kind, one)).collect())
        }
        _ => {
            Err(Failure::usage("write a kind and a name: `meshward delete AuthorizationPolicy NAME`").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_in_two_ways() {
        let said = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            names(&words, "full").map(|names| {
                let texts = names
                    .into_iter()
                    .map(|n| format!("{} {}/{}", n.kind, n.namespace, n.name));
                texts.collect::<Vec<_>>()
            })
        };
        assert_eq!(said(&[]).unwrap(), [""; 0]);
        assert_eq!(said(&["ap", "a", "b"]).unwrap(), ["ap full/a", "ap full/b"]);
        assert_eq!(said(&["ap/a", "svc/b"]).unwrap(), ["ap full/a", "svc full/b"]);
        assert!(said(&["ap"]).is_err());
        assert!(said(&["ap/a", "b"]).is_err());
    }
}
