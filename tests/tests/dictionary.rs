//! docs/results.md names every column of every table, and none that there is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_tests::process::{printed, run};
use evenkeel_tests::results::Rows;
use serde_json::Value;

const DICTIONARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results.md");

const SPEC: &str = "
apiVersion: evenkeel/v1
name: dictionary
description: A few trials with everything that makes a file
datasets:
  - synthetic: {generator: separable, samples: [20, 30], test_samples: 20, features: 4, margin: 1.0}
models: [{encoder: mlp, layers: 1, hidden: 8, pretrain: {samples: 200, epochs: 1}}]
strategies:
  - {name: head, setting: head, steps: 40, learning_rate: 0.1, checkpoints: [20]}
  - {name: mhloss, setting: head, steps: 40, learning_rate: 0.1, mhloss: {heads: 3}, checkpoints: [20]}
  - {name: full, setting: full, epochs: 1, learning_rate: 0.001}
seeds: 2
stability: {leave_one_out: 2, representations: 5}
predictions: probabilities
";

const TABLES: [&str; 8] = [
    "comparisons.parquet",
    "curves.parquet",
    "execution.parquet",
    "predictions.parquet",
    "representations.parquet",
    "results.parquet",
    "stability.parquet",
    "theory.parquet",
];

fn sweep(dir: &Path) -> PathBuf {
    let (spec, out) = (dir.join("spec.yaml"), dir.join("out"));
    fs::write(&spec, SPEC).expect("write spec");
    let output = run(["run", &spec.to_string_lossy(), "--out", &out.to_string_lossy()]).expect("run");
    assert!(output.status.success(), "{}", printed(&output));
    out
}

/// The lines of the section of a file.
fn section<'a>(dictionary: &'a str, file: &str) -> Vec<&'a str> {
    let heading = format!("## `{file}`");
    let from = dictionary.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> = from.take_while(|line| !line.starts_with("## ")).collect();
    assert!(!lines.is_empty(), "docs/results.md has no section {heading}");
    lines
}

/// The names that the rows of a section's tables begin with, each in backticks.
fn named<'a>(section: &[&'a str]) -> BTreeSet<&'a str> {
    let rows = section.iter().copied().filter(|line| line.starts_with("| `"));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_dictionary_names_every_column_and_key_and_no_other_column() {
    let dir = tempfile::tempdir().expect("tempdir");
    let out = sweep(dir.path());
    let dictionary = fs::read_to_string(DICTIONARY).expect("docs/results.md");
    let mut problems: Vec<String> = Vec::new();

    let entries = fs::read_dir(&out).expect("output directory").flatten();
    let files: BTreeSet<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let tables: Vec<&str> =
        files.iter().map(String::as_str).filter(|name| name.ends_with(".parquet")).collect();
    assert_eq!(tables, TABLES, "the tables of an output directory");
    for file in TABLES {
        let table = Rows::read(&out.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let columns: BTreeSet<&str> = table.columns.iter().map(String::as_str).collect();
        let section = section(&dictionary, file);
        let names = named(&section);
        for column in columns.difference(&names) {
            problems.push(format!("{file} has the column `{column}`, which its section does not name"));
        }
        for name in names.difference(&columns) {
            problems.push(format!("the section of {file} names `{name}`, which is no column of it"));
        }
    }

    let summary = fs::read_to_string(out.join("summary.json")).expect("summary");
    let summary: Value = serde_json::from_str(&summary).expect("json");
    let strategies = summary["strategies"].as_array().expect("strategies");
    let objects = std::iter::once(&summary).chain(strategies);
    let keys: BTreeSet<&String> =
        objects.filter_map(Value::as_object).flat_map(|object| object.keys()).collect();
    assert!(keys.len() > 50, "only {} keys in summary.json", keys.len());
    let text = section(&dictionary, "summary.json").join("\n");
    for key in keys {
        if !text.contains(&format!("`{key}`")) {
            problems.push(format!("summary.json has the key `{key}`, which its section does not name"));
        }
    }
    assert!(problems.is_empty(), "docs/results.md:\n{}", problems.join("\n"));
}
