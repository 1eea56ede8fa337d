//! `explain path`: how a path is read, by the code that reads it.

use policy::path::{self, Mode};
use serde::Serialize;

use super::args::{self, Path};
use crate::out::{Done, Out};
use crate::table::{Cell, Mood, Table};

/// A path, explained.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    received: String,
    mode: &'static str,
    /// As routing, decisions and the application see it; `null` where it is refused.
    normalized: Option<String>,
    /// Why it is refused.
    refused: Option<String>,
    steps: Vec<Step>,
    /// Whether a backend may read it in another way too.
    ambiguous: bool,
    /// What else it may mean.
    readings: Vec<String>,
    strict: Strict,
}

#[derive(Serialize)]
struct Step {
    step: &'static str,
    path: String,
}

/// What the strict profile says.
#[derive(Serialize)]
struct Strict {
    refused: bool,
    why: Option<String>,
}

pub(crate) fn path(asked: &Path, out: &mut Out) -> Done {
    let explained = explain(asked);
    let refused = explained.refused.is_some() || (asked.strict && explained.strict.refused);
    match asked.output {
        Some(_) => out.json(&explained)?,
        None => {
            let text = table(&explained, asked.strict).render(out.colour);
            out.print(&text)?;
        }
    }
    Ok(u8::from(refused))
}

fn explain(asked: &Path) -> Explained {
    let (mode, name) = match asked.mode {
        args::Mode::None => (Mode::None, "NONE"),
        args::Mode::Base => (Mode::Base, "BASE"),
        args::Mode::MergeSlashes => (Mode::MergeSlashes, "MERGE_SLASHES"),
        args::Mode::DecodeAndMergeSlashes => (Mode::DecodeAndMergeSlashes, "DECODE_AND_MERGE_SLASHES"),
    };
    let raw = asked.uri.as_bytes();
    let (steps, _) = path::trace(raw, mode);
    let result = path::normalize(raw, mode);
    let normalized = result.as_ref().ok().map(|path| path.clone().into_owned());
    let readings = normalized.as_deref().map(path::readings).unwrap_or_default();
    let strict = path::strict_check(raw).err();
    Explained {
        received: asked.uri.clone(),
        mode: name,
        normalized,
        refused: result.err().map(|error| error.to_string()),
        steps: steps
            .into_iter()
            .map(|(step, path)| Step { step, path })
            .collect(),
        ambiguous: !readings.is_empty(),
        readings,
        strict: Strict {
            refused: strict.is_some(),
            why: strict.map(|error| error.to_string()),
        },
    }
}

fn table(explained: &Explained, strict: bool) -> Table {
    let mut table = Table::bare();
    let mut row = |what: &str, said: Cell| table.row(vec![what.into(), said]);
    for step in &explained.steps {
        row(step.step, (&*step.path).into());
    }
    match (&explained.refused, &explained.strict.why) {
        (Some(why), _) => row("refused (400)", Cell::new(why, Mood::Bad)),
        (None, Some(why)) if strict => row("refused (400)", Cell::new(format!("strict: {why}"), Mood::Bad)),
        (None, why) => {
            let path = explained.normalized.as_deref().unwrap_or_default();
            row("decided by", Cell::new(path, Mood::Good));
            if explained.readings.is_empty() {
                row("other readings", "none: every backend reads it alike".into());
            }
            for reading in &explained.readings {
                row("may be read as", Cell::new(reading, Mood::Warning));
            }
            match why {
                Some(why) => row(
                    "strict",
                    Cell::new(format!("would refuse it: {why}"), Mood::Warning),
                ),
                None => row("strict", "takes it".into()),
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str, mode: args::Mode, strict: bool) -> String {
        let asked = Path {
            uri: uri.to_owned(),
            mode,
            strict,
            output: None,
        };
        table(&explain(&asked), strict).render(false)
    }

    #[test]
    fn each_step_is_shown_and_what_else_it_may_mean() {
        let text = shown("/a/..%2fadmin;x//b?q#f", args::Mode::MergeSlashes, false);
        let wanted = "received        /a/..%2fadmin;x//b?q#f\n\
                      fragment cut    /a/..%2fadmin;x//b?q\n\
                      canonical       /a/..%2fadmin;x//b?q\n\
                      slashes merged  /a/..%2fadmin;x/b?q\n\
                      decided by      /a/..%2fadmin;x/b?q\n\
                      may be read as  /admin;x/b?q\n\
                      may be read as  /a/..%2fadmin/b?q\n\
                      may be read as  /admin/b?q\n\
                      strict          would refuse it: the path holds an encoded slash or a backslash\n";
        assert_eq!(text, wanted);
        let text = shown("/a/../b", args::Mode::Base, true);
        assert!(
            text.contains("refused (400)  strict: the path holds a dot segment"),
            "{text}"
        );
        let text = shown("/a%00", args::Mode::Base, false);
        assert!(
            text.contains("refused (400)  the path holds a NUL byte"),
            "{text}"
        );
        assert!(text.contains("fragment cut   /a%00"), "{text}");
    }
}
