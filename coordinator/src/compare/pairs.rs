//! Which trials of two sweeps belong together, and the statistics of their differences.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use evenkeel_common::stats::{Pairs, Sample, holm, mean_variance_ratio, signed_rank};
use serde::Serialize;

use super::load::{Side, TrialRow};

/// What two sweeps have in common and where they differ.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Trials with the same id in both: the same dataset, model, strategy, seed and settings.
    pub same_trials: u64,
    /// Those of them whose status, score and leave-one-out distance have the same bits.
    pub identical_trials: u64,
    /// Greatest difference of the score of trials with the same id.
    pub greatest_difference: Option<f64>,
    /// Whether trials are paired across models: the two have no model in common.
    pub across_models: bool,
    /// Trials without a partner, of A and of B.
    pub alone: (u64, u64),
    /// Lines of the specs that are in A alone, and in B alone.
    pub spec_only: (Vec<String>, Vec<String>),
    /// One a strategy that is in both.
    pub strategies: Vec<LineDifference>,
}

/// A strategy in both sweeps, paired on dataset and seed.
#[derive(Clone, Debug, Serialize)]
pub struct LineDifference {
    /// Its name, with its configuration where it has several.
    pub strategy: String,
    /// Datasets (and models) with pairs.
    pub datasets: u64,
    /// Pairs of completed trials.
    pub pairs: u64,
    /// Mean score of the pairs in A.
    pub score_a: f64,
    /// Mean score of the pairs in B.
    pub score_b: f64,
    /// Mean of B − A: over datasets, or over seeds where there is one dataset.
    pub difference: f64,
    /// Its 95 % confidence interval (Student's t).
    pub difference_ci: Option<(f64, f64)>,
    /// p-value of Wilcoxon's signed-rank test that it is zero, corrected for the number of strategies (Holm 1979).
    pub difference_p: Option<f64>,
    /// Variance of the score over seeds in B over that in A, both averaged over datasets.
    pub variance_ratio: Option<f64>,
    /// Its 95 % interval (BCa bootstrap over seeds).
    pub variance_ratio_ci: Option<(f64, f64)>,
    /// Mean leave-one-out distance in B over that in A, median over datasets.
    pub loo_ratio: Option<f64>,
}

impl LineDifference {
    /// Whether the scores differ by more than noise: the interval leaves out zero.
    #[must_use]
    pub fn score_differs(&self) -> bool {
        self.difference_ci.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }

    /// Whether the variances do: the interval leaves out 1.
    #[must_use]
    pub fn variance_differs(&self) -> bool {
        self.variance_ratio_ci.is_some_and(|(low, high)| low > 1.0 || high < 1.0)
    }
}

type DatasetAndModel = (Arc<str>, Arc<str>);
/// Trials of one dataset and strategy, of A and of B.
type Partners<'a> = Vec<(&'a TrialRow, &'a TrialRow)>;

/// Compares sweep B with sweep A.
#[must_use]
pub fn compare(a: &Side, b: &Side) -> Comparison {
    let models = |side: &Side| side.trials.iter().map(|t| t.model.clone()).collect::<BTreeSet<Arc<str>>>();
    let across_models = models(a).is_disjoint(&models(b));
    let several = |side: &Side| {
        let mut configs: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        for trial in &side.trials {
            configs.entry(trial.strategy.clone()).or_default().insert(trial.config.clone());
        }
        configs.into_iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name).collect::<BTreeSet<_>>()
    };
    let mut by_config = several(a);
    by_config.extend(several(b));
    // A strategy of one configuration in each is found by its name: the configuration may be what changed.
    let strategy = |trial: &TrialRow| match by_config.contains(&trial.strategy) {
        true => format!("{} {}", trial.strategy, trial.config),
        false => trial.strategy.to_string(),
    };
    let place = |trial: &'_ TrialRow| -> (Arc<str>, Arc<str>, String, u64) {
        let model = if across_models { Arc::from("") } else { trial.model.clone() };
        (trial.dataset.clone(), model, strategy(trial), trial.seed)
    };
    let (same, identical, greatest) = same_ids(a, b);
    let in_a: HashMap<_, &TrialRow> = a.trials.iter().map(|trial| (place(trial), trial)).collect();
    let mut lines: BTreeMap<String, BTreeMap<DatasetAndModel, Partners<'_>>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    let mut alone_b = 0;
    for trial in &b.trials {
        let key = place(trial);
        match in_a.get(&key) {
            Some(partner) => {
                let (dataset, model, strategy, _) = key.clone();
                lines
                    .entry(strategy)
                    .or_default()
                    .entry((dataset, model))
                    .or_default()
                    .push((*partner, trial));
                found.insert(key);
            }
            None => alone_b += 1,
        }
    }
    let mut strategies: Vec<LineDifference> = lines
        .into_iter()
        .filter_map(|(name, datasets)| line(name, datasets.into_values().collect()))
        .collect();
    correct(&mut strategies);
    Comparison {
        same_trials: same,
        identical_trials: identical,
        greatest_difference: greatest,
        across_models,
        alone: (in_a.len().saturating_sub(found.len()) as u64, alone_b),
        spec_only: spec_lines(&a.spec, &b.spec),
        strategies,
    }
}

