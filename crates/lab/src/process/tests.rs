use std::collections::BTreeMap;

use capture::Netns;
use capture::process::{Confinement, confine};

use super::*;

fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

async fn sh(script: &str) -> i32 {
    let argv = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let started = start(move || {
        let mut command = command(&argv, &env)?;
        confine(&mut command, Confinement::default());
        Ok((command, nothing))
    });
    started.await.unwrap().0.ended().await
}

#[tokio::test]
async fn exit_codes_are_a_shells() {
    assert_eq!(sh("exit 7").await, 7);
    assert_eq!(sh("kill -TERM $$").await, 143);
    let missing = start(|| Ok((Command::new("/nowhere/at/all"), nothing)))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), 127);
    assert_eq!(
        missing.to_string(),
        "cannot run `/nowhere/at/all`: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_process_is_killed_with_its_session() {
    let argv = ["sh", "-c", "sleep 60 & wait"].map(str::to_owned);
    let (mut process, ()) = start(move || {
        let mut command = command(&argv, &std::env::vars().collect())?;
        confine(&mut command, Confinement::default());
        Ok((command, nothing))
    })
    .await
    .unwrap();
    assert!(!process.catches_term());
    process.kill();
    assert_eq!(process.ended().await, 137);
}

#[tokio::test]
async fn a_container_sees_its_own_files_and_not_what_is_hidden() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "k").unwrap();
    std::fs::write(secret.join("hosts"), "127.0.0.1 marker\n").unwrap();
    let view = View {
        hidden: vec![secret.clone()],
        files: vec![
            (secret.join("hosts"), "/etc/hosts".into()),
            (secret.join("hosts"), secret.join("shown")),
        ],
        hostname: "a-pod".to_owned(),
        own_proc: true,
    };
    let netns = Netns::current().unwrap();
    let script = format!(
        "grep -q marker /etc/hosts && grep -q marker {0}/shown && ! test -e {0}/key && ! (echo x >> {0}/shown) 2>/dev/null && \
         test $(hostname) = a-pod && test $$ = 1 && test $(ls -d /proc/[0-9]* | wc -l) -le 4 && \
         ! (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null",
        secret.display()
    );
    let argv = ["sh".to_owned(), "-c".to_owned(), script];
    let (mut process, inside) = start(move || {
        make(&netns, &view)?;
        let mut command = command(&argv, &std::env::vars().collect())?;
        let own_proc = Confinement {
            own_proc: true,
            ..Confinement::default()
        };
        confine(&mut command, own_proc);
        Ok((command, nothing))
    })
    .await
    .unwrap();
    assert!(process.pid > 1);
    let () = inside;
    assert_eq!(process.ended().await, 0);
    assert!(secret.join("key").exists());
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("marker"));
}
