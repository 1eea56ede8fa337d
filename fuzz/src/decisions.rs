//! Decisions against a plain second implementation, and paths against backends that read them in other ways.

use std::sync::{Arc, LazyLock};

use model::Reason;
use policy::path::{Dialects, Mode, normalize, strict_check};
use policy::{
    Action, Compat, Context, OperationSpec, Origin, PolicyId, PolicySet, PolicySpec, RuleSpec, authorize,
    explain,
};
use testkit::decisions::Request;
use testkit::decisions::generate::Choices;
use testkit::decisions::reference::{Verdict, decide};

/// The bytes choose policies and a request. The index decides as the reference does; an explanation agrees; order has no
/// influence; a backend that reads paths in more ways is admitted no more.
pub(crate) fn authorize_any(input: &[u8]) {
    let mut choices = Choices(input);
    let request = choices.request();
    let specs = choices.policies();
    let shared: Vec<Arc<PolicySpec>> = specs.iter().cloned().map(Arc::new).collect();
    let turned: Vec<Arc<PolicySpec>> = shared.iter().rev().cloned().collect();
    let facts = request.facts();
    for compat in [Compat::Istio, Compat::Secure] {
        let context = Context {
            compat,
            ..Context::default()
        };
        let set = PolicySet::compile(&shared, &[], &context);
        let found = verdict(&set, &request);
        if compat == Compat::Istio {
            assert_eq!(found, Some(decide(&specs, &request)), "{request:?} {specs:#?}");
        }
        assert_eq!(
            found,
            verdict(&PolicySet::compile(&turned, &[], &context), &request)
        );
        let denied = authorize(&facts, &set).err().map(|denial| denial.reason);
        assert_eq!(explain(&facts, &set).denied, denied);
        let all = PolicySet::compile_for(&shared, &[], &context, &Dialects::all());
        let wide = authorize(&facts, &all).err().map(|denial| denial.reason);
        assert!(
            denied.is_none() || wide.is_some(),
            "a dialect opens: {request:?} {specs:#?}"
        );
        assert_eq!(explain(&facts, &all).denied, wide);
    }
}

/// `None` for a reason that the reference does not know.
fn verdict(set: &PolicySet, request: &Request) -> Option<Verdict> {
    match authorize(&request.facts(), set) {
        Ok(permit) => {
            let by = permit
                .policy()
                .map(|id| (id.name.clone(), permit.rule().unwrap_or(usize::MAX)));
            Some(Verdict::Allowed(by))
        }
        Err(denial) => {
            let name = denial.policy().map(|id| id.name.clone()).unwrap_or_default();
            let rule = denial.rule.unwrap_or(usize::MAX);
            match denial.reason {
                Reason::DenyCustom => Some(Verdict::Custom(name, rule)),
                Reason::DenyExplicit => Some(Verdict::Denied(name, rule)),
                Reason::DenyNoAllow => Some(Verdict::NoAllow),
                _ => None,
            }
        }
    }
}

/// Longer targets show nothing new, slowly.
const MAX_TARGET: usize = 200;

const PATHS: &[(Action, &[&str])] = &[
    (Action::Deny, &["/admin", "/admin/*"]),
    (Action::Deny, &["/a/{*}/secret", "*.key"]),
    (Action::Deny, &["/files/{**}"]),
    (Action::Allow, &["/public", "/public/*"]),
    (Action::Allow, &["/a/{*}/open", "*.html"]),
];

struct Sets {
    /// Upstream's semantics: a path means what is written.
    literal: PolicySet,
    plain: PolicySet,
    /// For a backend that does everything.
    all: PolicySet,
}

static SETS: LazyLock<Vec<Sets>> = LazyLock::new(|| PATHS.iter().map(sets).collect());

fn sets((action, paths): &(Action, &[&str])) -> Sets {
    let spec = PolicySpec {
        id: PolicyId {
            namespace: "n".to_owned(),
            name: "p".to_owned(),
        },
        action: action.clone(),
        dry_run: false,
        rules: vec![RuleSpec {
            to: vec![OperationSpec {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                ..OperationSpec::default()
            }],
            ..RuleSpec::default()
        }],
        invalid: None,
        origin: Origin::default(),
    };
    let (specs, context) = ([Arc::new(spec)], Context::default());
    let istio = Context {
        compat: Compat::Istio,
        ..Context::default()
    };
    Sets {
        literal: PolicySet::compile(&specs, &[], &istio),
        plain: PolicySet::compile(&specs, &[], &context),
        all: PolicySet::compile_for(&specs, &[], &context, &Dialects::all()),
    }
}

