use std::time::{Duration, Instant};

use admin::verbs::ProblemLine;

use super::bed::{Bed, NAMESPACE, config_map, policy, replace};

#[tokio::test(flavor = "multi_thread")]
async fn edits_new_files_and_removed_ones_take_effect() {
    let bed = Bed::start(
        &["a"],
        &[("n.yaml", NAMESPACE), ("one.yaml", &config_map("one", "x"))],
    )
    .await;
    assert_eq!(bed.names("cm").await, ["one"]);
    bed.write("two.yml", &config_map("two", "x"));
    bed.until_names("cm", &["one", "two"]).await;
    replace(&bed.file("two.yml"), &config_map("three", "x"));
    bed.until_names("cm", &["one", "three"]).await;
    std::fs::create_dir_all(bed.file("deep/er")).unwrap();
    bed.write(
        "deep/er/four.json",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"four"}}"#,
    );
    bed.write("notes.txt", "kind: [");
    bed.until_names("cm", &["four", "one", "three"]).await;
    std::fs::remove_dir_all(bed.file("deep")).unwrap();
    std::fs::remove_file(bed.file("one.yaml")).unwrap();
    bed.until_names("cm", &["three"]).await;
    assert_eq!(bed.status().await.unwrap().problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_breaks_is_named_and_what_it_held_stays() {
    let bed = Bed::start(&["a"], &[("n.yaml", NAMESPACE), ("p.yaml", &policy("p", "x"))]).await;
    bed.write("p.yaml", "apiVersion: v1\nkind: [\n");
    let is_error = |problem: &ProblemLine| problem.severity == "error";
    let status = bed.until(|status| status.problems.iter().any(is_error)).await;
    let error = status
        .problems
        .iter()
        .find(|problem| problem.severity == "error")
        .unwrap();
    assert_eq!(error.file, "mesh/p.yaml");
    assert!(error.line > 0 && error.column > 0, "{error:?}");
    assert_eq!(bed.names("ap").await, ["p"]);
    bed.write("p.yaml", &policy("q", "x"));
    let status = bed
        .until(|status| status.problems.iter().all(|problem| problem.severity != "error"))
        .await;
    assert_eq!(
        status.objects.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(),
        ["q"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_and_what_it_held_stays() {
    let bed = Bed::start(
        &["a"],
        &[("n.yaml", NAMESPACE), ("one.yaml", &config_map("one", "x"))],
    )
    .await;
    let size = u64::try_from(api::MAX_BYTES).unwrap() + 1;
    let file = std::fs::File::create(bed.file("big.yaml")).unwrap();
    file.set_len(size).unwrap();
    drop(file);
    let is_told =
        |problem: &ProblemLine| problem.file == "mesh/big.yaml" && problem.message.contains("8 MiB");
    bed.until(|status| status.problems.iter().any(is_told)).await;
    std::fs::remove_file(bed.file("big.yaml")).unwrap();
    bed.until(|status| status.problems.is_empty()).await;

    let (here, away) = (bed.file(""), bed.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    bed.until(|status| status.problems.iter().any(|p| p.file == "mesh"))
        .await;
    assert_eq!(
        bed.names("cm").await,
        ["one"],
        "a directory that is away empties no mesh"
    );
    std::fs::rename(&away, &here).unwrap();
    bed.until(|status| status.problems.is_empty()).await;
    bed.write("one.yaml", &config_map("uno", "x"));
    bed.until_names("cm", &["uno"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_volume_is_swapped_at_once() {
    let bed = Bed::start(&["a"], &[]).await;
    let volume = |name: &str, object: &str| {
        std::fs::create_dir(bed.file(name)).unwrap();
        bed.write(&format!("{name}/cm.yaml"), &config_map(object, "x"));
    };
    volume("..1", "one");
    std::os::unix::fs::symlink("..1", bed.file("..data")).unwrap();
    std::os::unix::fs::symlink("..data/cm.yaml", bed.file("cm.yaml")).unwrap();
    bed.until_names("cm", &["one"]).await;
    volume("..2", "two");
    std::os::unix::fs::symlink("..2", bed.file("..new")).unwrap();
    std::fs::rename(bed.file("..new"), bed.file("..data")).unwrap();
    bed.until_names("cm", &["two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_text_outlives_a_restart_and_ends_with_the_file() {
    let files = [
        ("n.yaml", NAMESPACE),
        ("p.yaml", &policy("p", "x")),
        ("q.yaml", &policy("q", "x")),
    ];
    let mut bed = Bed::start(&["a"], &files).await;
    bed.write("p.yaml", "kind: [");
    bed.write("q.yaml", "kind: [");
    let broken = |status: &admin::verbs::Status| {
        let errors = status
            .problems
            .iter()
            .filter(|problem| problem.severity == "error");
        errors.count() == 2
    };
    bed.until(broken).await;
    bed.restart().await;
    assert_eq!(bed.names("ap").await, ["p", "q"]);
    bed.until(broken).await;
    bed.stop().await;
    bed.write("p.yaml", &policy("r", "x"));
    std::fs::remove_file(bed.file("q.yaml")).unwrap();
    bed.restart().await;
    assert_eq!(bed.names("ap").await, ["r"]);
    let kept = std::fs::read_dir(bed.config.state.join("kept")).unwrap();
    assert_eq!(kept.count(), 0, "what is not needed is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_when_its_writer_is_done() {
    use std::io::Write as _;
    let both = format!("{}---\n{}", config_map("one", "x"), config_map("two", "x"));
    let bed = Bed::start(&["a"], &[("cm.yaml", &both)]).await;
    // The first look that watches has to be over.
    bed.write("sign.yaml", &config_map("sign", "x"));
    bed.until_names("cm", &["one", "sign", "two"]).await;
    let mut file = std::fs::File::create(bed.file("cm.yaml")).unwrap();
    file.write_all(config_map("one", "other").as_bytes()).unwrap();
    // A writer that pauses for longer than this is not waited for.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(
            bed.names("cm").await,
            ["one", "sign", "two"],
            "half of a file is no file"
        );
    }
    write!(file, "---\n{}", config_map("three", "x")).unwrap();
    drop(file);
    bed.until_names("cm", &["one", "sign", "three"]).await;
}
