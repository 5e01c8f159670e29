//! Rates of the engine beside libtorch's own, measured in one process so that only their ratios matter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_common::results::TrialOutcome;
use evenkeel_common::spec::{LeaveOneOut, Optimizer, Predictions};
use evenkeel_common::table::FeatureTable;
use evenkeel_common::trial::{
    DatasetConfig, FeaturesConfig, GeneratorConfig, ModelConfig, StrategyConfig, SweepSettings,
    SyntheticConfig, Trial,
};
use serde::Serialize;
use tch::nn::{self, Module as _, OptimizerConfig as _};
use tch::{Kind, Tensor};

use super::block::gram_form;
use super::{EngineError, HeadEngine, PackWatch, Sample};
use crate::data::{self, DataError, Dataset, Inputs};
use crate::device::Device;

/// The shapes (n, d) that are measured.
pub const SHAPES: [(u32, u32); 4] = [(200, 64), (100, 16), (400, 64), (250, 768)];
/// Refits of a trial.
const LEFT_OUT: u32 = 20;
/// Trials of a run: as many seeds of one dataset.
const TRIALS: u64 = 40;
/// Trainings of a run that are made one at a time.
const ALONE: u64 = 5;
/// Runs whose medians are reported; within a run the three rates are measured one after the other.
const RUNS: usize = 5;

/// What was measured for one shape, with two classes and gradient descent; medians of several runs on one core.
///
/// A training is one head on one training set: a trial is 21 of them, with its 20 leave-one-out refits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineRatios {
    /// Samples n.
    pub n: u32,
    /// Features d.
    pub d: u32,
    /// Steps of a training.
    pub steps: u32,
    /// Whether the engine used the Gram form, 2n² operations a step, and not 4nd.
    pub gram: bool,
    /// Trials a second through the whole engine: data, margin, training, measures.
    pub trials_per_s: f64,
    /// Trainings a second.
    pub trainings_per_s: f64,
    /// Operations of the products of all steps, in 10⁹ a second of the whole engine.
    pub gflops: f64,
    /// Rate of libtorch's f32 matrix product of [M, d] and [d, n] at the best M from 128 to 2048, in 10⁹ operations a second.
    pub sgemm_gflops: f64,
    /// `gflops` as a share of `sgemm_gflops`.
    pub share_of_sgemm: f64,
    /// The same trainings made one at a time the ordinary way, a second: a linear module, binary cross-entropy, automatic
    /// differentiation and an SGD optimiser of libtorch.
    pub alone_per_s: f64,
    /// `trainings_per_s` as a multiple of `alone_per_s`.
    pub speed_up: f64,
    /// The same trainings made one at a time with the gradient written out in tensor operations, a second.
    pub written_out_per_s: f64,
    /// `trainings_per_s` as a multiple of `written_out_per_s`.
    pub speed_up_written_out: f64,
}

