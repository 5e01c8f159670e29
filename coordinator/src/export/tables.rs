//! What each table holds.

use std::path::Path;

use evenkeel_common::grid::Grid;
use evenkeel_common::id::{SweepId, TrialId};
use evenkeel_common::results::{Measures, TrialRecord};
use evenkeel_common::stats::Summary as Numbers;

use super::groups::{EXPECTED_MAX, Group};
use super::pairs::Pair;
use super::points::Place;
use super::rows::{Kind, Rows};
use super::theory::Theory;
use super::{BATCH_ROWS, ExportError, Format, TableFile};

type Get = fn(&Measures) -> Option<f64>;

macro_rules! measures {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), (|m| m.$name) as Get)),*] };
}

/// The measures that the contract names, in its order, then the others; `loo_count` stands between.
const NAMED: &[(&str, Get)] =
    measures![accuracy, train_loss, eval_loss, margin, weight_distance, loo_mean, loo_max];
const OTHERS: &[(&str, Get)] = measures![
    train_accuracy,
    majority,
    trained_margin,
    weight_norm,
    direction_residual,
    loo_se,
    loo_raw_mean,
    loo_raw_max,
    loo_flip_rate,
    loo_loss_change,
    validation_score,
    surt_distance,
    class_distance,
    dual_max,
    feature_norm,
    lipschitz,
    smoothness,
    curvature,
    least_curvature,
];

/// Statistics over seeds, as columns `<quantity>_<statistic>`.
const STATISTICS: [&str; 13] =
    ["count", "mean", "sd", "se", "ci_low", "ci_high", "min", "q1", "median", "q3", "max", "iqr", "cv"];
/// Comparisons with the baseline, as columns `<quantity>_<statistic>`.
const COMPARED: [&str; 8] = [
    "difference",
    "difference_ci_low",
    "difference_ci_high",
    "ratio",
    "variance_ratio",
    "variance_ratio_ci_low",
    "variance_ratio_ci_high",
    "brown_forsythe_p",
];
const QUANTITIES: [&str; 2] = ["score", "loo_mean"];

/// One table: its rows in the making and its file.
struct Table {
    rows: Rows,
    file: TableFile,
}

impl Table {
    fn create(dir: &Path, stem: &str, format: Format, rows: Rows) -> Result<Self, ExportError> {
        let file = TableFile::create(dir, stem, format, rows.schema())?;
        Ok(Self { rows, file })
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows.len() > 0 {
            let batch = self.rows.batch()?;
            self.file.write(batch)?;
        }
        Ok(())
    }
}

/// All tables of an output directory.
pub(super) struct Tables {
    results: Table,
    execution: Table,
    curves: Table,
    predictions: Option<Table>,
    representations: Option<Table>,
    stability: Table,
    comparisons: Table,
    theory: Table,
    /// Whether predictions have probabilities.
    probabilities: bool,
}

impl Tables {
    pub fn create(dir: &Path, format: Format, grid: &Grid) -> Result<Self, ExportError> {
        let table = |stem, rows| Table::create(dir, stem, format, rows);
        let settings = grid.settings();
        let predictions = settings.predictions.classes();
        let probabilities = settings.predictions.probabilities();
        let representations = settings.representations > 0;
        Ok(Self {
            results: table("results", results())?,
            execution: table("execution", execution())?,
            curves: table("curves", curves())?,
            predictions: predictions
                .then(|| table("predictions", self::predictions(probabilities)))
                .transpose()?,
            representations: representations
                .then(|| table("representations", self::representations()))
                .transpose()?,
            stability: table("stability", stability())?,
            comparisons: table("comparisons", comparisons())?,
            theory: table("theory", theory())?,
            probabilities,
        })
    }

    /// Those with rows of trials, and of groups as they end.
    fn all(&mut self) -> impl Iterator<Item = &mut Table> {
        let always = [&mut self.results, &mut self.execution, &mut self.curves, &mut self.stability];
        always.into_iter().chain(self.predictions.as_mut()).chain(self.representations.as_mut())
    }

