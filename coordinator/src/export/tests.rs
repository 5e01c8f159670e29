use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, UInt32Type, UInt64Type};
use evenkeel_common::id::{ContentHash, SweepId};
use evenkeel_common::results::{CurvePoint, ExecutionRecord, Features, Measures, TestOutputs, TrialOutcome};
use evenkeel_common::spec::Spec;
use evenkeel_common::stats::{Representation, RepresentationDistances, Sample, jensen_shannon};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

const SPEC: &str = "
apiVersion: evenkeel/v1
name: export-test
datasets:
  - synthetic: {generator: separable, samples: [50, 100, 200], features: 8, margin: [0.5, 1.0], instances: 2}
  - synthetic: {generator: blobs, samples: 60, features: 4, classes: 3}
strategies:
  - {name: head, setting: head, steps: 100, learning_rate: 0.5, checkpoints: [10, 50]}
  - {name: mhloss, setting: head, steps: 100, learning_rate: 0.5, mhloss: {heads: [5, 50]}}
seeds: 4
stability: {leave_one_out: 5}
predictions: probabilities
";

/// A number in [0, 1) that depends on its arguments alone.
fn draw(index: u64, what: u64) -> f64 {
    let hash = ContentHash::of(&[index.to_le_bytes(), what.to_le_bytes()].concat()).0;
    f64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) / 2f64.powi(32)
}

/// Made-up outcomes whose leave-one-out distance is 1/n times noise, and whose spread falls with the heads.
pub(crate) fn record(grid: &Grid, index: u64) -> TrialRecord {
    let trial = grid.trial(index).expect("in the grid");
    let n = f64::from(trial.dataset.shape().0);
    let heads = f64::from(trial.strategy.heads);
    let status = match index % 29 {
        7 => Status::Diverged,
        11 => Status::Failed,
        _ => Status::Completed,
    };
    let loo = 2.0 / n * (1.0 + 0.2 * (draw(index, 0) - 0.5)) / heads.powf(0.1);
    let done = status == Status::Completed;
    let steps = [10, 50, trial.strategy.steps];
    let point = |step: u32| CurvePoint {
        step,
        train_loss: 0.7 / (1.0 + f64::from(step) / 20.0),
        eval_loss: 0.8,
        score: 0.9,
        loo_mean: loo * (1.0 + 5.0 / f64::from(step)),
        direction_residual: f64::NAN,
    };
    let checkpoints = if heads > 1.0 { &steps[2..] } else { &steps[..] };
    TrialRecord {
        outcome: TrialOutcome {
            trial_index: index,
            status,
            error: (status == Status::Failed).then(|| "cannot read <data> & \"labels\"".to_owned()),
            measures: if done {
                Measures {
                    score: Some(0.8 + 0.1 * (draw(index, 1) - 0.5) / heads.sqrt()),
                    accuracy: Some(0.8),
                    majority: Some(if index.is_multiple_of(13) { 0.9 } else { 0.5 }),
                    margin: Some(0.1 + draw(index / grid.seeds(), 2)),
                    loo_mean: Some(loo),
                    loo_max: Some(loo * 3.0),
                    loo_count: Some(5),
                    ..Measures::default()
                }
            } else {
                Measures::default()
            },
            distances: None,
            curve: if done { checkpoints.iter().map(|step| point(*step)).collect() } else { Vec::new() },
            outputs: TestOutputs {
                classes: done.then(|| vec![0, 1, index as u32]),
                log_probabilities: done.then(|| vec![-0.5, f32::NEG_INFINITY, 0.0]),
                features: None,
            },
        },
        execution: ExecutionRecord {
            attempt: 1,
            worker: "worker-1".into(),
            device: "cpu (test)".into(),
            started_ms: 1_700_000_000_000 + index as i64,
            duration_s: 0.25,
        },
    }
}

pub(crate) fn grid(spec: &str) -> Grid {
    let spec = Spec::parse("spec.yaml", spec).unwrap_or_else(|error| panic!("{error}"));
    Grid::new(Arc::new(spec), &[]).expect("grid")
}

fn sweep() -> SweepId {
    SweepId::parse("export-test-0123456789").expect("id")
}

