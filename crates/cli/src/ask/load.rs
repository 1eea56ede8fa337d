//! A world from files.

use std::sync::Arc;

use admin::Failure;
use analysis::Offline;
use api::{Object, Severity};

use super::args::Files;
use crate::files;
use crate::lint::is_unreadable;
use crate::out::{Out, Stop};

/// How many mistakes in files are told before a question is answered.
const MAX_TOLD: usize = 10;

/// Reads and compiles the files that `-f` names. Mistakes in them are told, and do not hinder: a security object that is
/// broken denies, as it does in a mesh.
///
/// # Errors
/// One cannot be read, or not to its end.
pub(crate) async fn world(asked: &Files, out: &mut Out) -> Result<Offline, Stop> {
    let files = files::read(&asked.files, asked.recursive).await?;
    let profile = asked.profile;
    let work = move || {
        let mut objects: Vec<Arc<Object>> = Vec::new();
        let mut problems = Vec::new();
        for file in &files {
            let parsed = api::parse(&file.shown, &file.bytes);
            objects.extend(parsed.objects.into_iter().map(Arc::new));
            problems.extend(
                parsed
                    .problems
                    .into_iter()
                    .filter(|p| p.severity == Severity::Error),
            );
        }
        let unreadable = problems.iter().find(|problem| is_unreadable(problem));
        if let Some(problem) = unreadable {
            return Err(Failure::input(problem.one_line()));
        }
        let options = compiler::Options {
            profile,
            ..compiler::Options::default()
        };
        Offline::assuming(objects, Vec::new(), options)
            .map(|world| (world, problems))
            .map_err(|error| Failure::undecided(error.to_string()))
    };
    let read = tokio::task::spawn_blocking(work).await;
    let (world, problems) = read.map_err(|error| Failure::undecided(error.to_string()))??;
    let lenient = asked.profile == model::Profile::Istio;
    let mut told = problems.iter().filter(|p| !(lenient && p.only_secure()));
    for problem in told.by_ref().take(MAX_TOLD) {
        out.warn(&problem.one_line());
    }
    let more = told.count();
    if more > 0 {
        out.warn(&format!("{more} more mistakes: `meshward lint` shows them"));
    }
    Ok(world)
}
