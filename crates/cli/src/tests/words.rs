use std::ffi::OsString;
use std::path::PathBuf;

use model::Profile;

use crate::args::{self, Asked};
use crate::{Command, Down, Part, Up, parse};

/// The widest line of help.
const COLUMNS: usize = 100;

fn words(line: &str) -> Vec<OsString> {
    std::iter::once("meshward")
        .chain(line.split_whitespace())
        .map(OsString::from)
        .collect()
}

fn read(line: &str) -> Result<Command, u8> {
    args::parse(words(line)).map_err(|error| if error.use_stderr() { 64 } else { 0 })
}

fn asked(line: &str) -> Asked {
    match read(line) {
        Ok(Command::Ask(ask)) => ask.asked,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    args::definition().debug_assert();
}

#[test]
fn help_of_every_command_fits_a_hundred_columns() {
    fn check(command: &mut clap::Command) {
        for text in [command.render_help(), command.render_long_help()] {
            for line in text.to_string().lines() {
                assert!(line.chars().count() <= COLUMNS, "{}: {line}", command.get_name());
            }
        }
        assert!(
            command.get_about().is_some(),
            "{} says nothing",
            command.get_name()
        );
        for inner in command.get_subcommands_mut() {
            check(inner);
        }
    }
    let mut definition = args::definition();
    definition.build();
    check(&mut definition);
    for name in definition.get_subcommands().map(clap::Command::get_name) {
        if !["help", "workload"].contains(&name) {
            assert_eq!(read(&format!("{name} --help")).unwrap_err(), 0, "{name}");
        }
    }
}

#[test]
fn up_and_its_defaults() {
    let Ok(Command::Up(up)) = read("up samples/httpbin -") else {
        panic!("not up");
    };
    let wanted = Up {
        name: "default".to_owned(),
        sources: vec!["samples/httpbin".into(), "-".into()],
        recursive: false,
        nodes: 2,
        profile: Profile::Secure,
        detach: false,
        wait_ms: 60_000,
        local_tls: false,
        json_log: true,
        images: Vec::new(),
        json: false,
        leaf_lifetime_s: 0,
        jwks_allow: Vec::new(),
        dns_upstreams: Vec::new(),
        metrics_allow: Vec::new(),
        cacerts: None,
        quiet: false,
    };
    assert_eq!(up, wanted);
    let line = "up --name two -R --nodes 3 --profile istio --detach --wait 1m30s --local-tls --log-format text \
                --image a/b=run --leaf-lifetime 10s --jwks-allow 127.0.0.0/8 --dns-upstream 192.0.2.53 --dns-upstream [::1]:5353 --metrics-allow 10.77.0.0/16 \
                --cacerts c -o json -q x";
    let Ok(Command::Up(up)) = read(line) else {
        panic!("not up");
    };
    let wanted = Up {
        name: "two".to_owned(),
        sources: vec!["x".into()],
        recursive: true,
        nodes: 3,
        profile: Profile::Istio,
        detach: true,
        wait_ms: 90_000,
        local_tls: true,
        json_log: false,
        images: vec![("a/b".to_owned(), "run".to_owned())],
        json: true,
        leaf_lifetime_s: 10,
        jwks_allow: vec!["127.0.0.0/8".parse().unwrap()],
        dns_upstreams: vec!["192.0.2.53:53".parse().unwrap(), "[::1]:5353".parse().unwrap()],
        metrics_allow: vec!["10.77.0.0/16".parse().unwrap()],
        cacerts: Some("c".into()),
        quiet: true,
    };
    assert_eq!(up, wanted);
}

#[test]
fn parts_and_workloads_are_handed_back() {
    for (word, wanted) in [
        ("ca", Part::Ca),
        ("control", Part::Control),
        ("proxy", Part::Proxy),
        ("standalone", Part::Standalone),
    ] {
        let Ok(Command::Part(part, config)) = read(&format!("{word} --config x.json")) else {
            panic!("not a part");
        };
        assert_eq!((part, config), (wanted, PathBuf::from("x.json")));
    }
    let Ok(Command::Workload(program, rest)) = read("workload echo --name x --help -- --version") else {
        panic!("not a workload");
    };
    assert_eq!(program, "echo");
    assert_eq!(rest, ["--name", "x", "--help", "--", "--version"]);
    let Ok(Command::Down(down)) = read("down --all") else {
        panic!("not down");
    };
    let wanted = Down {
        name: "default".to_owned(),
        all: true,
    };
    assert_eq!(down, wanted);
}

#[test]
fn ca_is_a_part_or_a_question_and_never_both() {
    assert!(matches!(asked("ca status -o json"), Asked::Ca(_)));
    assert!(matches!(asked("ca rotate --wait 5m"), Asked::Ca(_)));
    for words in [
        "ca",
        "ca --config x.json status",
        "ca rotate --wait soon",
        "ca mint",
    ] {
        assert_eq!(read(words).unwrap_err(), 64, "{words}");
    }
}

#[test]
fn exec_keeps_the_words_of_the_command() {
    let Asked::Exec(exec) = asked("exec -n full sleep -it -c main -- curl -s --name x") else {
        panic!("not exec");
    };
    assert_eq!((exec.namespace.as_str(), exec.target.as_str()), ("full", "sleep"));
    assert!(exec.stdin && exec.tty);
    assert_eq!(exec.container.as_deref(), Some("main"));
    assert_eq!(exec.command, ["curl", "-s", "--name", "x"]);
}

#[test]
fn apply_waits_unless_told_not_to() {
    for (word, wanted) in [
        ("", 60_000),
        ("--wait", 60_000),
        ("--wait=true", 60_000),
        ("--wait=false", 0),
        ("--wait=5s", 5000),
    ] {
        let Asked::Apply(apply) = asked(&format!("apply {word} -f - -f dir -R --dry-run")) else {
            panic!("not apply");
        };
        assert_eq!(apply.wait, wanted, "{word}");
        assert_eq!(apply.files, [PathBuf::from("-"), PathBuf::from("dir")]);
    }
}

#[test]
fn what_is_not_understood_is_usage() {
    let wrong = [
        "",
        "nonsense",
        "up",
        "up --nodes 0 x",
        "up --nodes 65 x",
        "up --profile lax x",
        "up --wait soon x",
        "up --image nginx x",
        "up -o yaml x",
        "down x",
        "exec sleep",
        "exec -- true",
        "logs",
        "logs --tail x a",
        "apply",
        "apply -f",
        "delete",
        "delete -f x ap",
        "get -n a -A ap",
        "ps -o yaml",
        "ca",
        "--name Bad! ps",
        "lint",
        "--color blue ps",
    ];
    for line in wrong {
        assert_eq!(read(line).unwrap_err(), 64, "{line}");
    }
}

#[test]
fn everything_else_is_understood() {
    let right = [
        "ps",
        "ps -A",
        "ps -n full -o json",
        "ps -o wide",
        "logs --access",
        "logs --denied -f",
        "logs -n full httpbin --access -f",
        "logs web --tail 5 -c main",
        "delete AuthorizationPolicy edit -n m",
        "delete -f -",
        "get",
        "get all -A",
        "get ap edit -n m -o yaml",
        "get svc -o name",
        "status --wide",
        "status -o json",
        "info -o json",
        "ports",
        "proxies -o wide",
        "proxy-status node-0",
        "metrics node-1",
        "top --once -n full --sort denied --interval 2s",
        "dump /tmp/x.tar.gz -o json",
        "lint x.yaml",
        "lint -f x -R --profile istio -o json",
        "version -o json",
        "--name two ps",
        "ps --name two --color never",
    ];
    for line in right {
        let _ = asked(line);
    }
    assert_eq!(parse(words("--version")).unwrap_err(), 0);
}