fn export(dir: &Path, format: Format, window: usize, keep: impl Fn(u64) -> bool) -> Summary {
    let grid = grid(SPEC);
    let mut exporter = Exporter::create(dir, grid.clone(), &sweep(), format).expect("create");
    let records: Vec<TrialRecord> = (0..grid.len()).filter(|i| keep(*i)).map(|i| record(&grid, i)).collect();
    records.chunks(window).for_each(|part| exporter.push(part).expect("push"));
    exporter.finish(&RunInfo { version: "test".into(), ..RunInfo::default() }).expect("finish")
}

fn table(dir: &Path, name: &str) -> RecordBatch {
    let file = File::open(dir.join(name)).expect("open");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet").build().expect("reader");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("batch")).collect();
    arrow::compute::concat_batches(&batches.first().expect("rows").schema(), &batches).expect("concat")
}

fn reals(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    batch.column_by_name(name).expect("column").as_primitive::<Float64Type>().iter().collect()
}

fn wholes(batch: &RecordBatch, name: &str) -> Vec<Option<u64>> {
    batch.column_by_name(name).expect("column").as_primitive::<UInt64Type>().iter().collect()
}

fn words(batch: &RecordBatch, name: &str) -> Vec<String> {
    let column = batch.column_by_name(name).expect("column").as_dictionary::<Int32Type>();
    let words = column.downcast_dict::<arrow::array::StringArray>().expect("words");
    words.into_iter().map(|word| word.unwrap_or_default().to_owned()).collect()
}

#[test]
fn records_can_be_read_back_from_the_results_as_they_were() {
    let dir = tempfile::tempdir().expect("dir");
    let summary = export(dir.path(), Format::Parquet, 17, |_| true);
    let grid = grid(SPEC);
    let results = table(dir.path(), "results.parquet");
    let names: Vec<String> =
        results.schema().fields().iter().take(21).map(|field| field.name().clone()).collect();
    let contract = "sweep_id, trial_index, trial_id, dataset, dataset_config, model, strategy, strategy_config, seed, status, \
                    error, score, metric, accuracy, train_loss, eval_loss, margin, weight_distance, loo_mean, loo_max, loo_count";
    assert_eq!(names.join(", "), contract);
    assert_eq!(results.num_rows() as u64, grid.len());

    let (indices, scores, loos) =
        (wholes(&results, "trial_index"), reals(&results, "score"), reals(&results, "loo_mean"));
    let (statuses, configs) = (words(&results, "status"), words(&results, "strategy_config"));
    let datasets = words(&results, "dataset_config");
    let ids = results.column_by_name("trial_id").expect("column").as_string::<i32>();
    let samples = results.column_by_name("samples").expect("column").as_primitive::<UInt32Type>();
    for row in 0..results.num_rows() {
        let index = row as u64;
        let (expected, trial) = (record(&grid, index).outcome, grid.trial(index).expect("trial"));
        assert_eq!(indices[row], Some(index));
        assert_eq!((scores[row], loos[row]), (expected.measures.score, expected.measures.loo_mean));
        assert_eq!(statuses[row], expected.status.name());
        assert_eq!(ids.value(row), trial.id().to_string());
        assert_eq!((&configs[row], &datasets[row]), (&trial.strategy.to_json(), &trial.dataset.to_json()));
        assert_eq!(samples.value(row), trial.dataset.shape().0);
    }
    assert!(summary.complete);
    assert_eq!(summary.recorded, grid.len());
    assert_eq!(summary.completed + summary.diverged + summary.failed, grid.len());

    let curves = table(dir.path(), "curves.parquet");
    let points: usize = (0..grid.len()).map(|i| record(&grid, i).outcome.curve.len()).sum();
    assert_eq!(curves.num_rows(), points);
    assert!(reals(&curves, "direction_residual").iter().all(Option::is_none), "NaN is written as null");
    let predictions = table(dir.path(), "predictions.parquet");
    assert_eq!(predictions.num_rows() as u64, summary.completed);
    let logs = predictions.column_by_name("log_probabilities").expect("column").as_list::<i32>().value(0);
    assert_eq!(logs.as_primitive::<Float32Type>().values()[..], [-0.5, f32::NEG_INFINITY, 0.0]);
    assert_eq!(table(dir.path(), "execution.parquet").num_rows() as u64, grid.len());
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("summary.json")).expect("read"))
            .expect("json");
    assert_eq!(json["complete"], true);
    let yaml = std::fs::read_to_string(dir.path().join("spec.yaml")).expect("read");
    assert_eq!(Spec::parse("spec.yaml", &yaml).expect("spec"), *grid.spec());
}