/// A target that a backend reads as one that is refused, is refused (semantics 14, property 3).
///
/// Under the strict profile a backend may decode once, drop parameters, resolve dot segments, turn backslashes and merge
/// slashes, in any order; where its dialect says so it may also decode again and ignore case, without that profile.
pub(crate) fn obfuscate(input: &[u8]) {
    if input.len() > MAX_TARGET {
        return;
    }
    for mode in [Mode::Base, Mode::MergeSlashes, Mode::DecodeAndMergeSlashes] {
        let Ok(path) = normalize(input, mode) else {
            continue;
        };
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            continue;
        }
        let strict = strict_check(input).is_ok() && input.starts_with(b"/");
        for (sets, (action, paths)) in SETS.iter().zip(PATHS) {
            for (set, dialect) in [(&sets.plain, false), (&sets.all, true)] {
                if (!dialect && !strict) || !admits(set, &path) {
                    continue;
                }
                for read in backends(&path, dialect) {
                    let written = written(&read);
                    assert!(
                        admits(&sets.literal, &written),
                        "{mode:?} {action:?} {paths:?}: {path:?} is admitted, which a backend reads as {written:?}"
                    );
                }
            }
        }
    }
}

fn admits(set: &PolicySet, path: &str) -> bool {
    let request = Request {
        path: path.to_owned(),
        ..Request::default()
    };
    authorize(&request.facts(), set).is_ok()
}

/// One step of a backend.
type Step = fn(&[u8]) -> Vec<u8>;

/// What backends make of a path, each by itself: slow and plain.
fn backends(target: &str, dialect: bool) -> Vec<Vec<u8>> {
    let path = target.split('?').next().unwrap_or_default().as_bytes();
    let orders: &[&[Step]] = &[
        &[],
        &[unescape],
        &[unescape, dots],
        &[unescape, dots, slashes],
        &[strip, unescape, dots, slashes],
        &[unescape, strip, dots, slashes],
        &[unescape, slashes, dots, strip],
        &[strip, dots],
        &[dots, slashes, unescape],
    ];
    let twice: &[&[Step]] = &[
        &[unescape, unescape, dots, slashes],
        &[unescape, strip, unescape, strip, dots, slashes],
        &[unescape, unescape, unescape, strip, dots],
        &[lower],
        &[strip, unescape, lower, dots],
    ];
    let more = if dialect { twice } else { &[] };
    let run = |steps: &&[Step]| steps.iter().fold(path.to_vec(), |path, step| step(&path));
    orders.iter().chain(more).map(run).collect()
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::new();
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match tail {
            [high, low, tail @ ..] if *first == b'%' => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    out.push(high * 16 + low);
                    rest = tail;
                    continue;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*first),
        }
        rest = tail;
    }
    out
}

fn strip(path: &[u8]) -> Vec<u8> {
    let segments = path.split(|b| matches!(b, b'/'));
    let kept = segments.map(|s| s.split(|b| *b == b';').next().unwrap_or_default());
    kept.collect::<Vec<_>>().join(&b'/')
}

fn dots(path: &[u8]) -> Vec<u8> {
    let turned: Vec<u8> = path.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect();
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = turned.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b".." | b"." => {
                if segment == b".." {
                    kept.pop();
                }
                if last {
                    kept.push(b"");
                }
            }
            _ => kept.push(segment),
        }
    }
    [b"/".as_slice(), &kept.join(&b'/')].concat()
}

fn slashes(path: &[u8]) -> Vec<u8> {
    let mut out = path.to_vec();
    out.dedup_by(|a, b| *a == b'/' && *b == b'/');
    out
}

fn lower(path: &[u8]) -> Vec<u8> {
    path.to_ascii_lowercase()
}

/// What was read, as a mesh writes it: what still is an escape stays one.
fn written(path: &[u8]) -> String {
    let mut out = String::new();
    for (at, b) in path.iter().enumerate() {
        let digits = path.get(at + 1..at + 3).unwrap_or_default();
        let is_escape = digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit);
        match b {
            b'%' if is_escape => out.push('%'),
            b'?' | b'#' | b'%' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{'..=b'}' => {
                out.push_str(&format!("%{b:02X}"));
            }
            b if b.is_ascii_graphic() => out.push(char::from(*b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}
