use super::*;
use crate::export::tests::{grid, record};
use crate::export::{Exporter, Format, LineSummary, RunInfo, Summary};
use evenkeel_common::id::SweepId;
use evenkeel_common::results::{Measures, Status};
use evenkeel_common::seed::{Key, Purpose};

const SPEC: &str = "
apiVersion: evenkeel/v1
name: report-test
description: \"<script>alert('x')</script> & more\"
datasets:
  - synthetic: {name: \"<b>points</b>\", generator: separable, samples: [50, 100, 200], features: 8, margin: [0.5, 1.0], instances: 4}
strategies:
  - {name: \"head<img src=x>\", setting: head, steps: 100, learning_rate: 0.5, checkpoints: [10, 50]}
  - {name: mhloss, setting: head, steps: 100, learning_rate: 0.5, mhloss: {heads: [5, 50]}}
seeds: 4
stability: {leave_one_out: 5}
";

fn report() -> (Summary, String) {
    let dir = tempfile::tempdir().expect("dir");
    let grid = grid(SPEC);
    let id = SweepId::parse("report-test-0123456789").expect("id");
    let mut exporter = Exporter::create(dir.path(), grid.clone(), &id, Format::Parquet).expect("create");
    exporter.push(&(0..grid.len()).map(|index| record(&grid, index)).collect::<Vec<_>>()).expect("push");
    let run = RunInfo {
        workers: vec!["<i>worker</i>".into()],
        devices: vec!["cpu & co".into()],
        wall_seconds: Some(12.5),
        version: "1.2.3".into(),
        started_ms: Some(1_700_000_000_000),
        command: Some("evenkeel run 'a<b>.yaml'".into()),
    };
    let summary = exporter.finish(&run).expect("finish");
    (summary, std::fs::read_to_string(dir.path().join("report.html")).expect("read"))
}

/// The page is read as a reader of HTML would: every tag must be one that the page itself writes.
#[test]
fn whatever_comes_from_outside_is_escaped() {
    let (_, page) = report();
    for raw in ["<script", "<img", "<b>points", "<i>worker", "a<b>.yaml", "<data>"] {
        assert!(!page.contains(raw), "{raw} is in the page");
    }
    for escaped in [
        "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more",
        "head&lt;img src=x&gt;",
        "&lt;i&gt;worker&lt;/i&gt;",
        "cannot read &lt;data&gt; &amp; &quot;labels&quot;",
        "a&lt;b&gt;.yaml",
    ] {
        assert!(page.contains(escaped), "{escaped} is not in the page");
    }
}

#[test]
fn a_page_needs_nothing_beside_itself() {
    let (_, page) = report();
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for loader in ["http:", "https:", "src=", "@import", "url(", "<link", "<script"] {
        assert!(
            !outside.replace("head&lt;img src=x&gt;", "").replace("&lt;img src=x&gt;", "").contains(loader),
            "{loader}"
        );
    }
    let figures = page.matches("<figure>").count();
    assert_eq!(page.matches("<svg").count(), figures, "a figure has one picture");
    for figure in [
        "Scatter of the score",
        "Variance beside",
        "Spread of the score",
        "Seeds and datasets",
        "against training set size",
        "against margin, n =",
    ] {
        assert!(page.contains(figure), "{figure} is not drawn");
    }
    for file in ["variance-ratios.svg", "variance-ratios.csv", "loo-samples.csv"] {
        assert!(page.contains(&format!("<a download=\"{file}\" href=\"data:")), "{file} is not there");
    }
    assert!(!page.contains("#0102") && !page.contains("#0200"), "a placeholder colour is left");
    assert!(!page.contains("NaN") && !page.contains("inf,"), "a coordinate is no number");
}

#[test]
fn findings_are_made_from_the_numbers() {
    let (summary, page) = report();
    let line = summary.strategies.iter().find(|line| line.label == "mhloss (heads=50)").expect("line");
    let ratio = figures::significant(line.variance_ratio.expect("ratio"), 3);
    let expected = format!(
        "was not seen with enough seeds to say how it varies beside that of head&lt;img src=x&gt;: the variance is {ratio} times \
         as large, less on "
    );
    assert!(page.contains(&expected), "{expected}");
    assert!(page.contains("variance ratios have no intervals: they need at least 5 seeds, and there are 4"));
    let slope = line.slope_samples.expect("slope");
    let power = figures::significant(slope.slope, 3);
    assert!(
        page.contains(&format!("falls with the training set size n, as a power of {power} (95 % interval")),
        "{power}"
    );
    let rate = figures::percent(line.failed_run_rate.expect("rate"));
    assert!(page.contains(&format!("mhloss (heads=50): {rate} of the runs failed")), "{rate}");
}

const PLANTED: &str = "
apiVersion: evenkeel/v1
name: planted
datasets:
  - synthetic: {generator: blobs, samples: 60, features: 4, instances: 8}
strategies:
  - {name: base, setting: head, steps: 100, learning_rate: 0.5}
  - {name: other, setting: head, steps: 200, learning_rate: 0.5}
seeds: 10
";

/// Findings about a made-up sweep: scores of both strategies are normal, and `other`'s standard deviation is `scale` times
/// the baseline's.
fn planted(sweep: u64, scale: f64) -> (Vec<String>, LineSummary) {
    let dir = tempfile::tempdir().expect("dir");
    let grid = grid(PLANTED);
    let id = SweepId::parse("planted-0123456789").expect("id");
    let mut stream = Key::of_dataset(sweep, "planted").stream(Purpose::Structure, 0, 0);
    let records = (0..grid.len()).map(|index| {
        let mut record = record(&grid, index);
        let other = grid.trial(index).expect("in the grid").strategy.name == "other";
        record.outcome.status = Status::Completed;
        record.outcome.error = None;
        let score = 0.8 + 0.02 * if other { scale } else { 1.0 } * stream.normal();
        record.outcome.measures = Measures { score: Some(score), ..Measures::default() };
        record
    });
    let mut exporter = Exporter::create(dir.path(), grid.clone(), &id, Format::Parquet).expect("create");
    exporter.push(&records.collect::<Vec<_>>()).expect("push");
    let summary = exporter.finish(&RunInfo::default()).expect("finish");
    let line = summary.strategies.iter().find(|line| line.label == "other").expect("line").clone();
    (words::findings(&summary), line)
}

#[test]
fn an_effect_that_is_there_is_reported_and_one_that_is_not_is_not() {
    let says = |findings: &[String], words: &str| findings.iter().any(|finding| finding.contains(words));
    let (less, more) =
        ("other: its score varies less over seeds than", "other: its score varies more over seeds than");
    let doubtful = "other: its score cannot be told to vary less or more over seeds than that of base";
    let (mut claims, mut significant) = (0, 0);
    for sweep in 0..200 {
        let (findings, line) = planted(sweep, 1.0);
        let claimed = says(&findings, less) || says(&findings, more);
        assert_ne!(claimed, says(&findings, doubtful), "{findings:?}");
        claims += u32::from(claimed);
        significant += u32::from(line.signed_rank_p.is_some_and(|p| p < 0.05));
    }
    // Nominal 10 of 200. Bootstrap intervals of variances are somewhat short with ten seeds (measured: 9 % outside); the
    // signed-rank test keeps its level.
    assert!(claims <= 28, "{claims} of 200 sweeps without an effect are said to have one");
    assert!(significant <= 18, "{significant} of 200");
    let mut covered = 0;
    for sweep in 0..20 {
        let (findings, line) = planted(sweep, 0.5);
        assert!(says(&findings, less), "{findings:?}");
        covered +=
            u32::from(line.variance_ratio_ci_low < Some(0.25) && line.variance_ratio_ci_high > Some(0.25));
        assert!(says(&planted(sweep, 2.0).0, more));
    }
    assert!(covered >= 16, "the true ratio is in {covered} of 20 intervals of 95 %");
}

#[test]
fn the_terminal_table_fits_a_hundred_columns() {
    let (summary, _) = report();
    let text = table(&summary, Some(100));
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    assert!(widest <= 100, "{widest} columns\n{text}");
    for needed in ["mhloss (heads=50)", "baseline", "variance", "LOO"] {
        assert!(text.contains(needed), "{needed} is not in\n{text}");
    }
}

#[test]
fn numbers_and_times_read_as_people_write_them() {
    for (value, digits, expected) in [
        (0.0, 3, "0"),
        (0.123_456, 3, "0.123"),
        (0.999_96, 4, "1.000"),
        (123_456.0, 3, "123456"),
        (-0.93, 3, "−0.930"),
        (1.234e-7, 3, "1.23×10⁻⁷"),
        (0.001_234, 2, "0.0012"),
        (f64::NAN, 3, "–"),
    ] {
        assert_eq!(figures::significant(value, digits), expected);
    }
    assert_eq!(figures::time(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
    assert_eq!(figures::time(-1), "1969-12-31 23:59:59 UTC");
    assert_eq!(figures::time(951_782_400_000), "2000-02-29 00:00:00 UTC");
    assert_eq!(figures::duration(59.94), "59.9 s");
    assert_eq!(figures::duration(3_661.0), "1 h 1 min");
    assert_eq!(figures::percent(0.0004), "< 0.1 %");
    assert_eq!(figures::count(1_234_567), "1,234,567");
}