#[test]
fn a_group_has_the_statistics_of_its_completed_trials() {
    let dir = tempfile::tempdir().expect("dir");
    export(dir.path(), Format::Parquet, 1000, |_| true);
    let grid = grid(SPEC);
    let stability = table(dir.path(), "stability.parquet");
    assert_eq!(stability.num_rows() as u64, grid.len() / 4);
    let (means, sds) = (reals(&stability, "score_mean"), reals(&stability, "score_sd"));
    let rates = reals(&stability, "failed_run_rate");
    for (group, ((mean, sd), rate)) in means.iter().zip(&sds).zip(&rates).enumerate() {
        let outcomes: Vec<TrialOutcome> =
            (0..4).map(|seed| record(&grid, group as u64 * 4 + seed).outcome).collect();
        let sample: evenkeel_common::stats::Sample =
            outcomes.iter().filter_map(|o| o.measures.score).collect();
        let expected = sample.summary();
        assert_eq!((*mean, *sd), (expected.map(|n| n.mean), expected.and_then(|n| n.sd)));
        let bad = |o: &&TrialOutcome| {
            o.status == Status::Diverged
                || o.measures.accuracy.is_some_and(|s| s <= o.measures.majority.unwrap_or(0.0))
        };
        let judged = outcomes.iter().filter(|o| o.status != Status::Failed).count();
        assert_eq!(*rate, (judged > 0).then(|| outcomes.iter().filter(bad).count() as f64 / judged as f64));
    }
}

const OUTPUTS: &str = "
apiVersion: evenkeel/v1
name: outputs
datasets: [{synthetic: {generator: xor, samples: 50, features: 4, test_samples: 6, instances: 2}}]
models: [{encoder: mlp, layers: 1, hidden: 3}]
strategies: [{name: full, setting: full, epochs: 1, learning_rate: 0.001}]
seeds: 3
stability: {representations: 5}
predictions: probabilities
";

#[test]
fn seeds_are_compared_in_what_they_predict_and_how_they_represent() {
    let dir = tempfile::tempdir().expect("dir");
    let grid = grid(OUTPUTS);
    let logs = |index: u64| -> Vec<f64> {
        (0..6).flat_map(|at| [draw(index, at), 1.0 - draw(index, at)]).map(f64::ln).collect()
    };
    let features = |index: u64| -> Vec<f32> { (0..15).map(|at| draw(index, 50 + at) as f32).collect() };
    let record = |index: u64| {
        let mut record = record(&grid, index);
        let log_probabilities = logs(index).into_iter().map(|log| log as f32).collect();
        record.outcome.status = Status::Completed;
        record.outcome.outputs = TestOutputs {
            classes: Some(vec![0, 1, 0, 1, 0, u32::from(index.is_multiple_of(3))]),
            log_probabilities: Some(log_probabilities),
            features: Some(Features { examples: 5, values: features(index) }),
        };
        record
    };
    let mut exporter = Exporter::create(dir.path(), grid.clone(), &sweep(), Format::Parquet).expect("create");
    exporter.push(&(0..6).map(record).collect::<Vec<_>>()).expect("push");
    exporter.finish(&RunInfo::default()).expect("finish");

    let representations = table(dir.path(), "representations.parquet");
    assert_eq!(representations.num_rows(), 6);
    let values = representations.column_by_name("values").expect("column").as_list::<i32>().value(4);
    assert_eq!(values.as_primitive::<Float32Type>().values()[..], features(4));

    let stability = table(dir.path(), "stability.parquet");
    let column = |name: &str| reals(&stability, name).into_iter().map(|v| v.expect(name)).collect::<Vec<_>>();
    for group in 0..2u64 {
        let at = group as usize;
        // One of three seeds answers otherwise on one of six examples.
        assert!((column("disagreement")[at] - 2.0 / 3.0 / 6.0).abs() < 1e-12);
        let seeds = [0, 1, 2].map(|seed| 3 * group + seed);
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (seeds[a], seeds[b]));
        let divergences = pairs.map(|(a, b)| jensen_shannon(&logs(a), &logs(b), 2).expect("a value"));
        let expected = divergences.iter().sum::<f64>() / 3.0;
        assert!((column("jensen_shannon")[at] / expected - 1.0).abs() < 1e-5, "in f32");
        let doubles = seeds.map(|seed| features(seed).into_iter().map(f64::from).collect::<Vec<_>>());
        let runs = doubles.each_ref().map(|values| Representation::new(values, 5, 3).expect("finite"));
        let expected = RepresentationDistances::between(&runs, 3).expect("distances");
        let found = ["cka_distance", "svcca_distance", "procrustes_distance"].map(|name| column(name)[at]);
        assert_eq!(found, [expected.cka, expected.svcca, expected.procrustes]);
        let scores = seeds.map(|seed| record(seed).outcome.measures.score.expect("a score"));
        assert_eq!(
            Some(column("score_expected_max_2")[at]),
            scores.into_iter().collect::<Sample>().expected_max(2)
        );
        assert_eq!(reals(&stability, "score_expected_max_5")[at], None, "there are three seeds");
    }
}

