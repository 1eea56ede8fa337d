use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use admin::verbs;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};
use serde_json::json;

use super::fake::{Desk, Fake, Script};
use crate::pods::exec::in_terminal;

/// A terminal that a person sits at: the person's end, and ours.
fn seat() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let person = openpt(flags).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let ours = ioctl_tiocgptpeer(&person, flags).unwrap();
    (person.into(), ours)
}

fn is_raw(terminal: impl AsFd) -> bool {
    !tcgetattr(terminal)
        .unwrap()
        .local_modes
        .contains(LocalModes::ICANON)
}

fn body() -> verbs::Exec {
    verbs::Exec {
        namespace: "full".to_owned(),
        target: "sleep".to_owned(),
        container: None,
        command: vec!["cat".to_owned()],
        tty: true,
        env: std::collections::BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_answers_pass_and_the_terminal_is_given_back() {
    let (mut person, ours) = seat();
    let size = Winsize {
        ws_row: 33,
        ws_col: 77,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let local = ours.try_clone().unwrap();
    let desk = Desk::default()
        .answers("exec", Script::ok(json!({"code": 5})))
        .with_fds(move |mut fds| {
            let given = fds.remove(0);
            let got = tcgetwinsize(&given).unwrap();
            assert_eq!((got.ws_row, got.ws_col), (33, 77));
            // The terminal at hand is raw before a key is passed on.
            while !is_raw(&local) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut far = File::from(given);
            far.write_all(b"ready?").unwrap();
            let mut line = [0; 16];
            let n = far.read(&mut line).unwrap();
            far.write_all(b"got ").unwrap();
            far.write_all(&line[..n]).unwrap();
        });
    let fake = Fake::new();
    fake.up(desk).await;
    let sitting = std::thread::spawn(move || {
        let mut seen = String::new();
        let mut bytes = [0; 64];
        let mut read_until = |person: &mut File, wanted: &str| {
            while !seen.contains(wanted) {
                let n = person.read(&mut bytes).unwrap();
                seen.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            }
        };
        read_until(&mut person, "ready?");
        person.write_all(b"key\r").unwrap();
        read_until(&mut person, "got key");
        person
    });
    let exited = in_terminal(
        &fake.mesh(),
        &body(),
        ours.try_clone().unwrap(),
        ours.try_clone().unwrap(),
    )
    .await;
    assert_eq!(exited.unwrap().code, 5);
    assert!(!is_raw(&ours));
    let _person = sitting.join().unwrap();
}

#[tokio::test]
async fn giving_up_and_being_refused_give_the_terminal_back_too() {
    let fake = Fake::new();
    let stays = Script {
        stays: true,
        ..Script::items([])
    };
    let up = fake.up(Desk::default().answers("exec", stays)).await;
    let (_person, ours) = seat();
    let (mesh, body) = (fake.mesh(), body());
    let command = in_terminal(&mesh, &body, ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let raw = async {
        while !is_raw(&ours) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        exited = command => panic!("{exited:?}"),
        () = raw => {}
    }
    assert!(!is_raw(&ours));
    tokio::time::timeout(Duration::from_secs(5), up.hung_up())
        .await
        .unwrap();
}
