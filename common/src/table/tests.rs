use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, UInt8Type};
use proptest::prelude::*;

use super::*;

fn source<'a>(path: &'a str, bytes: &'a [u8], drop: &'a [String]) -> TableSource<'a> {
    TableSource { path, bytes, label: Some("class"), labels: None, drop }
}

fn csv(text: &str) -> Result<FeatureTable, String> {
    read(&source("data/t.csv", text.as_bytes(), &[])).map_err(|error| error.to_string())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("write");
    encoder.finish().expect("finish")
}

const SMALL: &str = "a,class,b\n1,x,true\n2.5,y,false\n-3e2,x,true\n0,y,FALSE\n";

#[test]
fn a_csv_becomes_a_row_major_matrix_with_sorted_classes() {
    let table = csv(SMALL).expect("read");
    assert_eq!(table.x, [1.0, 1.0, 2.5, 0.0, -300.0, 1.0, 0.0, 0.0]);
    assert_eq!((table.rows, table.features), (4, 2));
    assert_eq!(table.y, [0, 1, 0, 1]);
    assert_eq!(table.classes, ["x", "y"]);
    assert_eq!(table.class_counts, [2, 2]);
    assert_eq!(table.names, ["a", "b"]);
    let info = table.info(&ContentHash::of(b"file"));
    assert_eq!((info.rows, info.features, info.content.len()), (4, 2, 64));
}

#[test]
fn classes_are_sorted_as_numbers_when_all_are_numbers() {
    let table = csv("a,class\n0,10\n0,9\n0,-1\n0,9\n0,10\n0,-1\n").expect("read");
    assert_eq!(table.classes, ["-1", "9", "10"]);
    assert_eq!(table.y, [2, 1, 0, 1, 2, 0]);
    let table = csv("a,class\n0,1\n0,1.0\n0,0.5\n0,5e-1\n0,-0\n0,0.0\n").expect("read");
    assert_eq!(table.classes, ["0", "0.5", "1"]);
    assert_eq!(table.y, [2, 2, 1, 1, 0, 0]);
    // Neighbouring whole numbers that a double cannot tell apart.
    let (a, b) = ("9007199254740993", "9007199254740992");
    let table = csv(&format!("f,class\n0,{a}\n0,{b}\n0,{a}\n0,{b}\n")).expect("read");
    assert_eq!(table.classes, [b, a]);
    let table = csv("a,class\n0,10\n0,9\n0,none\n0,none\n0,9\n0,10\n").expect("read");
    assert_eq!(table.classes, ["10", "9", "none"]);
}