/// Trials with the same id, those of them that are identical, and the greatest difference of their scores.
fn same_ids(a: &Side, b: &Side) -> (u64, u64, Option<f64>) {
    let by_id: HashMap<&str, &TrialRow> = a.trials.iter().map(|trial| (&*trial.id, trial)).collect();
    let (mut same, mut identical, mut greatest) = (0, 0, None);
    for trial in &b.trials {
        let Some(other) = by_id.get(&*trial.id) else { continue };
        same += 1;
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let alike = trial.status == other.status
            && bits(trial.score) == bits(other.score)
            && bits(trial.loo) == bits(other.loo);
        identical += u64::from(alike);
        if let Some((x, y)) = trial.score.zip(other.score) {
            greatest = Some(f64::max(greatest.unwrap_or(0.0), (x - y).abs()));
        }
    }
    (same, identical, greatest)
}

fn line(strategy: String, datasets: Vec<Partners<'_>>) -> Option<LineDifference> {
    let score = |of: &(&TrialRow, &TrialRow)| of.0.score.zip(of.1.score);
    // B first: ratios are of B over A.
    let mut pairs: Vec<Pairs> = Vec::new();
    let mut loos = Sample::default();
    for trials in &datasets {
        let mut of_dataset: Vec<(u64, (f64, f64))> =
            trials.iter().filter_map(|of| score(of).map(|(a, b)| (of.0.seed, (b, a)))).collect();
        of_dataset.sort_unstable_by_key(|(seed, _)| *seed);
        if !of_dataset.is_empty() {
            pairs.push(of_dataset.into_iter().map(|(_, pair)| pair).collect());
        }
        let mean = |get: fn(&(&TrialRow, &TrialRow)) -> Option<f64>| {
            trials.iter().filter_map(get).collect::<Sample>().summary().map(|numbers| numbers.mean)
        };
        if let (Some(ours), Some(theirs)) = (mean(|of| of.1.loo), mean(|of| of.0.loo)) {
            loos.push(ours / theirs);
        }
    }
    let all = || pairs.iter().flatten();
    let mean = |values: Sample| values.summary().map(|numbers| numbers.mean);
    let differences: Sample = match &pairs[..] {
        [one] => one.iter().map(|(b, a)| b - a).collect(),
        many => many.iter().filter_map(|of| mean(of.iter().map(|(b, a)| b - a).collect())).collect(),
    };
    let numbers = differences.summary()?;
    let ratio = mean_variance_ratio(&pairs);
    Some(LineDifference {
        strategy,
        datasets: pairs.len() as u64,
        pairs: all().count() as u64,
        score_a: mean(all().map(|(_, a)| *a).collect())?,
        score_b: mean(all().map(|(b, _)| *b).collect())?,
        difference: numbers.mean,
        difference_ci: numbers.ci95,
        difference_p: signed_rank(&differences.sorted()).map(|test| test.p),
        variance_ratio: ratio.map(|ratio| ratio.ratio),
        variance_ratio_ci: ratio.and_then(|ratio| ratio.ci95),
        loo_ratio: loos.quantile(0.5),
    })
}

/// Holm's correction over strategies.
fn correct(lines: &mut [LineDifference]) {
    let all: Vec<f64> = lines.iter().filter_map(|line| line.difference_p).collect();
    let mut corrected = holm(&all).into_iter();
    for p in lines.iter_mut().filter_map(|line| line.difference_p.as_mut()) {
        *p = corrected.next().unwrap_or(*p);
    }
}

/// Lines that only one of two specs has, in their order.
fn spec_lines(a: &str, b: &str) -> (Vec<String>, Vec<String>) {
    let only = |ours: &str, theirs: &str| {
        let mut left: HashMap<&str, usize> = HashMap::new();
        theirs.lines().for_each(|line| *left.entry(line).or_default() += 1);
        let new = ours.lines().filter(|line| match left.get_mut(line) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        });
        new.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    (only(a, b), only(b, a))
}
