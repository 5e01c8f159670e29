//! Rules of the architecture that a search of the source can hold.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines of code, without comments.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("source");
    let lines = text.lines().enumerate();
    lines.map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default().to_owned())).collect()
}

#[test]
fn the_pure_parts_name_no_clock_no_socket_and_no_tensor() {
    let mut files = Vec::new();
    for dir in ["coordinator/src/core", "worker/src/core", "common/src"] {
        sources(&root().join(dir), &mut files);
    }
    files.retain(|file| {
        // The one part that does touch the world, and unit tests.
        let apart = ["runtime", "tests", "tests.rs"];
        !file.components().any(|part| apart.iter().any(|name| part.as_os_str() == *name))
    });
    assert!(files.len() > 20, "only {} files were found", files.len());
    let forbidden = [
        "tokio",
        "tonic",
        "etcd",
        "tch::",
        "async ",
        "Instant",
        "SystemTime",
        "std::net",
        "std::fs",
        "rand::",
    ];
    for file in files {
        for (number, line) in code(&file) {
            let names = |word: &str| {
                // Whole words: `RecordBatch::new` does not name `tch::`.
                let starts_word =
                    |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                line.match_indices(word).any(|(at, _)| starts_word(at))
            };
            if let Some(word) = forbidden.iter().find(|word| names(word)) {
                panic!("{}:{number} names {word}: {line}", file.display());
            }
        }
    }
}

#[test]
fn only_the_worker_links_libtorch() {
    for crate_name in ["common", "proto", "coordinator", "tests", "simulation"] {
        let manifest = fs::read_to_string(root().join(crate_name).join("Cargo.toml")).expect("manifest");
        assert!(!manifest.contains("tch"), "{crate_name} depends on tch");
    }
}

#[test]
fn dependencies_exist_once() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("lock file");
    for name in ["tonic", "prost", "arrow", "parquet", "rustls", "tokio", "hyper"] {
        let count = lock.lines().filter(|line| *line == format!("name = \"{name}\"")).count();
        assert_eq!(count, 1, "{name} is in the lock file {count} times");
    }
}