    /// Adds a trial to the tables that have a row for it.
    pub fn push(&mut self, sweep: &SweepId, id: &TrialId, place: &Place, record: &TrialRecord) {
        let (outcome, execution) = (&record.outcome, &record.execution);
        let (m, index, id) = (&outcome.measures, outcome.trial_index, id.to_string());
        let (n, d, c) = place.dataset.shape;
        let row = &mut self.results.rows;
        row.text(Some(sweep.as_str())).whole(Some(index)).text(Some(&id));
        row.text(Some(&place.dataset.name)).text(Some(&place.dataset.json)).text(Some(&place.model.name));
        row.text(Some(&place.strategy.name)).text(Some(&place.strategy.json)).whole(Some(place.seed));
        row.text(Some(outcome.status.name())).text(outcome.error.as_deref());
        row.real(m.score).text(m.score.map(|_| place.dataset.metric));
        NAMED.iter().for_each(|(_, get)| {
            row.real(get(m));
        });
        row.whole(m.loo_count.map(u64::from));
        OTHERS.iter().for_each(|(_, get)| {
            row.real(get(m));
        });
        for whole in [m.trained_steps, m.truncated, m.skipped_rows, m.support_vectors] {
            row.whole(whole.map(u64::from));
        }
        row.text(outcome.distances.as_deref());
        row.whole(Some(n.into())).whole(Some(d.into())).whole(Some(c.into()));

        let row = &mut self.execution.rows;
        row.whole(Some(index)).text(Some(&id)).whole(Some(execution.attempt.into()));
        row.text(Some(&execution.worker)).text(Some(&execution.device));
        row.time(execution.started_ms).real(Some(execution.duration_s));

        let row = &mut self.curves.rows;
        for point in &outcome.curve {
            row.whole(Some(index)).text(Some(&id)).whole(Some(point.step.into()));
            let reals =
                [point.train_loss, point.eval_loss, point.score, point.loo_mean, point.direction_residual];
            reals.into_iter().for_each(|value| {
                row.real(Some(value));
            });
        }
        let outputs = &outcome.outputs;
        if let (Some(table), Some(classes)) = (&mut self.predictions, &outputs.classes) {
            table.rows.whole(Some(index)).text(Some(&id)).smalls(Some(classes));
            if self.probabilities {
                table.rows.singles(outputs.log_probabilities.as_deref());
            }
        }
        if let (Some(table), Some(features)) = (&mut self.representations, &outputs.features) {
            table.rows.whole(Some(index)).text(Some(&id)).whole(Some(features.examples.into()));
            table.rows.singles(Some(&features.values));
        }
    }

    /// Adds a group.
    pub fn stability(&mut self, group: &Group) {
        let row = &mut self.stability.rows;
        key(row, group);
        row.real(group.margin.as_ref().map(|numbers| numbers.mean));
        row.whole(Some(group.expected)).whole(Some(group.recorded()));
        row.whole(Some(group.completed)).whole(Some(group.diverged)).whole(Some(group.failed));
        row.real(group.failed_runs.rate());
        numbers(row, group.score.as_ref());
        numbers(row, group.loo.as_ref());
        row.real(group.loo_max).real(group.flip_rate).real(group.weight_distance);
        let (classes, features) = (group.parting.classes, group.parting.features);
        row.real(classes.map(|a| a.disagreement)).real(classes.and_then(|a| a.kappa));
        row.real(group.parting.jensen_shannon);
        row.real(features.map(|f| f.cka))
            .real(features.map(|f| f.svcca))
            .real(features.map(|f| f.procrustes));
        group.expected_max.into_iter().for_each(|best| {
            row.real(best);
        });
    }

    /// Adds a strategy point against a baseline point.
    pub fn comparison(&mut self, pair: &Pair<'_>) -> Result<(), ExportError> {
        let row = &mut self.comparisons.rows;
        let (dataset, strategy) = (&pair.group.dataset, &pair.group.strategy);
        let baseline = &pair.baseline.strategy;
        row.text(Some(&dataset.name)).text(Some(&dataset.json)).text(Some(&pair.group.model));
        row.text(Some(&strategy.name)).text(Some(&strategy.json));
        row.text(Some(&baseline.name)).text(Some(&baseline.json));
        for quantity in [pair.score, pair.loo] {
            let difference = quantity.difference.as_ref();
            let interval = difference.and_then(|numbers| numbers.ci95);
            row.whole(Some(difference.map_or(0, |numbers| numbers.count)));
            row.real(difference.map(|numbers| numbers.mean));
            row.real(interval.map(|(low, _)| low)).real(interval.map(|(_, high)| high));
            let ratio = quantity.variance_ratio;
            let interval = ratio.and_then(|ratio| ratio.ci95);
            row.real(quantity.mean_ratio).real(ratio.map(|ratio| ratio.ratio));
            row.real(interval.map(|(low, _)| low)).real(interval.map(|(_, high)| high));
            row.real(quantity.equal_variances);
        }
        row.whole(Some(pair.group.index)).whole(Some(pair.baseline.index));
        // A dataset with many strategy points makes many pairs.
        if row.len() >= BATCH_ROWS { self.comparisons.flush() } else { Ok(()) }
    }

