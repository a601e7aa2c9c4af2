//! `run --verify N`: whether a workload leaves the same files whatever is around it.

use gamut_tests::Daemon;
use std::fs;

#[test]
fn what_is_different_between_runs_is_named() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let results = daemon.directory().join("results");
    fs::create_dir(&results).unwrap();
    fs::write(results.join("input"), "one\n").unwrap();
    let bind = format!("{}:/results", results.display());
    let run = |script: &str| {
        let words = ["run", "--rm", "--verify", "3", "-v", &bind, "busybox"];
        daemon.gamut(&[&words[..], &["sh", "-c", script]].concat())
    };

    // Each run begins with what the first began with.
    let same = run("cat /results/input >>/results/sum; mkdir /made; echo done");
    assert_eq!((same.code, same.stdout.as_str()), (0, "done\n"), "{same:?}");
    assert!(
        same.stderr
            .contains("verified: 2 files are the same in 3 runs"),
        "{same:?}"
    );
    assert_eq!(fs::read_to_string(results.join("sum")).unwrap(), "one\n");

    let other = run("echo same >/results/a; hostname >/results/b; echo $TZ >/stamp");
    assert_eq!(other.code, 1, "{other:?}");
    for path in ["different: /results/b: file", "different: /stamp: file"] {
        assert!(other.stderr.contains(path), "{other:?}");
    }
    assert!(!other.stderr.contains("/results/a"), "{other:?}");

    // A run that fails is no result to compare.
    assert_eq!(run("exit 3").code, 3);
    let refused = daemon.gamut(&["run", "-d", "--verify", "2", "busybox", "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    let file = format!("{}:/file", results.join("input").display());
    let refused = daemon.gamut(&["run", "--verify", "2", "-v", &file, "busybox", "true"]);
    assert!(
        refused.code == 125 && refused.stderr.contains("no directory"),
        "{refused:?}"
    );

    assert_eq!(daemon.ok(&["ps", "-a", "-q"]), "");
    let beside: Vec<_> = fs::read_dir(daemon.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("verify"))
        .collect();
    assert!(beside.is_empty(), "{beside:?}");
    daemon.finish();
}
