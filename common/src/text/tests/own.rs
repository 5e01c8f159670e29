//! Files of one's own.

use super::*;
use crate::table::Place;

const PAIRS: OwnFormat<'static> = OwnFormat { text: "text", text_pair: Some("other"), label: "class" };
const SINGLE: OwnFormat<'static> = OwnFormat { text: "text", text_pair: None, label: "class" };

fn own(path: &str, text: &str, format: &OwnFormat<'_>) -> Result<OwnRows, String> {
    read_own(path, text.as_bytes(), format, false).map_err(|error| error.to_string())
}

fn own_label_texts(rows: &OwnRows) -> Vec<&str> {
    rows.rows.iter().map(|row| row.label.as_str()).collect()
}

#[test]
fn the_three_formats_hold_the_same_rows() {
    let csv = "\u{feff}class,other,text\r\nyes,\"b, c\",a\r\nno,e,\"d \"\"d\"\"\"\r\n";
    let tsv = "text\tclass\tother\na\tyes\tb, c\nd \"d\"\tno\te\n";
    let jsonl = r#"{"text": "a", "other": "b, c", "class": " yes "}
{"class": "no", "text": "d \"d\"", "other": "e", "more": null}"#;
    let segments = [("a", "b, c"), ("d \"d\"", "e")]
        .map(|(first, second)| Segment { first: first.into(), second: Some(second.into()) });
    for (path, text) in [("f.csv", csv), ("F.CSV.gz", csv), ("f.tsv", tsv), ("f.jsonl", jsonl)] {
        let read = own(path, text, &PAIRS).expect(path);
        assert_eq!(own_label_texts(&read), ["yes", "no"], "{path}");
        let found: Vec<Segment> = read.rows.into_iter().map(|row| row.segment).collect();
        assert_eq!(found, segments, "{path}");
    }
    let read = own("f.tsv", tsv, &SINGLE).expect("read");
    assert_eq!(read.rows[1].segment, Segment { first: "d \"d\"".into(), second: None });
    let message = own("f.txt", tsv, &SINGLE).expect_err("unknown");
    assert_eq!(message, "f.txt: the format is not known; allowed: .csv, .tsv, .jsonl or .parquet");
}

#[test]
fn labels_may_be_numbers_and_booleans_of_json() {
    let row = |label: &str| format!("{{\"text\": \"a\", \"class\": {label}}}");
    let text = [row("10"), row("9"), row("true")].join("\n");
    let read = own("f.jsonl", &text, &SINGLE).expect("read");
    assert_eq!(own_label_texts(&read), ["10", "9", "true"]);
}

#[test]
fn lines_of_csv_are_counted_through_quoted_breaks_and_empty_lines() {
    let text = "text,class\r\n\"a\r\nb\",x\r\n\r\n\nc,y\nd\n";
    let read = read_own("f.csv", text.as_bytes(), &SINGLE, true).expect("read");
    assert_eq!(read.rows.iter().map(|row| row.place).collect::<Vec<_>>(), [Place::Line(2), Place::Line(6)]);
    assert_eq!((read.rows[0].segment.first.as_str(), read.skipped), ("a\r\nb", 1));
    let message = own("f.csv", text, &SINGLE).expect_err("short");
    assert!(
        message.starts_with("f.csv, line 7: found 1 column, expected 2 columns; fix the row, or"),
        "{message}"
    );
}