    /// Adds a group's bound, or why it has none.
    pub fn theory(&mut self, group: &Group, theory: &Theory) -> Result<(), ExportError> {
        let row = &mut self.theory.rows;
        key(row, group);
        let measured = group.loo.as_ref().map(|numbers| numbers.mean);
        row.whole(Some(u64::from(group.strategy.config.steps)).filter(|steps| *steps > 0))
            .whole(Some(group.strategy.config.heads.into()));
        row.real(measured);
        for bound in [theory.bound(), theory.support_bound()] {
            row.real(bound);
            row.whole(bound.zip(measured).map(|(bound, measured)| u64::from(measured <= bound)));
        }
        row.text(theory.reason());
        let (head, full) = (theory.head(), theory.full());
        let (of, bound) = (head.map(|h| &h.constants), head.map(|h| &h.bound));
        row.real(bound.map(|b| b.rate_term)).real(bound.map(|b| b.margin_term));
        row.real(bound.map(|b| b.rate)).real(of.map(|of| of.rate_constant));
        row.text(head.map(|h| h.constant_from.name.as_str())).real(of.map(|of| of.heads_factor));
        row.real(of.map(|of| of.margin)).real(of.map(|of| of.feature_norm)).real(of.map(|of| of.dual_max));
        row.real(bound.map(|b| b.lambda)).whole(of.map(|of| of.support.into()));
        row.real(full.and_then(|f| f.lipschitz)).real(full.and_then(|f| f.smoothness));
        row.real(full.and_then(|f| f.curvature)).real(full.and(group.weight_distance));
        if row.len() >= BATCH_ROWS { self.theory.flush() } else { Ok(()) }
    }

    /// Writes the rows that trials and groups made until now.
    pub fn flush(&mut self) -> Result<(), ExportError> {
        self.all().try_for_each(Table::flush)
    }

    /// Writes all rows.
    pub fn flush_all(&mut self) -> Result<(), ExportError> {
        self.flush()?;
        self.comparisons.flush()?;
        self.theory.flush()
    }

    /// Gives the files their names.
    pub fn commit(self) -> Result<(), ExportError> {
        let Self { results, execution, curves, stability, comparisons, theory, .. } = self;
        let all = [results, execution, curves, stability, comparisons, theory].into_iter();
        let all = all.chain(self.predictions).chain(self.representations);
        all.map(|table| table.file).try_for_each(TableFile::commit)
    }
}

/// The columns of [`GROUP`] and [`SHAPE`].
fn key(row: &mut Rows, group: &Group) {
    let (n, d, c) = group.dataset.shape;
    row.whole(Some(group.index)).text(Some(&group.dataset.name)).text(Some(&group.dataset.json));
    row.text(Some(&group.model)).text(Some(&group.strategy.name)).text(Some(&group.strategy.json));
    row.whole(Some(n.into())).whole(Some(d.into())).whole(Some(c.into()));
}

fn numbers(row: &mut Rows, numbers: Option<&Numbers>) {
    let interval = numbers.and_then(|n| n.ci95);
    row.whole(Some(numbers.map_or(0, |n| n.count)));
    row.real(numbers.map(|n| n.mean)).real(numbers.and_then(|n| n.sd)).real(numbers.and_then(|n| n.se));
    row.real(interval.map(|(low, _)| low)).real(interval.map(|(_, high)| high));
    row.real(numbers.map(|n| n.min)).real(numbers.map(|n| n.q1)).real(numbers.map(|n| n.median));
    row.real(numbers.map(|n| n.q3)).real(numbers.map(|n| n.max));
    row.real(numbers.map(Numbers::iqr)).real(numbers.and_then(|n| n.cv));
}

fn reals<'a>(names: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = (String, Kind)> {
    names.into_iter().map(|name| (name.to_owned(), Kind::Real))
}

fn named(fields: &[(&str, Kind)]) -> Vec<(String, Kind)> {
    fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
}

const SHAPE: [(&str, Kind); 3] =
    [("samples", Kind::Small), ("features", Kind::Small), ("classes", Kind::Small)];

const GROUP: [(&str, Kind); 6] = [
    ("group_index", Kind::Whole),
    ("dataset", Kind::Word),
    ("dataset_config", Kind::Word),
    ("model", Kind::Word),
    ("strategy", Kind::Word),
    ("strategy_config", Kind::Word),
];

