//! Where things are printed, and how a command ends.

use std::io::{self, ErrorKind, IsTerminal, Write};

use admin::{Exit, Failure};
use serde::Serialize;

use crate::args::Colour;
use crate::table::{Mood, Table};
use crate::text::{clean, json, json_line};

/// Exit code: the words are not understood.
pub(crate) const USAGE: u8 = 64;
/// Exit code: a signal from the keyboard.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command stops early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// With a message for people.
    Failed(Failure),
    /// Whoever read what we print is gone; nobody is left to tell.
    Gone,
}

/// How a command ends: its exit code.
pub(crate) type Done = Result<u8, Stop>;

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Gone,
            _ => Failure::undecided(format!("cannot print: {error}")).into(),
        }
    }
}

impl From<serde_json::Error> for Stop {
    fn from(error: serde_json::Error) -> Self {
        Failure::undecided(format!("cannot print: {error}")).into()
    }
}

/// Standard output and standard error, or what stands for them.
pub(crate) struct Out {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    /// Whether what goes to standard output may be coloured.
    pub(crate) colour: bool,
    error_colour: bool,
    terminal: bool,
}

impl Out {
    pub(crate) fn standard(colour: Colour) -> Self {
        let may = |choice: anstream::ColorChoice| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => choice != anstream::ColorChoice::Never,
        };
        Self {
            colour: may(anstream::AutoStream::choice(&io::stdout())),
            error_colour: may(anstream::AutoStream::choice(&io::stderr())),
            terminal: io::stdout().is_terminal(),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
        }
    }

    #[cfg(test)]
    pub(crate) fn to(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Self {
        Self {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            colour: false,
            error_colour: false,
            terminal: false,
        }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints text that is clean, whole lines of it, at once.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Stop> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// Prints bytes that are clean; they may be kept back until [`Self::flush`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// Prints what was kept back.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        Ok(self.stdout.flush()?)
    }

    /// Prints a table; of an empty one only says, beside it, that there is nothing.
    pub(crate) fn table(&mut self, table: &Table, none: &str) -> Result<(), Stop> {
        if table.is_empty() {
            self.note(none);
            return Ok(());
        }
        let text = table.render(self.colour);
        self.print(&text)
    }

    /// Prints one JSON document.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let text = json(value)? + "\n";
        self.print(&text)
    }

    /// Prints one of several JSON documents, on a line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        let text = json_line(value)? + "\n";
        self.print(&text)
    }

    /// Says something beside what is printed. That nobody hears it does not stop a command.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.stderr, "{}", clean(text));
    }

    /// As [`Self::note`], for what is not right and does not stop the command.
    pub(crate) fn warn(&mut self, text: &str) {
        self.labelled("warning", Mood::Warning, text);
    }

    /// As [`Self::note`], for what is wrong.
    pub(crate) fn error(&mut self, text: &str) {
        self.labelled("error", Mood::Bad, text);
    }

    /// Says why a command stopped, and gives its exit code.
    pub(crate) fn finish(&mut self, done: Done) -> u8 {
        match done {
            Ok(code) => code,
            Err(Stop::Gone) => 0,
            Err(Stop::Failed(failure)) => {
                self.error(&failure.message);
                if failure.exit == Exit::Usage {
                    self.note(
                        "`meshward help` lists the commands, `meshward COMMAND --help` the words of one",
                    );
                }
                failure.exit.code()
            }
        }
    }

    fn labelled(&mut self, label: &str, mood: Mood, text: &str) {
        let label = mood.paint(label, self.error_colour);
        let _ = writeln!(self.stderr, "{label}: {}", clean(text));
    }
}
