//! The same tests without root: inside user, network and mount namespaces of an ordinary user.

use std::process::Command;

/// Set in the inner run.
const INNER: &str = "MESHWARD_CAPTURE_ROOTLESS";

#[test]
fn everything_holds_in_a_user_namespace() {
    if std::env::var_os(INNER).is_some() {
        println!("skipped: this is the inner run");
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs tmpfs /run && exec \"$0\" --test-threads 2 --nocapture";
    let probe = "mount -t tmpfs tmpfs /run";
    let inside = |script: &str| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--clear-groups", "unshare", "-Urnm"])
            .args(["sh", "-c", script])
            .arg(&exe)
            .env(INNER, "1");
        command
    };
    match inside(probe).output() {
        Ok(output) if output.status.success() => {}
        other => {
            println!("skipped: no user namespaces here: {other:?}");
            return;
        }
    }
    let output = inside(script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    // The one test that skips itself inside is this one.
    assert_eq!(text.matches("skipped:").count(), 1, "{text}");
}
