//! Builders that the engine's tests share.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(missing_docs, reason = "test code")]

use std::sync::Arc;

use evenkeel_common::results::TrialOutcome;
use evenkeel_common::spec::{LeaveOneOut, Predictions};
use evenkeel_common::table::FeatureTable;
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, ModelConfig, StrategyConfig, SweepSettings,
    SyntheticConfig, Trial,
};
use evenkeel_worker::device::Device;
use evenkeel_worker::engine::{DataError, EngineError, HeadEngine, Inputs, PackWatch, Sample};

pub struct NoTables;

impl Inputs for NoTables {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        Err(DataError::Unavailable(format!("{} is not there", config.path)))
    }
}

/// Keeps what is delivered; cancels once it was asked `looks` times.
pub struct Collect {
    pub outcomes: Vec<TrialOutcome>,
    pub fractions: Vec<f64>,
    pub deliveries: usize,
    pub looks: std::cell::Cell<u32>,
}

impl Collect {
    pub fn new(looks: u32) -> Self {
        Self { outcomes: Vec::new(), fractions: Vec::new(), deliveries: 0, looks: looks.into() }
    }
}

impl PackWatch for Collect {
    fn is_cancelled(&self) -> bool {
        let left = self.looks.get();
        self.looks.set(left.saturating_sub(1));
        left == 0
    }

    fn progress(&mut self, fraction: f64) {
        self.fractions.push(fraction);
    }

    fn sample(&mut self, _: Sample) {}

    fn deliver(&mut self, outcomes: Vec<TrialOutcome>) {
        self.deliveries += 1;
        self.outcomes.extend(outcomes);
    }
}

pub fn run(trials: &[Trial]) -> Vec<TrialOutcome> {
    try_run(trials, &mut Collect::new(u32::MAX)).unwrap()
}

pub fn try_run(trials: &[Trial], watch: &mut Collect) -> Result<Vec<TrialOutcome>, EngineError> {
    HeadEngine::new(Device::Cpu).unwrap().run(trials, &NoTables, watch)?;
    Ok(std::mem::take(&mut watch.outcomes))
}

pub fn strategy() -> StrategyConfig {
    StrategyConfig::head(60, 0.1)
}

pub fn separable(samples: u32, features: u32, classes: u32) -> DatasetConfig {
    let generator = GeneratorConfig::Separable { margin: 0.5, noise: 1.0, max_norm: 20.0 };
    DatasetConfig::Synthetic(SyntheticConfig {
        generator,
        samples,
        features,
        classes,
        test_samples: 40,
        instance: 0,
    })
}

pub fn trial(index: u64, dataset: DatasetConfig, strategy: StrategyConfig, seed: u64) -> Trial {
    Trial {
        index,
        dataset,
        dataset_name: "d".to_owned(),
        model: ModelConfig::Identity,
        model_name: "identity".to_owned(),
        strategy,
        seed,
        settings: SweepSettings {
            sweep_seed: 5,
            leave_one_out: Some(LeaveOneOut::Count(4)),
            exact_margin: true,
            curvature: false,
            predictions: Predictions::Probabilities,
            representations: 0,
        },
    }
}
