//! The real files, where this machine has them: in `shared/data/glue` beside the repository, or in
//! `$EVENKEEL_GLUE_DIR`. Their licences keep them out of the repository; expected counts are of the files'
//! own provenance.

use std::path::{Path, PathBuf};

use super::*;

/// The folder of a task and the rows of each class in its files for training and testing.
fn expected(task: Task) -> (&'static str, &'static [usize], &'static [usize]) {
    match task {
        Task::Cola => ("CoLA", &[2528, 6023], &[322, 721]),
        Task::Sst2 => ("SST-2", &[29_780, 37_569], &[428, 444]),
        Task::Mrpc => ("MRPC", &[1194, 2474], &[129, 279]),
        Task::Qqp => ("QQP", &[5747, 3252], &[623, 377]),
        Task::Mnli => ("MNLI", &[3061, 2980, 2958], &[3479, 3123, 3213]),
        Task::MnliMismatched => ("MNLI", &[3061, 2980, 2958], &[3463, 3129, 3240]),
        Task::Qnli => ("QNLI", &[5273, 5204], &[2702, 2761]),
        Task::Rte => ("RTE", &[1249, 1241], &[146, 131]),
        Task::Wnli => ("WNLI", &[323, 312], &[40, 31]),
        Task::Boolq => ("BoolQ", &[14, 18], &[1237, 2033]),
        Task::Cb => ("CB", &[115, 119, 16], &[23, 28, 5]),
        Task::Copa => ("COPA", &[195, 205], &[55, 45]),
        Task::Wic => ("WiC", &[2714, 2714], &[319, 319]),
        Task::Wsc => ("WSC", &[295, 259], &[66, 38]),
        Task::Multirc => ("MultiRC", &[15_218, 12_025], &[2773, 2075]),
    }
}

/// The folder of the files; none (and why is printed) if there is none.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("EVENKEEL_GLUE_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/glue"), PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: no folder {}; set EVENKEEL_GLUE_DIR to one", folder.display());
        return None;
    }
    Some(folder)
}

/// The first of some files that a folder has.
fn read(folder: &Path, candidates: &[&str]) -> (String, Vec<u8>) {
    let found = candidates.iter().find_map(|name| Some((*name, std::fs::read(folder.join(name)).ok()?)));
    let (name, bytes) = found.unwrap_or_else(|| panic!("{}: none of {candidates:?}", folder.display()));
    (folder.join(name).display().to_string(), bytes)
}

#[test]
fn the_real_files_hold_the_rows_of_each_class_that_their_provenance_says() {
    let Some(folder) = folder() else { return };
    for task in Task::ALL {
        let (name, train, test) = expected(task);
        for (candidates, expected) in [(task.train_files(), train), (task.test_files(), test)] {
            let (path, bytes) = read(&folder.join(name), candidates);
            let examples = read_task(task, &path, &bytes, false).expect("read");
            let mut counts = vec![0; task.labels().len()];
            for row in &examples.rows {
                counts[row.label as usize] += 1;
                assert_eq!(row.segments.len(), if task == Task::Copa { 2 } else { 1 });
                assert_eq!(row.group.is_some(), task == Task::Multirc);
            }
            assert_eq!((counts.as_slice(), examples.skipped), (expected, 0), "{path}");
        }
    }
}

#[test]
fn the_real_questions_of_multirc_are_as_many_as_their_provenance_says() {
    let Some(folder) = folder() else { return };
    for (candidates, questions) in [(Task::Multirc.train_files(), 5131), (Task::Multirc.test_files(), 953)] {
        let (path, bytes) = read(&folder.join("MultiRC"), candidates);
        let examples = read_task(Task::Multirc, &path, &bytes, false).expect("read");
        assert_eq!(examples.rows.last().and_then(|row| row.group), Some(questions - 1));
    }
}

#[test]
fn the_real_words_of_wic_and_wsc_are_marked_once() {
    let Some(folder) = folder() else { return };
    for (task, name) in [(Task::Wic, "WiC"), (Task::Wsc, "WSC")] {
        for candidates in [task.train_files(), task.test_files()] {
            let (path, bytes) = read(&folder.join(name), candidates);
            for row in read_task(task, &path, &bytes, false).expect("read").rows {
                let (first, second) = texts(&row);
                for text in [Some(first), second].into_iter().flatten() {
                    // A few sentences of WiC have stars of their own.
                    assert!(text.matches('*').count() >= 2, "{text}");
                    assert_eq!(text.matches('#').count() >= 2, task == Task::Wsc, "{text}");
                }
            }
        }
    }
    let (path, bytes) = read(&folder.join("WSC"), Task::Wsc.test_files());
    let rows = read_task(Task::Wsc, &path, &bytes, false).expect("read").rows;
    let off_by_one = texts(&rows[42]).0;
    assert!(off_by_one.contains("an iron *safe* . Some day they might want to use #it# ,"), "{off_by_one}");
    let within = texts(&rows[95]).0;
    assert!(within.contains(", and *#their# mothers* are"), "{within}");
}

#[test]
fn the_real_files_of_other_tasks_are_read_as_ones_own() {
    let Some(folder) = folder() else { return };
    let sentence = OwnFormat { text: "sentence", text_pair: None, label: "label" };
    // CR's training file has four rows without a sentence.
    for (name, train, test, classes, skipped) in [
        ("TREC", 5452, 500, 6, 0),
        ("MR", 9596, 1066, 2, 0),
        ("CR", 3394, 377, 2, 4),
        ("SUBJ", 9000, 1000, 2, 0),
    ] {
        let (path, bytes) = read(&folder.join(name), &["train.tsv"]);
        let rows = read_own(&path, &bytes, &sentence, true).expect("read");
        assert_eq!((rows.rows.len(), rows.skipped), (train, skipped), "{path}");
        let labels = own_labels(&path, &rows).expect("labels");
        assert_eq!(labels.len(), classes);
        let (path, bytes) = read(&folder.join(name), &["dev.tsv"]);
        let rows = read_own(&path, &bytes, &sentence, false).expect("read");
        assert_eq!(index_own(&path, rows, &labels).expect("index").rows.len(), test);
    }
}