/// Measures the engine on the CPU; takes some ten seconds.
///
/// # Errors
/// When libtorch fails.
pub fn engine_ratios(n: u32, d: u32, steps: u32) -> Result<EngineRatios, EngineError> {
    let mut engine = HeadEngine::new(Device::Cpu)?;
    let mut samples: [Vec<f64>; 6] = Default::default();
    let gram = gram_form(n as usize, d as usize, Optimizer::Gd, false, 0.0);
    let (n_f, d_f) = (f64::from(n), f64::from(d));
    let step = if gram { 2.0 * n_f * n_f } else { 4.0 * n_f * d_f };
    let trainings = TRIALS as f64 * f64::from(1 + LEFT_OUT);
    for run in 0..=RUNS {
        let trials = trials(n, d, steps, run as u32);
        let (outcome, busy) = timed(|| engine.run(&trials, &Nothing, &mut Nothing));
        outcome?;
        let rate = trainings / busy.as_secs_f64();
        let gflops = rate * f64::from(steps) * step / 1e9;
        let sgemm = sgemm_gflops(n, d)?;
        let data = data::load(&trials[0].dataset, &trials[0].model, trials[0].settings.sweep_seed, &Nothing)?;
        let alone = alone_per_s(&data, &trials[0].strategy)?;
        let written_out = written_out_per_s(&data, &trials[0].strategy)?;
        // The first run warms up.
        if run > 0 {
            let values = [rate, gflops, sgemm, alone, written_out, gflops / sgemm];
            samples.iter_mut().zip(values).for_each(|(samples, value)| samples.push(value));
        }
    }
    let [rate, gflops, sgemm_gflops, alone_per_s, written_out_per_s, share_of_sgemm] = samples.map(median);
    Ok(EngineRatios {
        n,
        d,
        steps,
        gram,
        trials_per_s: rate / f64::from(1 + LEFT_OUT),
        trainings_per_s: rate,
        gflops,
        sgemm_gflops,
        share_of_sgemm,
        alone_per_s,
        speed_up: rate / alone_per_s,
        written_out_per_s,
        speed_up_written_out: rate / written_out_per_s,
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn trials(n: u32, d: u32, steps: u32, instance: u32) -> Vec<Trial> {
    let generator =
        GeneratorConfig::Separable { margin: 0.5, noise: 1.0, max_norm: 0.5 + 1.5 * f64::from(d).sqrt() };
    let dataset =
        SyntheticConfig { generator, samples: n, features: d, classes: 2, test_samples: 500, instance };
    let strategy = StrategyConfig::head(steps, 0.1);
    let settings = SweepSettings {
        sweep_seed: 0,
        leave_one_out: Some(LeaveOneOut::Count(LEFT_OUT)),
        exact_margin: true,
        curvature: false,
        predictions: Predictions::None,
        representations: 0,
    };
    let trial = |seed| Trial {
        index: seed,
        dataset: DatasetConfig::Synthetic(dataset.clone()),
        dataset_name: "bench".to_owned(),
        model: ModelConfig::Identity,
        model_name: "identity".to_owned(),
        strategy: strategy.clone(),
        seed,
        settings,
    };
    (0..TRIALS).map(trial).collect()
}

/// What a call gives, and how long its thread was busy with it: time that other processes take is not counted where the
/// system tells (Linux); elsewhere all time is.
fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let busy = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    let (began, clock) = (busy(), Instant::now());
    let value = call();
    let elapsed = clock.elapsed();
    let spent = began.zip(busy()).and_then(|(began, ended)| ended.checked_sub(began));
    // The system counts in ticks of a few milliseconds.
    (value, spent.filter(|spent| *spent > Duration::from_millis(20)).unwrap_or(elapsed))
}

/// libtorch's best rate for [M, d]·[d, n].
fn sgemm_gflops(n: u32, d: u32) -> Result<f64, EngineError> {
    /// About 0.1 s for each M.
    const REPEATED_FLOPS: f64 = 8e9;
    let options = (Kind::Float, tch::Device::Cpu);
    let (n, d) = (i64::from(n), i64::from(d));
    let _guard = tch::no_grad_guard();
    let b = Tensor::f_randn([d, n], options)?;
    let mut best = 0.0f64;
    for m in [128i64, 256, 512, 1024, 2048] {
        let (a, out) = (Tensor::f_randn([m, d], options)?, Tensor::f_zeros([m, n], options)?);
        let flops = 2.0 * (m * n * d) as f64;
        let repeats = (REPEATED_FLOPS / flops).ceil();
        let multiply = || -> Result<(), EngineError> {
            for _ in 0..repeats as u32 {
                let _ = a.f_matmul_out(&out, &b)?;
            }
            Ok(())
        };
        let (outcome, busy) = timed(multiply);
        outcome?;
        best = best.max(repeats * flops / busy.as_secs_f64() / 1e9);
    }
    Ok(best)
}

/// Inputs [n, d] and classes [n] as tensors.
fn tensors(data: &Dataset) -> Result<(Tensor, Tensor), EngineError> {
    let shape = [data.train_rows() as i64, data.features as i64];
    let y: Vec<f32> = data.y_train.iter().map(|class| *class as f32).collect();
    Ok((Tensor::f_from_slice(&data.x_train)?.f_reshape(shape)?, Tensor::f_from_slice(&y)?))
}

/// Rate of an ordinary training loop.
fn alone_per_s(data: &Dataset, strategy: &StrategyConfig) -> Result<f64, EngineError> {
    let (x, y) = tensors(data)?;
    let y = y.f_unsqueeze(1)?;
    let train = || -> Result<(), EngineError> {
        for _ in 0..ALONE {
            let variables = nn::VarStore::new(tch::Device::Cpu);
            let config = nn::LinearConfig { bias: false, ..nn::LinearConfig::default() };
            let head = nn::linear(variables.root(), data.features as i64, 1, config);
            let mut optimizer = nn::Sgd::default().build(&variables, strategy.learning_rate)?;
            for _ in 0..strategy.steps {
                let logits = head.forward(&x);
                let loss = logits.f_binary_cross_entropy_with_logits::<Tensor>(
                    &y,
                    None,
                    None,
                    tch::Reduction::Mean,
                )?;
                optimizer.backward_step(&loss);
            }
        }
        Ok(())
    };
    let (outcome, busy) = timed(train);
    outcome?;
    Ok(ALONE as f64 / busy.as_secs_f64())
}

/// Rate of a loop with the gradient written out.
fn written_out_per_s(data: &Dataset, strategy: &StrategyConfig) -> Result<f64, EngineError> {
    let _guard = tch::no_grad_guard();
    let (x, y) = tensors(data)?;
    let xt = x.f_tr()?;
    let eta = strategy.learning_rate / data.train_rows() as f64;
    let train = || -> Result<(), EngineError> {
        for _ in 0..ALONE {
            let mut w = Tensor::f_randn([data.features as i64], (Kind::Float, tch::Device::Cpu))?
                .f_mul_scalar(0.02)?;
            for _ in 0..strategy.steps {
                let residual = x.f_mv(&w)?.f_sigmoid()?.f_sub(&y)?;
                w = w.f_sub(&xt.f_mv(&residual)?.f_mul_scalar(eta)?)?;
            }
        }
        Ok(())
    };
    let (outcome, busy) = timed(train);
    outcome?;
    Ok(ALONE as f64 / busy.as_secs_f64())
}

/// No tables, and nobody who watches.
struct Nothing;

impl Inputs for Nothing {
    fn table(&self, config: &FeaturesConfig) -> Result<Arc<FeatureTable>, DataError> {
        Err(DataError::Unavailable(config.path.clone()))
    }
}

impl PackWatch for Nothing {
    fn is_cancelled(&self) -> bool {
        false
    }
    fn progress(&mut self, _: f64) {}
    fn sample(&mut self, _: Sample) {}
    fn deliver(&mut self, _: Vec<TrialOutcome>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_positive_and_fit_together() {
        let found = engine_ratios(40, 8, 20).unwrap();
        assert!(!found.gram && found.gflops > 0.0 && found.sgemm_gflops > 0.0 && found.alone_per_s > 0.0);
        assert!((found.trainings_per_s / found.trials_per_s - 21.0).abs() < 1e-9);
        assert!((found.speed_up - found.trainings_per_s / found.alone_per_s).abs() < 1e-9);
    }
}