#[test]
fn quotes_spaces_a_byte_order_mark_and_windows_lines_are_read() {
    let table = csv("\u{feff}\"a, b\" , class\r\n\"1\" , x\r\n2,y\r\n\r\n3, x \r\n4,y").expect("read");
    assert_eq!(table.names, ["a, b"]);
    assert_eq!((table.rows, table.x), (4, vec![1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn a_compressed_file_reads_as_the_plain_one() {
    let mut packed = gzip(SMALL.as_bytes());
    assert_eq!(read(&source("t.csv.gz", &packed, &[])).expect("read"), csv(SMALL).expect("read"));
    // Two members one after the other, as `cat a.gz b.gz` makes them.
    packed.extend(gzip(b"7,x,0\n"));
    assert_eq!(read(&source("t.CSV.GZ", &packed, &[])).expect("read").rows, 5);
    let cut = packed.get(..20).expect("part");
    let error = read(&source("t.csv.gz", cut, &[])).expect_err("accepted").to_string();
    assert!(error.starts_with("t.csv.gz: cannot be read as gzip"), "{error}");
}

#[test]
fn a_compressed_file_cannot_grow_past_the_limit() {
    let packed = gzip(&vec![b'0'; 1 << 20]);
    let error = unpack("big.csv.gz", &packed, 1 << 16).expect_err("accepted");
    assert_eq!(error, TableError::TooLarge { file: "big.csv.gz".into(), limit: 1 << 16 });
    assert!(unpack("big.csv.gz", &packed, 1 << 20).is_ok());
    assert!(unpack("big.csv", &packed, 10).is_err());
}

/// Reads a CSV that must be refused, and checks the whole error.
fn check(text: &str, expected: &str) {
    assert_eq!(csv(text).expect_err("accepted"), expected, "{text:?}");
}

#[test]
fn a_bad_csv_is_refused_with_place_finding_and_remedy() {
    check(
        "a,klass\n1,2\n",
        "data/t.csv: no column is named \"class\", which `label` asks for; the columns are \"a\", \"klass\"\n  did you mean `klass`?",
    );
    check(
        "a;class\n1;2\n",
        "data/t.csv: no column is named \"class\", which `label` asks for; the columns are \"a;class\"; it seems that ';' separates the cells, where a comma should",
    );
    check(
        "a,class\n1,x\nNaN,y\n",
        "data/t.csv, line 3, column \"a\": found \"NaN\", a missing value; fill it in, or leave out the row, or the column with `drop: [\"a\"]`",
    );
    check(
        "a,class\n1,x\n,y\n",
        "data/t.csv, line 3, column \"a\": found an empty cell, a missing value; fill it in, or leave out the row, or the column with `drop: [\"a\"]`",
    );
    check(
        "a,class\nred,x\n1,y\n",
        "data/t.csv, line 2, column \"a\": found \"red\", expected a finite number; correct it, or leave the column out with `drop: [\"a\"]`",
    );
    check(
        "a,class\n1e300,x\n1,y\n",
        "data/t.csv, line 2, column \"a\": found \"1e300\", expected a finite number; correct it, or leave the column out with `drop: [\"a\"]`",
    );
    check("a,class\n1,x\n1,y,3\n", "data/t.csv, line 3: found 3 cells, expected 2 as in the header");
    check(
        "a,class\n1,x\n1,x\n1,y\n",
        "data/t.csv, line 4: the class \"y\" in column \"class\" has only this row (1 of 2 classes have one); at least two are needed to train on one and test on another. Leave such rows out, or join classes",
    );
    check(
        "a,class\n1,x\n1,x\n",
        "data/t.csv: every row has the class \"x\" in column \"class\"; at least two classes are needed",
    );
    check("class\nx\ny\n", "data/t.csv: has no feature column beside the label and the dropped ones");
    check("a,class\n", "data/t.csv: has no rows");
    check("", "data/t.csv: has no rows");
    check("a,a,class\n1,1,x\n", "data/t.csv: the header has the column \"a\" twice; rename one of them");
    check(
        ",a,class\n0,1,x\n",
        "data/t.csv: column 1 is named \"\", as pandas names row numbers, which are no feature; write the file with index=False, or leave it out with `drop: [\"\"]`",
    );
    check(
        "a,class\n1,\n",
        "data/t.csv, line 2, column \"class\": found an empty cell, a missing value; fill it in, or leave out the row, or the column with `drop: [\"class\"]`",
    );
}

#[test]
fn lines_are_counted_as_an_editor_does() {
    for text in [
        "a,class\r\n1,x\r\n\r\n?,y\r\n",
        "a,class\n\n1,x\n?,y\n",
        "\u{feff}\n\na,class\n?,y\n",
        "a,class\n1,\"x\ny\"\n?,y",
    ] {
        let error = csv(text).expect_err("accepted");
        assert!(error.starts_with("data/t.csv, line 4, column \"a\": found \"?\""), "{text:?}: {error}");
    }
}

#[test]
fn a_label_with_too_many_values_is_no_class() {
    let mut text = String::from("a,class\n");
    (0..=MAX_CLASSES).for_each(|row| text.push_str(&format!("1,{row}\n")));
    check(&text, "data/t.csv: column \"class\" has more than 10000 distinct values; is it the class?");
}

#[test]
fn columns_can_be_dropped_if_they_are_there() {
    let text = "id,class,a\nx1,0,1\nx2,1,2\nx3,0,3\nx4,1,4\n";
    let drop = ["id".to_owned()];
    let table = read(&source("t.csv", text.as_bytes(), &drop)).expect("read");
    assert_eq!(
        (table.names.as_slice(), table.x.as_slice()),
        (&["a".to_owned()][..], &[1.0, 2.0, 3.0, 4.0][..])
    );
    for (drop, expected) in [
        (
            ["idd".to_owned()],
            "t.csv: no column is named \"idd\", which `drop` asks for; the columns are \"id\", \"class\", \"a\"\n  did you mean `id`?",
        ),
        (["class".to_owned()], "t.csv: column \"class\" is both `label` and in `drop`"),
    ] {
        let error = read(&source("t.csv", text.as_bytes(), &drop)).expect_err("accepted");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_name_without_a_known_ending_is_refused() {
    for path in ["t.tsv", "t", "t.gz", "csv"] {
        let error = read(&source(path, b"", &[])).expect_err("accepted").to_string();
        assert!(
            error.contains("allowed: .csv, .parquet or .npy") || error.contains("gzip"),
            "{path}: {error}"
        );
    }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("batch");
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("write");
    writer.close().expect("close");
    bytes
}

fn good_parquet() -> Vec<u8> {
    let kinds: DictionaryArray<Int32Type> = vec!["b", "a", "b", "a"].into_iter().collect();
    parquet(vec![
        ("class", Arc::new(kinds)),
        ("x", Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5, 3.5]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false, false, true]))),
        ("note", Arc::new(StringArray::from(vec!["p", "q", "r", "s"]))),
        ("k", Arc::new(Int32Array::from(vec![-1, 0, 1, 2]))),
    ])
}

#[test]
fn a_parquet_file_gives_its_numeric_and_boolean_columns() {
    let drop = ["note".to_owned()];
    let bytes = good_parquet();
    let table = read(&source("t.parquet", &bytes, &drop)).expect("read");
    assert_eq!(table.names, ["x", "flag", "k"]);
    assert_eq!(table.x, [0.5, 1.0, -1.0, 1.5, 0.0, 0.0, 2.5, 0.0, 1.0, 3.5, 1.0, 2.0]);
    assert_eq!(
        (table.classes.as_slice(), table.y.as_slice()),
        (&["a".to_owned(), "b".to_owned()][..], &[1, 0, 1, 0][..])
    );
    assert_eq!(read(&source("t.parquet.gz", &gzip(&bytes), &drop)).expect("read"), table);
}

#[test]
fn a_parquet_dictionary_that_claims_more_than_it_holds_is_refused() {
    let classes: ArrayRef = Arc::new(Int32Array::from(vec![0, 0, 1, 1]));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0]));
    let mut bytes = parquet(vec![("x", x), ("class", classes)]);
    // The first page: kind 2 (dictionary), 32 bytes, 32 compressed, then how many values, twice as much in this encoding.
    let claim = [0x15, 4, 0x15, 64, 0x15, 64, 0x4c, 0x15, 8];
    assert_eq!(bytes.get(4..13), Some(&claim[..]), "the writer writes otherwise now");
    bytes[12] = 2 * 60;
    let error = read(&source("t.parquet", &bytes, &[])).expect_err("accepted").to_string();
    assert!(error.contains("a dictionary of 32 bytes says that it holds 60 values"), "{error}");
}

