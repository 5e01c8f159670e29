//! Each official layout, and what is wrong with rows.

use super::*;

const CB: &str = r#"{"premise": "p", "hypothesis": "h", "label": "neutral", "idx": 0}"#;
const WIC: &str = r#"{"word": "a", "sentence1": "é ab c", "sentence2": "ab",
    "start1": 2, "end1": 4, "start2": 0, "end2": 2, "label": true}"#;

/// The message for the first bad row, and what is left when bad rows are passed over.
fn refused(task: Task, text: &[u8]) -> (String, Result<Examples, TextError>) {
    let message = super::task(task, text).expect_err("refused");
    (message, read_task(task, "f", text, true))
}

#[test]
fn cola_has_four_columns_and_no_header() {
    let read = task(Task::Cola, b"gj04\t1\t\tA \"quoted\" one.\ncj99\t0\t*\tAn bad one.").expect("read");
    assert_eq!(labels(&read), [1, 0]);
    assert_eq!(texts(&read.rows[0]), ("A \"quoted\" one.", None));
    assert_eq!(read.skipped, 0);
    assert_eq!(read.rows[0].group, None);
}

#[test]
fn columns_are_found_by_name_wherever_they_stand() {
    let cases: [(Task, &str, &str, u32); 6] = [
        (Task::Mrpc, "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb", 1),
        (Task::Qqp, "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t\t\ta\tb\t0", 0),
        (Task::Mnli, "index\tsentence1\tsentence2\tlabel1\tgold_label", "0\ta\tb\tneutral\tcontradiction", 2),
        (Task::Qnli, "index\tquestion\tsentence\tlabel", "4\ta\tb\tnot_entailment", 1),
        (Task::Rte, "label\tsentence2\tsentence1", "entailment\tb\ta", 0),
        (Task::Wnli, "index\tsentence1\tsentence2\tlabel", "0\ta\tb\t1", 1),
    ];
    for (task, header, row, label) in cases {
        let read = super::task(task, format!("{header}\r\n{row}\r\n").as_bytes()).expect("read");
        assert_eq!(labels(&read), [label], "{task:?}");
        assert_eq!(texts(&read.rows[0]), ("a", Some("b")), "{task:?}");
    }
    let read = task(Task::Sst2, b"sentence\tlabel\nfine . \t1\n").expect("read");
    assert_eq!(texts(&read.rows[0]), ("fine . ", None), "a text is left as it is");
}

#[test]
fn quotes_of_glue_are_text_and_open_nothing() {
    let read = task(Task::Sst2, b"sentence\tlabel\n\"open\t1\nshut\"\t0\n").expect("read");
    assert_eq!(labels(&read), [1, 0]);
    assert_eq!(texts(&read.rows[0]).0, "\"open");
}

#[test]
fn cb_and_boolq_are_pairs() {
    let read = task(Task::Cb, CB.as_bytes()).expect("read");
    assert_eq!((texts(&read.rows[0]), labels(&read)), (("p", Some("h")), vec![2]));
    let row = br#"{"question": "is it", "passage": "It is.", "idx": 0, "label": true}"#;
    let read = task(Task::Boolq, row).expect("read");
    assert_eq!((texts(&read.rows[0]), labels(&read)), (("It is.", Some("is it")), vec![1]));
}