#[test]
fn strategies_are_paired_with_the_baseline_on_the_seed() {
    let dir = tempfile::tempdir().expect("dir");
    export(dir.path(), Format::Parquet, 1000, |_| true);
    let grid = grid(SPEC);
    let comparisons = table(dir.path(), "comparisons.parquet");
    // 13 datasets, two points of `mhloss` against one of `head`.
    assert_eq!(comparisons.num_rows(), 26);
    let (pairs, differences) = (wholes(&comparisons, "score_pairs"), reals(&comparisons, "score_difference"));
    let ratios = reals(&comparisons, "score_variance_ratio");
    for row in 0..26u64 {
        let (first, point) = (row / 2 * 12, row % 2);
        let score = |index| record(&grid, index).outcome.measures.score;
        let both: Vec<(f64, f64)> =
            (0..4).filter_map(|seed| score(first + 4 + 4 * point + seed).zip(score(first + seed))).collect();
        assert_eq!(pairs[row as usize], Some(both.len() as u64));
        let mean = both.iter().map(|(a, b)| a - b).sum::<f64>() / both.len() as f64;
        assert!((differences[row as usize].expect("difference") - mean).abs() < 1e-12);
        let variance =
            |values: Vec<f64>| values.into_iter().collect::<evenkeel_common::stats::Sample>().variance();
        let (a, b) = (both.iter().map(|p| p.0).collect(), both.iter().map(|p| p.1).collect());
        let expected = variance(a).zip(variance(b)).map(|(a, b)| a / b);
        let (found, expected) = (ratios[row as usize].expect("ratio"), expected.expect("ratio"));
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} against {expected}");
    }
}

#[test]
fn files_do_not_depend_on_the_size_of_windows() {
    let (one, other) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    export(one.path(), Format::Parquet, 1, |_| true);
    export(other.path(), Format::Parquet, 100_000, |_| true);
    let names = files(one.path()).expect("list");
    let (pictures, tables): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.starts_with("figures/"));
    assert!(pictures.contains(&&"figures/spread.svg".to_owned()) && pictures.len() % 2 == 0, "{pictures:?}");
    assert!(names.iter().all(|name| is_output_name(name)));
    assert!(!["../x", "figures/../x", "/x", "figures/", "a/b", ""].iter().any(|name| is_output_name(name)));
    assert_eq!(
        tables,
        [
            "comparisons.parquet",
            "curves.parquet",
            "execution.parquet",
            "predictions.parquet",
            "report.html",
            "results.parquet",
            "spec.yaml",
            "stability.parquet",
            "summary.json",
            "theory.parquet",
        ]
    );
    for name in names {
        let bytes = |dir: &Path| std::fs::read(dir.join(&name)).expect("read");
        assert!(bytes(one.path()) == bytes(other.path()), "{name:?} differs");
    }
}

#[test]
fn a_partial_sweep_says_so_and_counts_what_there_is() {
    let dir = tempfile::tempdir().expect("dir");
    let summary = export(dir.path(), Format::Parquet, 10, |index| index % 5 != 3 && index < 100);
    assert!(!summary.complete);
    assert_eq!((summary.recorded, summary.trials), (80, 156));
    let stability = table(dir.path(), "stability.parquet");
    assert_eq!(wholes(&stability, "recorded").iter().flatten().sum::<u64>(), 80);
    assert!(wholes(&stability, "seeds").iter().all(|seeds| *seeds == Some(4)));
    let page = std::fs::read_to_string(dir.path().join("report.html")).expect("read");
    assert!(page.contains("The sweep is not complete: 76 of 156 trials have no result"));

    let nothing = tempfile::tempdir().expect("dir");
    let summary = export(nothing.path(), Format::Parquet, 10, |_| false);
    assert_eq!((summary.recorded, summary.complete), (0, false));
}

