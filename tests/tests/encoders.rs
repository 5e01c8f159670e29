//! Encoders that are pre-trained by the workers themselves, through the real programs.

use std::fs;
use std::path::Path;

use evenkeel_tests::process::{printed, run};
use evenkeel_tests::results::{Rows, assert_same_results};

const SPEC: &str = "
apiVersion: evenkeel/v1
name: small-encoders
datasets:
  - synthetic: {generator: token_sequences, samples: [30, 40], test_samples: 50, vocabulary: 24, length: 8, instances: 2}
models:
  - {encoder: transformer, hidden: 16, layers: 1, attention_heads: 2, pretrain: {samples: 3000, epochs: 2}}
strategies:
  - {name: full, setting: full, epochs: 1, learning_rate: 1.0e-3}
  - {name: surt, setting: full, epochs: 1, learning_rate: 1.0e-3, surt: {epochs: 1}}
  - {name: head, setting: head, steps: 50, learning_rate: 0.5}
seeds: 4
";

fn logs(out: &Path) -> String {
    let files = fs::read_dir(out.join("logs")).expect("logs").flatten();
    files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
}

#[test]
fn workers_pre_train_an_encoder_once_and_share_it_through_the_store() {
    let dir = tempfile::tempdir().expect("tempdir");
    let spec = dir.path().join("spec.yaml");
    fs::write(&spec, SPEC).expect("write spec");
    let outs = ["one", "two"].map(|name| dir.path().join(name));
    for (out, workers) in outs.iter().zip(["1", "2"]) {
        let arguments =
            ["run", &spec.to_string_lossy(), "--out", &out.to_string_lossy(), "--workers", workers];
        let output = run(arguments).expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        // Four datasets, three strategies and four seeds at once on two workers: all of them want it first.
        assert_eq!(logs(out).matches("encoder pre-trained").count(), 1, "{}", logs(out));
        let kept: Vec<_> = fs::read_dir(out.join("store/encoders")).expect("encoders").flatten().collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        let claims = fs::read_dir(out.join("store/claims")).map_or(0, |entries| entries.flatten().count());
        assert_eq!(claims, 0);
    }
    assert_same_results(&outs[0], &outs[1]);
    let results = Rows::read(&outs[0].join("results.parquet")).expect("results");
    assert_eq!(results.rows.len(), 48);
    assert!(results.column("status").iter().all(|status| *status == "completed"));
    assert!(results.column("features").iter().all(|d| *d == "16"));
    assert!(results.column("model").iter().all(|model| *model == "transformer"));
}
