//! What a container's image stands for on a machine without a registry: a built-in program, or a command.

pub(crate) mod environment;
mod words;

use api::Container;

pub(crate) use words::split;

/// What is started for a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// A program of `workloads`, with its arguments.
    BuiltIn(&'static str, Vec<String>),
    /// A command of this machine, with its arguments.
    Command(Vec<String>),
}

/// What the image of the container stands for: what the user says (`--image NAME=COMMAND`, the last that fits), or what
/// is built in.
///
/// # Errors
/// Nothing; the text names the option.
pub(crate) fn of(container: &Container, images: &[(String, String)]) -> Result<Program, String> {
    let image = Image::of(&container.image);
    if let Some((name, command)) = images.iter().rev().find(|(pattern, _)| image.is(pattern)) {
        let mut argv = split(command).map_err(|why| format!("--image {name}={command}: {why}"))?;
        if argv.is_empty() {
            return Err(format!("--image {name}=: no command is named"));
        }
        argv.extend(container.args.iter().cloned());
        return Ok(Program::Command(argv));
    }
    match image.name {
        "httpbin" => Ok(Program::BuiltIn("httpbin", http_ports(container, &[]))),
        "go-httpbin" => Ok(Program::BuiltIn("httpbin", http_ports(container, &["--go"]))),
        "tcp-echo-server" => Ok(Program::BuiltIn("tcp-echo", tcp_echo(container))),
        "app" => Ok(Program::BuiltIn("echo", echo(container))),
        "ext-authz" => Ok(Program::BuiltIn("ext-authz", arguments(container))),
        "tally" => Ok(Program::BuiltIn("tally", arguments(container))),
        "curl" => Ok(tool(container, Some("curl"))),
        "sleep" => Ok(tool(container, None)),
        _ => Err(format!(
            "image `{}` stands for no program on this machine; name one with `--image {}=COMMAND`",
            container.image, image.name
        )),
    }
}

/// The parts of an image's name that matter.
struct Image<'a> {
    whole: &'a str,
    /// Without tag and digest.
    path: &'a str,
    /// The last part of the path.
    name: &'a str,
}

impl<'a> Image<'a> {
    fn of(whole: &'a str) -> Self {
        let undigested = whole.split_once('@').map_or(whole, |(path, _)| path);
        let last = undigested.rsplit_once('/').map_or(undigested, |(_, last)| last);
        let name = last.split_once(':').map_or(last, |(name, _)| name);
        let tag = last.len() - name.len();
        let path = undigested.get(..undigested.len() - tag).unwrap_or(undigested);
        Self { whole, path, name }
    }

    fn is(&self, pattern: &str) -> bool {
        [self.whole, self.path, self.name]
            .into_iter()
            .any(|name| glob(pattern, name))
    }
}

/// Whether the text fits the pattern, in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

fn ports(container: &Container) -> impl Iterator<Item = u16> {
    let tcp = container
        .ports
        .iter()
        .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
    tcp.map(|port| port.container_port)
}

/// A web server's command line (`gunicorn -b 0.0.0.0:80 ...`) speaks of another program: the declared ports count. Where
/// none is declared, the words are all there is.
fn http_ports(container: &Container, first: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = first.iter().map(|word| (*word).to_owned()).collect();
    let declared: Vec<u16> = ports(container).collect();
    if declared.is_empty() {
        args.extend(container.command.iter().chain(&container.args).cloned());
    }
    for port in declared {
        args.extend(["--port".to_owned(), port.to_string()]);
    }
    args
}

fn tcp_echo(container: &Container) -> Vec<String> {
    let words: Vec<String> = arguments(container);
    if words.len() >= 2 {
        return words;
    }
    let declared: Vec<String> = ports(container).map(|port| port.to_string()).collect();
    let listen = if declared.is_empty() {
        "9000".to_owned()
    } else {
        declared.join(",")
    };
    vec![listen, "hello".to_owned()]
}

fn echo(container: &Container) -> Vec<String> {
    let words = arguments(container);
    if words.iter().any(|word| word.starts_with("--")) {
        return words;
    }
    ports(container).map(|port| format!("--port={port}")).collect()
}

/// The arguments; where a command names the program anew, what follows the program in it comes first.
fn arguments(container: &Container) -> Vec<String> {
    container
        .command
        .iter()
        .skip(1)
        .chain(&container.args)
        .cloned()
        .collect()
}

/// An image of a tool: it idles, or runs a command, which the machine then has to have.
fn tool(container: &Container, entry: Option<&str>) -> Program {
    let mut argv = container.command.clone();
    if argv.is_empty() && !container.args.is_empty() {
        // `args: ["sleep", "infinity"]` and `args: ["-s", "http://..."]` both occur.
        let own_program = container
            .args
            .first()
            .is_some_and(|word| !word.starts_with('-') && !word.contains("://"));
        argv.extend(entry.filter(|_| !own_program).map(str::to_owned));
    }
    argv.extend(container.args.iter().cloned());
    let program = argv
        .first()
        .map(|program| program.rsplit('/').next().unwrap_or(program));
    match program {
        None => Program::BuiltIn("idle", Vec::new()),
        Some("sleep") if argv.get(1).is_none_or(|time| time == "infinity" || long(time)) => {
            Program::BuiltIn("idle", Vec::new())
        }
        Some(_) => Program::Command(argv),
    }
}