#[test]
fn copa_has_a_segment_for_each_choice() {
    let rows = r#"{"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 1}
{"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "effect", "label": 0}"#;
    let read = task(Task::Copa, rows.as_bytes()).expect("read");
    assert_eq!(labels(&read), [1, 0]);
    let segment = |first: &str, second: &str| Segment { first: first.into(), second: Some(second.into()) };
    let cause = "P. What was the cause of this?";
    assert_eq!(read.rows[0].segments, [segment(cause, "A."), segment(cause, "B.")]);
    let effect = "P. What happened as a result?";
    assert_eq!(read.rows[1].segments, [segment(effect, "A."), segment(effect, "B.")]);
    let (message, _) = refused(Task::Copa, rows.replace("effect", "reason").as_bytes());
    assert!(message.contains("line 2: found \"reason\" in \"question\""), "{message}");
}

#[test]
fn wic_counts_characters_as_python_does() {
    let read = task(Task::Wic, WIC.replace('\n', "").as_bytes()).expect("read");
    assert_eq!(texts(&read.rows[0]), ("é *ab* c", Some("*ab*")));
    assert_eq!(labels(&read), [1]);
}

#[test]
fn a_word_past_the_sentence_is_refused() {
    for (field, value) in
        [("\"end2\": 2", "\"end2\": 3"), ("\"start1\": 2", "\"start1\": 4"), ("\"end1\": 4", "\"end1\": -1")]
    {
        let (message, skipped) = refused(Task::Wic, WIC.replace('\n', "").replace(field, value).as_bytes());
        assert!(message.starts_with("train.jsonl, line 1: found "), "{message}");
        assert_eq!(skipped, Err(TextError::NoRows { path: "f".into(), skipped: 1 }));
    }
}

fn wsc(text: &str, noun: (&str, u32), pronoun: (&str, u32)) -> Result<String, String> {
    let target = serde_json::json!({
        "span1_text": noun.0, "span1_index": noun.1, "span2_text": pronoun.0, "span2_index": pronoun.1,
    });
    let row = serde_json::json!({"text": text, "target": target, "label": false}).to_string();
    task(Task::Wsc, row.as_bytes()).map(|read| texts(&read.rows[0]).0.to_owned())
}

#[test]
fn wsc_marks_the_phrase_and_the_pronoun() {
    let found = wsc("Mark told Pete's  aunt, whom\nhe liked.", ("Pete's aunt", 2), ("he", 5));
    assert_eq!(found.as_deref(), Ok("Mark told *Pete's  aunt*, whom\n#he# liked."));
    // Spans of the release that differ from the text in case or in blanks.
    let found = wsc("the Big dog saw it", ("The big\ndog", 0), ("It", 4));
    assert_eq!(found.as_deref(), Ok("*the Big dog* saw #it#"));
}

#[test]
fn a_pronoun_within_the_phrase_is_marked_within_it() {
    let found = wsc("and their mothers are", ("their mothers", 1), ("their", 1));
    assert_eq!(found.as_deref(), Ok("and *#their# mothers* are"));
    let found = wsc("the mother of her left", ("mother of her", 1), ("her", 3));
    assert_eq!(found.as_deref(), Ok("the *mother of #her#* left"));
    assert_eq!(wsc("he is he", ("he", 0), ("he", 0)).as_deref(), Ok("*#he#* is he"));
}

#[test]
fn an_index_of_wsc_may_be_off_by_a_word_or_two() {
    assert_eq!(wsc("want to use it now", ("now", 4), ("it", 2)).as_deref(), Ok("want to use #it# *now*"));
    let message = wsc("it is a very long way", ("way", 5), ("it", 3)).expect_err("too far");
    assert!(message.contains("found the phrase \"it\" at word 3, which is \"very\""), "{message}");
    assert!(wsc("items are here", ("here", 2), ("it", 0)).is_err(), "a part of a word");
    let message = wsc("it is", ("is", 9), ("it", 0)).expect_err("past the end");
    assert!(message.contains("past the end"), "{message}");
    assert!(wsc("it is", ("", 0), ("it", 0)).is_err());
}

#[test]
fn multirc_numbers_its_questions_through_the_file() {
    let row = |answers: &str| {
        let first =
            r#"{"question": "Q?", "answers": [{"text": "a", "label": 1}, {"text": "b", "label": 0}]}"#;
        let second = format!(r#"{{"question": "R?", "answers": [{answers}]}}"#);
        format!(r#"{{"passage": {{"text": "P.", "questions": [{first}, {second}]}}}}"#)
    };
    let third = r#"{"text": "c", "label": 0}"#;
    let text = format!("{}\n{}\n{}\n", row(third), row(""), row(third));
    let read = task(Task::Multirc, text.as_bytes()).expect("read");
    assert_eq!(labels(&read), [1, 0, 0, 1, 0, 1, 0, 0]);
    let groups: Vec<Option<u32>> = read.rows.iter().map(|row| row.group).collect();
    assert_eq!(groups, [0, 0, 1, 2, 2, 3, 3, 4].map(Some));
    assert_eq!(texts(&read.rows[2]), ("P.", Some("R? c")));

    let text = format!("{}\n{}\n{}\n", row(third), row("7"), row(third));
    let (message, skipped) = refused(Task::Multirc, text.as_bytes());
    assert!(message.contains("line 2: found a list in \"answers\", expected a list of objects"), "{message}");
    let skipped = skipped.expect("read");
    assert_eq!((skipped.skipped, skipped.rows.len()), (1, 6));
    assert_eq!(skipped.rows.last().and_then(|row| row.group), Some(3));
}

#[test]
fn a_malformed_row_is_refused_with_its_place_or_passed_over() {
    let cases: [(Task, &[u8], &str); 6] = [
        (Task::Cola, b"a\t1\t\tb\na\t1\n", "found 2 columns, expected 4 columns"),
        (Task::Sst2, b"sentence\tlabel\na\t1\tb\nc\t0", "found 3 columns, expected 2 columns"),
        (Task::Sst2, b"sentence\tlabel\nb\t1\n\xff\t1\n", "found bytes that are not UTF-8 (from byte 1"),
        (Task::Cb, b"{\"premise\": \"p\"\n", "found no JSON (EOF while parsing an object, at column 15)"),
        (Task::Cb, b"[1]", "found a list, expected a JSON object"),
        (Task::Cb, b"{\"premise\": 3}", "found 3 in \"premise\", expected text"),
    ];
    for (task, text, expected) in cases {
        let (message, skipped) = refused(task, text);
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with(task.train_file()), "{message}");
        assert!(message.ends_with("or set `skip_malformed: true` to pass over such rows"), "{message}");
        let skipped = skipped.map_or_else(
            |error| matches!(error, TextError::NoRows { skipped: 1, .. }),
            |read| (read.skipped, read.rows.len()) == (1, 1),
        );
        assert!(skipped, "{task:?}");
    }
    let (message, _) = refused(Task::Cb, CB.replace("\"label\"", "\"class\"").as_bytes());
    let fields = "no field \"label\" (fields: \"class\", \"hypothesis\", \"idx\", \"premise\")";
    assert!(message.contains(fields), "{message}");
}

#[test]
fn places_count_the_header_and_empty_lines() {
    let (message, _) = refused(Task::Sst2, b"sentence\tlabel\n\na\t1\n\r\nb\n");
    assert!(message.starts_with("train.tsv, line 5: found 1 column, expected 2"), "{message}");
}

#[test]
fn an_unknown_label_is_refused_even_where_rows_may_be_passed_over() {
    let (message, skipped) = refused(Task::Rte, b"sentence1\tsentence2\tlabel\na\tb\tneutral\n");
    let expected =
        "train.tsv, line 2: found the label \"neutral\", expected one of \"entailment\", \"not_entailment\"";
    assert!(message.starts_with(expected), "{message}");
    assert!(matches!(skipped, Err(TextError::UnknownLabel { .. })));
    let (message, _) = refused(Task::Boolq, br#"{"question": "q", "passage": "p", "label": 1}"#);
    assert!(message.contains("the label \"1\", expected one of \"false\", \"true\""), "{message}");
}

#[test]
fn a_header_without_the_columns_is_refused() {
    let message = task(Task::Qqp, b"id\tquestion1\tquestion2\n0\ta\tb\n").expect_err("no labels");
    assert!(message.contains("no column is named \"is_duplicate\"; the columns are \"id\", "), "{message}");
    assert!(message.contains("an official test file has no labels"), "{message}");
    let message = task(Task::Sst2, b"sentence\tlabel\tlabel\na\t1\t1\n").expect_err("twice");
    assert!(message.contains("the column \"label\" twice"), "{message}");
    let message = task(Task::Sst2, b"sentence\xff\tlabel\na\t1\n").expect_err("no text");
    assert!(message.contains("line 1: found bytes that are not UTF-8"), "{message}");
}

#[test]
fn a_file_without_rows_is_refused() {
    for (task, text) in
        [(Task::Cola, ""), (Task::Rte, ""), (Task::Sst2, "sentence\tlabel\n"), (Task::Cb, "\n\n")]
    {
        let message = super::task(task, text.as_bytes()).expect_err("no rows");
        assert_eq!(message, format!("{}: has no rows", task.train_file()));
    }
    let error = read_task(Task::Cola, "f", b"a\n", true).expect_err("no rows");
    assert_eq!(error.to_string(), "f: has no rows (one malformed row was passed over)");
}