#[test]
fn a_bad_parquet_file_is_refused_with_row_and_column() {
    let classes = || -> ArrayRef { Arc::new(Int32Array::from(vec![0, 0, 1, 1])) };
    let lists = ListArray::from_iter_primitive::<UInt8Type, _, _>((0..4).map(|_| Some(vec![Some(1u8)])));
    let cases: Vec<(ArrayRef, &str)> = vec![
        (
            Arc::new(StringArray::from(vec!["a", "b", "c", "d"])),
            "t.parquet: column \"x\" is text, expected numbers or booleans; encode it as numbers, or leave it out with `drop: [\"x\"]`",
        ),
        (
            Arc::new(lists),
            "t.parquet: column \"x\" is a list in each row (write one column a feature), expected numbers or booleans; encode it as numbers, or leave it out with `drop: [\"x\"]`",
        ),
        (
            Arc::new(Float64Array::from(vec![1.0, 2.0, f64::NAN, 1.0])),
            "t.parquet, row 2 (from 0), column \"x\": found NaN, a missing value; fill it in, or leave out the row, or the column with `drop: [\"x\"]`",
        ),
        (
            Arc::new(Float64Array::from(vec![Some(1.0), None, Some(1.0), None])),
            "t.parquet, row 1 (from 0), column \"x\": found null, a missing value; fill it in, or leave out the row, or the column with `drop: [\"x\"]`",
        ),
        (
            Arc::new(Float64Array::from(vec![f64::INFINITY, 1.0, 2.0, 3.0])),
            "t.parquet, row 0 (from 0), column \"x\": found inf, expected a finite number; correct it, or leave the column out with `drop: [\"x\"]`",
        ),
    ];
    for (column, expected) in cases {
        let bytes = parquet(vec![("class", classes()), ("x", column)]);
        assert_eq!(read(&source("t.parquet", &bytes, &[])).expect_err("accepted").to_string(), expected);
    }
    let bytes = parquet(vec![
        ("class", Arc::new(Float64Array::from(vec![0.0, f64::NAN])) as ArrayRef),
        ("x", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let error = read(&source("t.parquet", &bytes, &[])).expect_err("accepted").to_string();
    assert!(error.starts_with("t.parquet, row 1 (from 0), column \"class\": found NaN"), "{error}");
}

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn pair(x: &[u8], y: &[u8], drop: &[String]) -> Result<FeatureTable, String> {
    read(&TableSource { path: "x.npy", bytes: x, label: None, labels: Some(("y.npy", y)), drop })
        .map_err(|error| error.to_string())
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn arrays_are_read_in_both_orders_and_every_type() {
    let y = npy("|i1", "False", "(4,)", &[1, 255, 1, 255]);
    let c = npy("<f8", "False", "(4, 2)", &doubles(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    let fortran = npy("<f8", "True", "(4, 2)", &doubles(&[1.0, 3.0, 5.0, 7.0, 2.0, 4.0, 6.0, 8.0]));
    let table = pair(&c, &y, &[]).expect("read");
    assert_eq!(table.x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(
        (table.y.as_slice(), table.classes.as_slice()),
        (&[1, 0, 1, 0][..], &["-1".to_owned(), "1".to_owned()][..])
    );
    assert_eq!(pair(&fortran, &y, &[]).expect("read"), table);
    assert_eq!(pair(&fortran, &y, &["feature_0".into()]).expect("read").x, [2.0, 4.0, 6.0, 8.0]);

    let column =
        |descr, data: &[u8]| pair(&npy(descr, "False", "(4, 1)", data), &y, &[]).map(|table| table.x);
    assert_eq!(column("|b1", &[1, 0, 0, 1]), Ok(vec![1.0, 0.0, 0.0, 1.0]));
    assert_eq!(column("|u1", &[1, 0, 255, 1]), Ok(vec![1.0, 0.0, 255.0, 1.0]));
    assert_eq!(column("<i2", &[1, 0, 255, 255, 2, 0, 0, 128]), Ok(vec![1.0, -1.0, 2.0, -32768.0]));
    let quarter: Vec<u8> = [0.25f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(column("<f4", &quarter), Ok(vec![0.25; 4]));
    let long: Vec<u8> = [i64::MIN, -1, 0, i64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(column("<i8", &long), Ok(vec![-(2f32.powi(63)), -1.0, 0.0, 2f32.powi(63)]));
}

#[test]
fn a_file_that_numpy_wrote_in_format_2_is_read() {
    // numpy.lib.format.write_array(f, numpy.array([1, 0, 1, 0], dtype='<i8'), version=(2, 0))
    let mut y = b"\x93NUMPY\x02\x00\x74\x00\x00\x00{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }"
        .to_vec();
    y.resize(127, b' ');
    y.push(b'\n');
    [1i64, 0, 1, 0].iter().for_each(|v| y.extend(v.to_le_bytes()));
    let x = npy("|u1", "False", "(4, 1)", &[1, 2, 3, 4]);
    assert_eq!(pair(&x, &y, &[]).expect("read").y, [1, 0, 1, 0]);
    let packed = (gzip(&x), gzip(&y));
    let source = TableSource {
        path: "x.npy.gz",
        bytes: &packed.0,
        label: None,
        labels: Some(("y.npy.gz", &packed.1)),
        drop: &[],
    };
    assert_eq!(read(&source).expect("read").y, [1, 0, 1, 0]);
}

#[test]
fn a_bad_array_is_refused_with_what_was_found() {
    let y = npy("|i1", "False", "(2,)", &[0, 1]);
    let x = |descr: &str, shape: &str, data: &[u8]| npy(descr, "False", shape, data);
    for (x, expected) in [
        (b"PK\x03\x04".to_vec(), "x.npy: cannot be read as .npy: it does not begin as numpy's files do"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "x.npy: cannot be read as .npy: it ends within its header"),
        (
            b"\x93NUMPY\x09\x00\x00\x00".to_vec(),
            "x.npy: cannot be read as .npy: its version 9.0 is not known (1.0 to 3.0 are)",
        ),
        (x(">f8", "(2, 1)", &[0; 16]), "x.npy: found an array of the type >f8, expected a C array"),
        (x("|O", "(2, 1)", &[0; 16]), "x.npy: found an array of the type |O, expected"),
        (x("<U4", "(2, 1)", &[0; 16]), "x.npy: found an array of the type <U4, expected"),
        (x("<f8", "(2,)", &[0; 16]), "x.npy: found an array of the shape [2], expected two dimensions"),
        (
            x("<f8", "(2, 2)", &[0; 16]),
            "x.npy: cannot be read as .npy: its header promises [2, 2] elements of 8 bytes, but 16 bytes follow",
        ),
        (
            x("<f8", "(18446744073709551615, 2)", &[0; 16]),
            "x.npy: cannot be read as .npy: its header promises",
        ),
        (x("<f8", "(0, 18446744073709551615)", &[]), "y.npy: has 2 labels, but x.npy has 0 rows"),
        (x("|u1", "(3, 1)", &[0; 3]), "y.npy: has 2 labels, but x.npy has 3 rows"),
        (
            x("<f8", "(2, 1)", &doubles(&[1.0, f64::NAN])),
            "x.npy, row 1 (from 0), column \"feature_0\": found NaN",
        ),
    ] {
        let error = pair(&x, &y, &[]).expect_err("accepted");
        assert!(error.starts_with(expected), "{error}\nexpected {expected}");
    }
    let x = x("|u1", "(2, 1)", &[0; 2]);
    let error =
        pair(&x, &npy("<f8", "False", "(2,)", &doubles(&[0.0, f64::NAN])), &[]).expect_err("accepted");
    assert!(error.starts_with("y.npy, row 1"), "{error}");
    assert!(
        pair(&x, &y, &["feature_9".into()])
            .expect_err("accepted")
            .contains("no column is named \"feature_9\"")
    );
}

/// What the examples use: (file, rows, features, rows of each class), as scikit-learn documents them.
#[test]
fn the_example_data_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/data");
    for (file, features, counts) in [
        ("breast_cancer.csv", 30, &[212, 357][..]),
        ("digits.csv.gz", 64, &[178, 182, 177, 183, 181, 182, 181, 179, 174, 180][..]),
        ("iris.csv", 4, &[50, 50, 50][..]),
        ("wine.csv", 13, &[59, 71, 48][..]),
    ] {
        let path = folder.join(file);
        let Ok(bytes) = std::fs::read(&path) else {
            eprintln!("skipped: {} is absent (scripts/examples-data.sh makes it)", path.display());
            continue;
        };
        let table =
            read(&TableSource { path: file, bytes: &bytes, label: Some("target"), labels: None, drop: &[] });
        let table = table.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((table.features, table.class_counts.as_slice()), (features, counts), "{file}");
        assert_eq!(table.x.len(), (table.rows * table.features) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_give_an_error_and_no_panic(cut in 0.0..1.0f64, at in 0.0..1.0f64, byte in any::<u8>()) {
        let x = npy("<f8", "False", "(4, 1)", &doubles(&[1.0, 2.0, 3.0, 4.0]));
        let drop = ["note".to_owned()];
        for (path, bytes) in [("t.csv", SMALL.as_bytes().to_vec()), ("t.parquet", good_parquet()), ("t.npy", x), ("t.csv.gz", gzip(SMALL.as_bytes()))] {
            let mut bytes = bytes;
            let position = (at * bytes.len() as f64) as usize;
            if let Some(slot) = bytes.get_mut(position) {
                *slot = byte;
            }
            bytes.truncate((cut.sqrt() * 1.2 * bytes.len() as f64) as usize);
            let labels = npy("|i1", "False", "(4,)", &[0, 1, 0, 1]);
            let source = TableSource { path, bytes: &bytes, label: Some("class"), labels: Some(("y.npy", &labels)), drop: &drop };
            let read = std::panic::catch_unwind(|| read(&source));
            prop_assert!(read.is_ok(), "{path} panicked");
        }
    }
}