/// A sleep of days is meant to be for ever.
fn long(time: &str) -> bool {
    if time.ends_with('d') {
        return true;
    }
    let seconds = time.strip_suffix('s').unwrap_or(time);
    seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ContainerPort;

    fn container(image: &str, command: &[&str], args: &[&str], ports: &[u16]) -> Container {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Container {
            image: image.to_owned(),
            command: owned(command),
            args: owned(args),
            ports: ports
                .iter()
                .map(|port| ContainerPort {
                    container_port: *port,
                    ..ContainerPort::default()
                })
                .collect(),
            ..Container::default()
        }
    }

    fn built_in(program: &'static str, args: &str) -> Program {
        Program::BuiltIn(program, args.split_whitespace().map(str::to_owned).collect())
    }

    fn command(words: &str) -> Program {
        Program::Command(words.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn the_images_of_istios_samples() {
        let none = &[];
        for (image, words, args, ports, expect) in [
            (
                "docker.io/mccutchen/go-httpbin:v2.15.0",
                &[][..],
                &[][..],
                &[8080][..],
                built_in("httpbin", "--go --port 8080"),
            ),
            (
                "docker.io/kennethreitz/httpbin",
                &["gunicorn", "-b", "0.0.0.0:80", "httpbin:app"],
                &[],
                &[8080],
                built_in("httpbin", "--port 8080"),
            ),
            (
                "kong/httpbin@sha256:00",
                &["gunicorn", "-b", "0.0.0.0:81"],
                &[],
                &[],
                built_in("httpbin", "gunicorn -b 0.0.0.0:81"),
            ),
            (
                "docker.io/curlimages/curl:8.16.0",
                &["/bin/sleep", "infinity"],
                &[],
                &[],
                built_in("idle", ""),
            ),
            (
                "curlimages/curl",
                &["/bin/sleep", "3650d"],
                &[],
                &[],
                built_in("idle", ""),
            ),
            ("curlimages/curl", &[], &[], &[], built_in("idle", "")),
            (
                "curlimages/curl",
                &[],
                &["-s", "http://a"],
                &[],
                command("curl -s http://a"),
            ),
            ("curlimages/curl", &["sleep"], &["2"], &[], command("sleep 2")),
            (
                "curlimages/curl",
                &["sh", "-c", "true"],
                &[],
                &[],
                command("sh -c true"),
            ),
            ("governmentpaas/sleep:1", &[], &[], &[], built_in("idle", "")),
            (
                "localhost:5000/tcp-echo-server:1.3",
                &[],
                &["9000,9001,9002", "hello"],
                &[9000],
                built_in("tcp-echo", "9000,9001,9002 hello"),
            ),
            (
                "tcp-echo-server",
                &["/bin/tcp-echo", "9000", "one"],
                &[],
                &[],
                built_in("tcp-echo", "9000 one"),
            ),
            (
                "gcr.io/istio-testing/app:latest",
                &[],
                &["--port=8080", "--tcp=9090"],
                &[8080],
                built_in("echo", "--port=8080 --tcp=9090"),
            ),
            (
                "registry.istio.io/testing/ext-authz:latest",
                &[],
                &[],
                &[8000, 9000],
                built_in("ext-authz", ""),
            ),
        ] {
            assert_eq!(
                of(&container(image, words, args, ports), none),
                Ok(expect),
                "{image}"
            );
        }
    }

    #[test]
    fn an_image_that_stands_for_nothing_names_the_option() {
        let why = of(&container("quay.io/x/web:1", &[], &[], &[]), &[]).unwrap_err();
        assert_eq!(
            why,
            "image `quay.io/x/web:1` stands for no program on this machine; name one with `--image web=COMMAND`"
        );
    }

    #[test]
    fn what_the_user_says_counts_more_and_the_last_most() {
        let pair = |name: &str, command: &str| (name.to_owned(), command.to_owned());
        let images = [
            pair("*/httpbin", "first"),
            pair("web", "second 'a b'"),
            pair("quay.io/*:2", "third"),
        ];
        let web = |image| of(&container(image, &["x"], &["-v"], &[]), &images);
        let words = |words: &[&str]| Ok(Program::Command(words.iter().map(|w| (*w).to_owned()).collect()));
        assert_eq!(web("a/httpbin:3"), words(&["first", "-v"]));
        assert_eq!(web("quay.io/web:1"), words(&["second", "a b", "-v"]));
        assert_eq!(web("quay.io/web:2"), words(&["third", "-v"]));
        let broken = [pair("web", "'a")];
        assert!(of(&container("web", &[], &[], &[]), &broken).is_err());
    }

    #[test]
    fn globs() {
        for (pattern, text, expect) in [
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("ab", "abc", false),
            ("*ab", "ab", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }
}
