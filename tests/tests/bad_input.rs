//! What is wrong is said before anything runs, with what, where and how to mend it.

use std::fs;

use evenkeel_tests::process::{printed, run};

const GOOD: &str = "
apiVersion: evenkeel/v1
name: small
datasets:
  - synthetic: {generator: blobs, samples: 20, features: 2, cluster_std: 0.5}
strategies:
  - {name: head, setting: head, steps: 5, learning_rate: 0.1}
seeds: 2
";

/// Runs `evenkeel run` on a spec in a folder with these files.
fn refused(spec: &str, files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("tempdir");
    for (name, content) in files.iter().chain(&[("spec.yaml", spec)]) {
        fs::write(dir.path().join(name), content).expect("write");
    }
    let (spec, out) = (dir.path().join("spec.yaml"), dir.path().join("out"));
    let output = run(["run".as_ref(), spec.as_os_str(), "--out".as_ref(), out.as_os_str()]).expect("run");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(!out.exists(), "something was written although the spec is bad");
    printed(&output)
}

fn with_features(features: &str) -> String {
    GOOD.replace(
        "synthetic: {generator: blobs, samples: 20, features: 2, cluster_std: 0.5}",
        &format!("features: {features}"),
    )
}

#[test]
fn a_spec_error_names_file_line_field_and_the_near_miss() {
    let message = refused(&GOOD.replace("learning_rate", "learning_rat"), &[]);
    for part in ["spec.yaml:7", "strategies[0]", "learning_rat", "did you mean `learning_rate`"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let message = refused(&GOOD.replace("seeds: 2", "seeds: 0"), &[]);
    assert!(message.contains("seeds"), "{message}");
}

#[test]
fn an_empty_grid_and_one_past_counting_are_refused() {
    let message = refused(&GOOD.replace("steps: 5", "steps: []"), &[]);
    assert!(message.contains("steps") && message.contains("no trial"), "{message}");
    let message = refused(
        &GOOD.replace("seeds: 2", "seeds: 9223372036854775807").replace("samples: 20", "samples: [20, 30]"),
        &[],
    );
    assert!(message.contains("2^63"), "{message}");
}

#[test]
fn feature_files_are_checked_before_anything_runs() {
    let good = "a,b,target\n1,2,x\n3,4,x\n5,6,y\n7,8,y\n";
    let spec = with_features("{path: data.csv, label: target}");
    for (label, spec, file, parts) in [
        (
            "missing file",
            with_features("{path: nothing.csv, label: target}"),
            good,
            vec!["nothing.csv", "datasets[0]"],
        ),
        ("missing column", with_features("{path: data.csv, label: targt}"), good, vec!["targt", "target"]),
        ("nan", spec.clone(), "a,b,target\n1,2,x\nNaN,4,x\n5,6,y\n7,8,y\n", vec!["NaN", "data.csv"]),
        ("lonely class", spec.clone(), "a,b,target\n1,2,x\n3,4,x\n5,6,y\n", vec!["y", "one"]),
    ] {
        let message = refused(&spec, &[("data.csv", file)]);
        for part in parts {
            assert!(message.contains(part), "{label}: {part:?} is not in: {message}");
        }
    }
}

#[test]
fn an_output_directory_of_another_spec_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spec, out) = (dir.path().join("spec.yaml"), dir.path().join("out"));
    let go = || {
        run(["run".as_ref(), spec.as_os_str(), "--out".as_ref(), out.as_os_str(), "--quiet".as_ref()])
            .expect("run")
    };
    fs::write(&spec, GOOD).expect("write");
    let first = go();
    assert!(first.status.success(), "{}", printed(&first));
    let results = fs::read(out.join("results.parquet")).expect("results");
    fs::write(&spec, GOOD.replace("steps: 5", "steps: 6")).expect("write");
    let second = go();
    assert_eq!(second.status.code(), Some(2), "{}", printed(&second));
    assert!(printed(&second).contains("choose another --out"), "{}", printed(&second));
    assert_eq!(results, fs::read(out.join("results.parquet")).expect("results"));
}

#[test]
fn a_coordinator_that_is_not_there_is_said_so() {
    let output = run(["list", "--endpoint", "http://127.0.0.1:1"]).expect("list");
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
    assert!(
        printed(&output).contains("no coordinator answers at http://127.0.0.1:1"),
        "{}",
        printed(&output)
    );
}

#[test]
fn trials_that_diverge_are_results_and_no_failures() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spec, out) = (dir.path().join("spec.yaml"), dir.path().join("out"));
    let diverging = GOOD
        .replace("learning_rate: 0.1", "learning_rate: 1.0e+6, weight_decay: 1.0e+3, bias: true")
        .replace("steps: 5", "steps: 200");
    fs::write(&spec, diverging).expect("write");
    let output = run(["run".as_ref(), spec.as_os_str(), "--out".as_ref(), out.as_os_str()]).expect("run");
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let results = evenkeel_tests::results::Rows::read(&out.join("results.parquet")).expect("results");
    assert!(
        results.column("status").iter().all(|status| *status == "diverged"),
        "{:?}",
        results.column("status")
    );
}