#[test]
fn csv_and_json_lines_hold_the_same_values() {
    let (parquet, csv, jsonl) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    export(parquet.path(), Format::Parquet, 100, |_| true);
    export(csv.path(), Format::Csv, 100, |_| true);
    export(jsonl.path(), Format::Jsonl, 100, |_| true);
    let results = table(parquet.path(), "results.parquet");
    let scores = reals(&results, "score");
    let mut reader = csv::Reader::from_path(csv.path().join("results.csv")).expect("open");
    let column = reader.headers().expect("header").iter().position(|name| name == "score").expect("score");
    let from_csv: Vec<Option<f64>> = reader
        .records()
        .map(|row| row.expect("row").get(column).and_then(|cell| cell.parse().ok()))
        .collect();
    assert_eq!(from_csv, scores);
    let lines = std::fs::read_to_string(jsonl.path().join("results.jsonl")).expect("read");
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(rows.iter().map(|row| row["score"].as_f64()).collect::<Vec<_>>(), scores);
    assert_eq!(rows[0]["sweep_id"], "export-test-0123456789");
    let lines = std::fs::read_to_string(jsonl.path().join("predictions.jsonl")).expect("read");
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().expect("line")).expect("json");
    assert_eq!(first["predictions"], serde_json::json!([0, 1, 0]));
    let lines = std::fs::read_to_string(csv.path().join("execution.csv")).expect("read");
    assert!(
        lines.lines().nth(1).is_some_and(|line| line.contains("2023-11-14T22:13:20Z")),
        "{:?}",
        lines.lines().nth(1)
    );
    assert_eq!(
        "xml".parse::<Format>(),
        Err("unknown format \"xml\"; allowed: `parquet`, `csv`, `jsonl`".to_owned())
    );
}

#[test]
fn records_out_of_order_or_out_of_the_grid_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let grid = grid(SPEC);
    let create = || Exporter::create(dir.path(), grid.clone(), &sweep(), Format::Parquet).expect("create");
    let mut exporter = create();
    exporter.push(&[record(&grid, 3)]).expect("push");
    let error = exporter.push(&[record(&grid, 3)]).expect_err("accepted");
    assert_eq!(error.to_string(), "trial 3 came after trial 3; records must rise from one to the next");
    drop(exporter);

    let mut foreign = record(&grid, 0);
    foreign.outcome.trial_index = 1 << 40;
    let mut exporter = create();
    let error = exporter.push(&[foreign]).expect_err("accepted");
    assert_eq!(error.to_string(), "trial 1099511627776 is not in the grid of 156 trials");
    drop(exporter);
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0, "temporary files stayed");
}

#[test]
fn a_strategy_is_shown_by_point_while_points_are_few() {
    let few = Points::new(&grid(SPEC));
    let labels: Vec<&str> = few.lines().all.iter().map(|(_, label, _)| label.as_str()).collect();
    assert_eq!(labels, ["head", "mhloss (heads=5)", "mhloss (heads=50)"]);
    let many = Points::new(&grid(&SPEC.replace("heads: [5, 50]", "heads: {range: [1, 100, 1]}")));
    let labels: Vec<_> =
        many.lines().all.iter().map(|(_, label, points)| (label.as_str(), *points)).collect();
    assert_eq!(labels, [("head", 1), ("mhloss", 99)]);
    assert_eq!((many.lines().of(1, 57), few.lines().of(1, 1)), (1, 2));
}

#[test]
fn a_slope_is_fitted_within_families_of_datasets() {
    let dir = tempfile::tempdir().expect("dir");
    let summary = export(dir.path(), Format::Parquet, 100, |_| true);
    let slope = summary.strategies[0].slope_samples.expect("slope");
    // The made-up distances are 2/n; the family `blobs` has one size and takes no part.
    assert_eq!(slope.groups, 12);
    assert!((slope.slope + 1.0).abs() < 0.05, "{slope:?}");
    assert!(
        slope.ci_low.is_some_and(|low| low < -1.0) && slope.ci_high.is_some_and(|high| high > -1.0),
        "{slope:?}"
    );
}
