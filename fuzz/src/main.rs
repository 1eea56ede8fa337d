//! Feeds every decoder with mutations of its corpus for some seconds; ends with 1 when one breaks.
//!
//!     cargo run -p fuzz -- [--seconds N] [--seed N] [TARGET...]
//!     cargo run -p fuzz -- --input FILE TARGET
//!
//! Not guided by coverage: `fuzz/coverage` is.  Also takes the sets in `MESHWARD_CONFORMANCE`, where given.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fuzz::mutate::{MAX_INPUT, Numbers, mutated};
use fuzz::{TARGETS, Target, below, corpus, find};

/// An input that takes longer is a finding: all of these decoders are linear.
const TOO_LONG: Duration = Duration::from_secs(20);
/// Files of a conformance set beyond these are left alone.
const MAX_SEEDS: usize = 3000;

struct Options {
    seconds: u64,
    seed: u64,
    input: Option<PathBuf>,
    targets: Vec<&'static Target>,
}

/// What runs now, for the watch on its time.
type Running = Arc<Mutex<Option<(Instant, &'static str, Vec<u8>)>>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(64)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let options = options(std::env::args().skip(1))?;
    if let Some(file) = &options.input {
        let input = std::fs::read(file)?;
        return Ok(options
            .targets
            .iter()
            .all(|t| catch_unwind(|| (t.run)(&input)).is_ok()));
    }
    let running = Running::default();
    watch(Arc::clone(&running));
    let mut fine = true;
    for target in &options.targets {
        fine &= hunt(target, &options, &running)?;
    }
    Ok(fine)
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        seconds: 5,
        seed: 1,
        input: None,
        targets: Vec::new(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is not a number"));
        match word.as_str() {
            "--seconds" => options.seconds = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--input" => options.input = Some(value()?.into()),
            name => {
                let names = || TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
                let target = find(name);
                let target = target.ok_or_else(|| format!("no target `{name}`; there are {}", names()))?;
                options.targets.push(target);
            }
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().collect();
    }
    Ok(options)
}

/// Whether nothing was found.
fn hunt(target: &'static Target, options: &Options, running: &Running) -> Result<bool, Box<dyn Error>> {
    let seeds = seeds(target)?;
    let mut numbers = Numbers::new(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let started = Instant::now();
    let mut count: u64 = 0;
    let mut first = seeds.iter().cloned();
    while Instant::now() < end {
        let input = first
            .next()
            .unwrap_or_else(|| mutated(&seeds, target.words, &mut numbers));
        if let Ok(mut now) = running.lock() {
            *now = Some((Instant::now(), target.name, input.clone()));
        }
        let end = catch_unwind(|| (target.run)(&input));
        count += 1;
        if end.is_err() {
            let file = keep(target.name, &input)?;
            println!("{}: BROKEN by {} after {count} runs", target.name, file.display());
            return Ok(false);
        }
    }
    running.lock().unwrap_or_else(PoisonError::into_inner).take();
    let millis = u64::try_from(started.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    println!(
        "{}: {count} runs, {} a second, from {} seeds",
        target.name,
        count.saturating_mul(1000) / millis,
        seeds.len()
    );
    Ok(true)
}

fn seeds(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files = corpus(target.name)?;
    if let Some(data) = std::env::var_os("MESHWARD_CONFORMANCE") {
        let sets: &[&str] = match target.name {
            "yaml" => &["fuzz-seeds", "crd-validation", "validation-tables", "analyzers"],
            "http1" => &["fuzz-seeds", "http1"],
            _ => &["fuzz-seeds"],
        };
        for set in sets {
            let mut more = Vec::new();
            below(&Path::new(&data).join(set), &mut more)?;
            more.sort();
            files.extend(more.into_iter().take(MAX_SEEDS));
        }
    }
    let mut seeds = vec![Vec::new()];
    for file in files {
        let mut bytes = std::fs::read(file)?;
        bytes.truncate(MAX_INPUT);
        seeds.push(bytes);
    }
    Ok(seeds)
}

/// Saves an input that broke something.
fn keep(target: &str, input: &[u8]) -> std::io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{target}-{:016x}", hasher.finish()));
    std::fs::write(&file, input)?;
    Ok(file)
}

/// Ends the program when one input takes too long.
fn watch(running: Running) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((since, target, input)) = now.as_ref()
                && since.elapsed() > TOO_LONG
            {
                let file = keep(target, input);
                println!("{target}: SLOW, longer than {TOO_LONG:?}: {file:?}");
                std::process::exit(1);
            }
        }
    });
}