fn results() -> Rows {
    use Kind::{Real, Small, Text, Whole, Word};
    let mut fields = named(&[
        ("sweep_id", Word),
        ("trial_index", Whole),
        ("trial_id", Text),
        ("dataset", Word),
        ("dataset_config", Word),
        ("model", Word),
        ("strategy", Word),
        ("strategy_config", Word),
        ("seed", Whole),
        ("status", Word),
        ("error", Text),
        ("score", Real),
        ("metric", Word),
    ]);
    fields.extend(reals(NAMED.iter().map(|(name, _)| *name)));
    fields.push(("loo_count".to_owned(), Small));
    fields.extend(reals(OTHERS.iter().map(|(name, _)| *name)));
    fields.extend(named(&[
        ("trained_steps", Small),
        ("truncated", Small),
        ("skipped_rows", Small),
        ("support_vectors", Small),
        ("distances", Text),
    ]));
    fields.extend(named(&SHAPE));
    Rows::new(fields)
}

fn execution() -> Rows {
    use Kind::{Real, Small, Text, Time, Whole, Word};
    Rows::new([
        ("trial_index", Whole),
        ("trial_id", Text),
        ("attempts", Small),
        ("worker", Word),
        ("device", Word),
        ("started", Time),
        ("duration_s", Real),
    ])
}

fn curves() -> Rows {
    let mut fields = named(&[("trial_index", Kind::Whole), ("trial_id", Kind::Text), ("step", Kind::Small)]);
    fields.extend(reals(["train_loss", "eval_loss", "score", "loo_mean", "direction_residual"]));
    Rows::new(fields)
}

fn predictions(probabilities: bool) -> Rows {
    let fields = [("trial_index", Kind::Whole), ("trial_id", Kind::Text), ("predictions", Kind::Smalls)];
    Rows::new(fields.into_iter().chain(probabilities.then_some(("log_probabilities", Kind::Singles))))
}

fn representations() -> Rows {
    use Kind::{Singles, Small, Text, Whole};
    Rows::new([("trial_index", Whole), ("trial_id", Text), ("examples", Small), ("values", Singles)])
}

fn stability() -> Rows {
    use Kind::{Real, Whole};
    let mut fields = named(&GROUP);
    fields.extend(named(&SHAPE));
    fields.extend(named(&[
        ("margin", Real),
        ("seeds", Whole),
        ("recorded", Whole),
        ("completed", Whole),
        ("diverged", Whole),
        ("failed", Whole),
        ("failed_run_rate", Real),
    ]));
    for quantity in QUANTITIES {
        let kind = |statistic| if statistic == "count" { Whole } else { Real };
        fields.extend(STATISTICS.map(|statistic| (format!("{quantity}_{statistic}"), kind(statistic))));
    }
    fields.extend(reals(["loo_max", "loo_flip_rate", "weight_distance", "disagreement", "fleiss_kappa"]));
    fields.extend(reals(["jensen_shannon", "cka_distance", "svcca_distance", "procrustes_distance"]));
    fields.extend(EXPECTED_MAX.map(|k| (format!("score_expected_max_{k}"), Real)));
    Rows::new(fields)
}

fn comparisons() -> Rows {
    use Kind::{Real, Whole, Word};
    let mut fields = named(&[
        ("dataset", Word),
        ("dataset_config", Word),
        ("model", Word),
        ("strategy", Word),
        ("strategy_config", Word),
        ("baseline", Word),
        ("baseline_config", Word),
    ]);
    for quantity in QUANTITIES {
        fields.push((format!("{quantity}_pairs"), Whole));
        for statistic in COMPARED {
            fields.push((format!("{quantity}_{statistic}"), Real));
        }
    }
    fields.extend(named(&[("group_index", Whole), ("baseline_group_index", Whole)]));
    Rows::new(fields)
}

fn theory() -> Rows {
    use Kind::{Real, Small, Text, Word};
    let mut fields = named(&GROUP);
    fields.extend(named(&SHAPE));
    fields.extend(named(&[("steps", Small), ("heads", Small)]));
    fields.extend(named(&[
        ("measured", Real),
        ("bound", Real),
        ("held", Small),
        ("support_bound", Real),
        ("support_held", Small),
        ("no_bound", Text),
    ]));
    fields.extend(reals(["rate_term", "margin_term", "rate", "rate_constant"]));
    fields.extend(named(&[("rate_constant_from", Word)]));
    fields.extend(reals(["heads_factor", "margin", "feature_norm", "dual_max", "lambda"]));
    fields.extend(named(&[("support_vectors", Small)]));
    fields.extend(reals(["lipschitz", "smoothness", "curvature", "weight_distance"]));
    Rows::new(fields)
}
