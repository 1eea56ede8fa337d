//! The survey: ways into and out of a mesh that surprised people, replayed against a mesh of our own.
//!
//! A mesh is started from `samples/survey`, each [`Attempt`](attempt::Attempt) is carried out by a program inside the
//! attacker's pod, and whether it got through is read off a record that is made inside the victim's pod, packet by packet. What
//! our own log and metrics say of it is evidence and decides nothing. Each attempt is also carried out by the attacker's twin on
//! the victim's twin, which are not in the mesh: one that fails there would prove nothing, and is told as a failure.
//!
//! It drives the program as its users do, by its command line, and shares no code with what it attacks.

#![warn(missing_docs)]

mod attempt;
mod judge;
mod mesh;
mod row;
mod ways;
mod witness;

use std::io::Write as _;

use model::Profile;

pub use row::{Evidence, Row};

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Which defaults are in force.
    pub profile: Profile,
    /// One JSON document instead of the table.
    pub json: bool,
    /// Only attempts whose id contains it.
    pub only: String,
}

/// Carries it out and prints it. Returns the exit code: 0 where nothing got through that should not, 1 where something did or an
/// attempt proved nothing, 2 where it could not be done.
pub fn run(asked: &Asked) -> u8 {
    let rows = match rows(asked) {
        Ok(rows) => rows,
        Err(why) => {
            // Nobody may be left to read it.
            let _ = writeln!(std::io::stderr(), "error: {why}");
            return 2;
        }
    };
    let text = if asked.json {
        serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
    } else {
        row::table(&rows, asked.profile)
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return 2;
    }
    u8::from(rows.iter().any(Row::is_amiss))
}

/// Carries it out.
///
/// # Errors
/// The mesh did not come up, or one of its parts is gone.
pub fn rows(asked: &Asked) -> Result<Vec<Row>, String> {
    let mesh = mesh::Mesh::start(asked.profile)?;
    let mut judge = judge::Judge::new(&mesh, asked.profile)?;
    let chosen: Vec<_> = ways::all().filter(|way| way.id.contains(&asked.only)).collect();
    for (at, way) in chosen.iter().enumerate() {
        if !asked.json {
            let _ = writeln!(std::io::stderr(), "{}/{} {}", at + 1, chosen.len(), way.id);
        }
        judge.attempt(way)?;
    }
    judge.finish()
}