#[test]
fn missing_values_make_a_row_malformed() {
    let cases = [
        ("f.csv", "text,other,class\n ,b,x\n", "nothing in \"text\""),
        ("f.csv", "text,other,class\na,,x\n", "nothing in \"other\""),
        ("f.tsv", "text\tother\tclass\na\tb\t\n", "nothing in \"class\""),
        ("f.tsv", "text\tother\tclass\na\tb\tNaN\n", "\"NaN\" in \"class\""),
        ("f.jsonl", r#"{"text": null, "other": "b", "class": 1}"#, "null in \"text\""),
        ("f.jsonl", r#"{"text": "a", "other": "b"}"#, "no field \"class\" (fields: \"other\", \"text\")"),
        ("f.jsonl", r#"{"text": "a", "other": "b", "class": [1]}"#, "a list in \"class\""),
    ];
    for (path, text, expected) in cases {
        let message = own(path, text, &PAIRS).expect_err("malformed");
        assert!(message.contains(&format!("found {expected}, expected ")), "{message}");
        let passed = read_own(path, text.as_bytes(), &PAIRS, true);
        assert_eq!(passed, Err(TextError::NoRows { path: path.into(), skipped: 1 }));
    }
    let bad = read_own("f.csv", b"text,class\n\xff,x\n", &SINGLE, false).expect_err("no text");
    assert!(bad.to_string().starts_with("f.csv, line 2: found bytes that are not UTF-8"), "{bad}");
}

#[test]
fn a_column_that_is_missing_or_there_twice_is_named() {
    for (path, text) in [("f.csv", "text,label\na,x\n"), ("f.tsv", "text\tlabel\na\tx\n")] {
        let message = own(path, text, &SINGLE).expect_err("missing");
        assert_eq!(
            message,
            format!("{path}: no column is named \"class\"; the columns are \"text\", \"label\"")
        );
    }
    let message = own("f.csv", "text,text,class\na,b,x\n", &SINGLE).expect_err("twice");
    assert_eq!(message, "f.csv: the header has the column \"text\" twice; rename one of them");
    for path in ["f.csv", "f.tsv", "f.jsonl"] {
        assert_eq!(own(path, "", &SINGLE).expect_err("empty"), format!("{path}: has no rows"));
    }
}

fn of_labels(labels: &[&str]) -> OwnRows {
    let text = vec![Some("a".to_owned()); labels.len()];
    let label = labels.iter().map(|label| Some((*label).to_owned())).collect();
    own_from_columns("f.parquet", &SINGLE, OwnColumns { text, text_pair: None, label }, false).expect("read")
}

#[test]
fn whole_numbers_sort_as_numbers_and_other_labels_by_bytes() {
    let sorted = |labels: &[&str]| own_labels("f", &of_labels(labels)).expect("labels");
    assert_eq!(sorted(&["10", "9", "-1", "9"]), ["-1", "9", "10"]);
    assert_eq!(sorted(&["10", "9", "b", "B"]), ["10", "9", "B", "b"]);
    let error = own_labels("f", &of_labels(&["x", "x"])).expect_err("one class");
    assert_eq!(error.to_string(), "f: every row has the label \"x\"; at least two classes are needed");
    let many: Vec<String> = (0..10_001).map(|label: u32| label.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = own_labels("f", &of_labels(&many)).expect_err("many");
    assert!(error.to_string().contains("more than 10000 distinct values"), "{error}");
}

#[test]
fn a_label_the_training_file_lacks_is_refused_with_its_place() {
    let train = own("train.csv", "text,class\na,yes\nb,no\nc,yes\n", &SINGLE).expect("read");
    let known = own_labels("train.csv", &train).expect("labels");
    assert_eq!(known, ["no", "yes"]);
    assert_eq!(labels(&index_own("train.csv", train, &known).expect("index")), [1, 0, 1]);
    let test = own("test.csv", "text,class\na,yes\nb,maybe\n", &SINGLE).expect("read");
    let error = index_own("test.csv", test, &known).expect_err("unknown").to_string();
    assert!(
        error.starts_with("test.csv, line 3: found the label \"maybe\", expected one of \"no\", \"yes\";"),
        "{error}"
    );
}

#[test]
fn columns_read_elsewhere_are_checked_as_rows() {
    let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    let columns =
        OwnColumns { text: some(&["a", "b"]), text_pair: Some(some(&["c", "d"])), label: some(&["x", "y"]) };
    let read = own_from_columns("f.parquet", &PAIRS, columns.clone(), false).expect("read");
    assert_eq!(read.rows[1].segment, Segment { first: "b".into(), second: Some("d".into()) });
    assert_eq!(read.rows[1].place, Place::Row(1));

    let missing = OwnColumns { text_pair: Some(vec![None, Some("d".into())]), ..columns.clone() };
    let message =
        own_from_columns("f.parquet", &PAIRS, missing.clone(), false).expect_err("null").to_string();
    assert!(message.starts_with("f.parquet, row 0 (from 0): found nothing in \"other\""), "{message}");
    let passed = own_from_columns("f.parquet", &PAIRS, missing, true).expect("read");
    assert_eq!((passed.rows.len(), passed.skipped), (1, 1));
    assert_eq!(passed.rows[0].segment.second.as_deref(), Some("d"), "rows stay aligned");

    let short = OwnColumns { text: some(&["a"]), ..columns };
    let message = own_from_columns("f.parquet", &PAIRS, short, false).expect_err("short").to_string();
    assert_eq!(message, "f.parquet: column \"text\" has 1 rows, but the label's has 2");
}
