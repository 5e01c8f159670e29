//! From trials of one dataset to the heads that have to be trained, each once, and to blocks of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::spec::{LeaveOneOut, Optimizer, Reduction};
use evenkeel_common::trial::{StrategyConfig, Trial, refits};

use super::block::{Block, HeadParameters, Inputs, gram_form};

/// Bytes that a block's matrices may take: with the inputs they fit a second-level cache of 1 MiB (measured on a Zen 4
/// core: from 256 KiB to 1.4 MiB rates stay within 5 % at n = 200, d = 64 and 18 % at n = 100, d = 16, best from 640 to 896).
const BLOCK_BYTES: usize = 640 << 10;
/// Fewest and most rows of a block.
const BLOCK_ROWS: (usize, usize) = (64, 512);
/// Rows of a block on a device, where only the number of kernel launches counts.
const DEVICE_BLOCK_ROWS: usize = 16_384;

/// What decides the weights of one head; heads that agree are trained once, to the greatest number of steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RunKey {
    optimizer: Optimizer,
    /// η, μ, λ and the initial standard deviation, as bits.
    numbers: [u64; 4],
    bias: bool,
    seed: u64,
    head: u32,
    /// What the gradient is divided by: H where the loss is the mean over heads.
    divisor: u32,
    /// Number of samples left out by `data_perturbation`, and the seed that chooses them.
    perturbation: Option<(u32, u64)>,
    left_out: Option<u32>,
}

/// One head trained on one training set.
pub struct Run {
    key: RunKey,
    kept: Rc<Kept>,
    /// Steps to train.
    steps: u32,
    /// Steps after which its weights are wanted, rising.
    snapshots: Vec<u32>,
    /// Weights [rows, width] at each of them, once trained.
    weights: Vec<f32>,
}

impl Run {
    /// Weights after `step` steps, which must be one of the snapshots, [rows, width].
    #[must_use]
    pub fn weights(&self, step: u32) -> &[f32] {
        let count = self.weights.len() / self.snapshots.len().max(1);
        let at = self.snapshots.binary_search(&step).unwrap_or(0);
        &self.weights[at * count..][..count]
    }
}

/// Which samples a trial is trained on.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whether each of the n is.
    pub mask: Vec<bool>,
    /// Those that are not, rising.
    pub removed: Vec<usize>,
}

impl Kept {
    /// Number of samples that are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mask.len() - self.removed.len()
    }
}

/// One trial's part of a plan.
pub struct TrialPlan {
    /// Samples it is trained on.
    pub kept: Rc<Kept>,
    /// Samples left out one at a time.
    pub left_out: Vec<u32>,
    /// Its runs: first the heads of the model itself, then those of each refit.
    pub runs: Vec<usize>,
    /// Steps at which it is measured, rising; the last is its end.
    pub steps: Vec<u32>,
}

/// Heads to train for some trials of one dataset.
pub struct Plan {
    /// Each head once.
    pub runs: Vec<Run>,
    /// The trials, in their order.
    pub trials: Vec<TrialPlan>,
}

/// Random choices of one dataset: initial weights, samples left out.
pub struct Draws {
    key: Key,
    n: usize,
    d: usize,
    rows: usize,
    initial: HashMap<(u64, u32, u64), Rc<[f32]>>,
    kept: HashMap<Option<(u32, u64)>, Rc<Kept>>,
    order: Option<Rc<[u32]>>,
}

impl Draws {
    /// Choices for a training set of n samples and d features whose heads have `rows` rows.
    #[must_use]
    pub fn new(key: Key, n: usize, d: usize, rows: usize) -> Self {
        Self { key, n, d, rows, initial: HashMap::new(), kept: HashMap::new(), order: None }
    }

    /// Initial weights of a head without its bias [rows, d]: normal with standard deviation `init_std`. They depend on the
    /// dataset, the seed and the position of the head alone, so that refits and strategies share them (common random
    /// numbers). The bias starts at 0, as BERT's does (Devlin et al. 2019).
    pub fn initial(&mut self, seed: u64, head: u32, init_std: f64) -> Rc<[f32]> {
        let (key, count) = (self.key, self.rows * self.d);
        let draw = || {
            let mut stream = key.stream(Purpose::HeadInitialization, seed, u64::from(head));
            (0..count).map(|_| (init_std * stream.normal()) as f32).collect()
        };
        Rc::clone(self.initial.entry((seed, head, init_std.to_bits())).or_insert_with(draw))
    }

    /// (rows, d) of a head without its bias.
    #[must_use]
    pub fn head_shape(&self) -> (usize, usize) {
        (self.rows, self.d)
    }

    /// Samples kept by `data_perturbation`.
    fn kept(&mut self, perturbation: Option<(u32, u64)>) -> Rc<Kept> {
        let (key, n) = (self.key, self.n);
        let draw = || {
            let removed = perturbation.map_or(Vec::new(), |(count, seed)| {
                key.stream(Purpose::DataPerturbation, seed, 0).sample(n, count as usize)
            });
            let mut mask = vec![true; n];
            removed.iter().for_each(|i| mask[*i] = false);
            Rc::new(Kept { mask, removed })
        };
        Rc::clone(self.kept.entry(perturbation).or_insert_with(draw))
    }

    /// The first `count` samples, in one random order for all trials of the dataset, that are kept. A point that
    /// `data_perturbation` already removed is passed over, since leaving it out would change nothing.
    fn left_out(&mut self, kept: &Kept, count: usize) -> Vec<u32> {
        if count == 0 {
            return Vec::new();
        }
        let (key, n) = (self.key, self.n);
        let order = self.order.get_or_insert_with(|| {
            let mut order: Vec<u32> = (0..n as u32).collect();
            key.stream(Purpose::LeaveOneOut, 0, 0).shuffle(&mut order);
            order.into()
        });
        order.iter().copied().filter(|i| kept.mask[*i as usize]).take(count).collect()
    }
}

/// Rows of a head: one for two classes, where the row is the difference of the two logits' weights and the loss is
/// logistic; C for more. The one row is drawn and stepped as such: it moves as the difference of two softmax rows
/// would with initial standard deviation `init_std`/√2 and half the step size.
#[must_use]
pub fn rows_of_head(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// Steps at which a trial is measured: its checkpoints and its end.
#[must_use]
pub fn measured_steps(strategy: &StrategyConfig) -> Vec<u32> {
    let mut steps: Vec<u32> = strategy.checkpoints.iter().copied().filter(|t| *t < strategy.steps).collect();
    steps.push(strategy.steps);
    steps.sort_unstable();
    steps.dedup();
    steps
}

impl Plan {
    /// Plans trials that share a dataset.
    #[must_use]
    pub fn new(trials: &[Trial], draws: &mut Draws) -> Self {
        let mut plan = Self { runs: Vec::new(), trials: Vec::with_capacity(trials.len()) };
        let mut known: HashMap<RunKey, usize> = HashMap::new();
        for trial in trials {
            let planned = plan.trial(trial, draws, &mut known);
            plan.trials.push(planned);
        }
        for run in &mut plan.runs {
            run.snapshots.sort_unstable();
            run.snapshots.dedup();
        }
        plan
    }

    fn trial(&mut self, trial: &Trial, draws: &mut Draws, known: &mut HashMap<RunKey, usize>) -> TrialPlan {
        let strategy = &trial.strategy;
        let controls = strategy.seed_controls;
        // At least one sample stays.
        let removed =
            libm::round(strategy.data_perturbation * draws.n as f64).min(draws.n as f64 - 1.0) as u32;
        let seed = if controls.data_perturbation { trial.seed } else { 0 };
        let perturbation = (removed > 0).then_some((removed, seed));
        let kept = draws.kept(perturbation);
        let count = match trial.settings.leave_one_out {
            Some(LeaveOneOut::All) => kept.count(),
            count => refits(draws.n as u32, count) as usize,
        };
        let left_out = draws.left_out(&kept, count);
        let steps = measured_steps(strategy);
        let mut runs = Vec::with_capacity((1 + left_out.len()) * strategy.heads as usize);
        for left_out in std::iter::once(None).chain(left_out.iter().copied().map(Some)) {
            for head in 0..strategy.heads {
                let key = RunKey {
                    optimizer: strategy.optimizer,
                    numbers: [
                        strategy.learning_rate,
                        strategy.momentum,
                        strategy.weight_decay,
                        strategy.init_std,
                    ]
                    .map(f64::to_bits),
                    bias: strategy.bias,
                    seed: if controls.initialization { trial.seed } else { 0 },
                    head,
                    divisor: if strategy.reduction == Reduction::Mean { strategy.heads } else { 1 },
                    perturbation,
                    left_out,
                };
                runs.push(self.run(key, &kept, &steps, known));
            }
        }
        TrialPlan { kept, left_out, runs, steps }
    }

    fn run(
        &mut self,
        key: RunKey,
        kept: &Rc<Kept>,
        steps: &[u32],
        known: &mut HashMap<RunKey, usize>,
    ) -> usize {
        let last = steps.last().copied().unwrap_or(0);
        match known.entry(key) {
            Entry::Occupied(at) => {
                let run = &mut self.runs[*at.get()];
                run.steps = run.steps.max(last);
                if run.snapshots != steps {
                    run.snapshots.extend_from_slice(steps);
                }
                *at.get()
            }
            Entry::Vacant(place) => {
                let run = Run {
                    key: place.key().clone(),
                    kept: Rc::clone(kept),
                    steps: last,
                    snapshots: steps.to_vec(),
                    weights: Vec::new(),
                };
                place.insert(self.runs.len());
                self.runs.push(run);
                self.runs.len() - 1
            }
        }
    }

    /// Numbers of the runs of each block: alike in optimiser, bias, form and steps, and few enough that a step's
    /// matrices stay in the cache.
    #[must_use]
    pub fn blocks(&self, draws: &Draws, on_cpu: bool) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        let kind = |i: &usize| {
            let run = &self.runs[*i];
            (run.key.optimizer, run.key.bias, self.gram(*i, draws), run.steps)
        };
        order.sort_by_key(kind);
        let mut blocks = Vec::new();
        for alike in order.chunk_by(|a, b| kind(a) == kind(b)) {
            let (optimizer, bias, gram, _) = kind(&alike[0]);
            let most = if on_cpu {
                cpu_block_rows(draws.n, draws.d + usize::from(bias), optimizer, gram)
            } else {
                DEVICE_BLOCK_ROWS
            };
            let heads = (most / draws.rows).max(1);
            // Even blocks: the last one is not left with a few rows.
            let count = alike.len().div_ceil(heads);
            blocks.extend(alike.chunks(alike.len().div_ceil(count)).map(<[usize]>::to_vec));
        }
        blocks
    }

    fn gram(&self, run: usize, draws: &Draws) -> bool {
        let key = &self.runs[run].key;
        gram_form(draws.n, draws.d, key.optimizer, key.bias, f64::from_bits(key.numbers[2]))
    }

    /// Whether a block's heads have a bias.
    #[must_use]
    pub fn bias(&self, block: &[usize]) -> bool {
        block.first().is_some_and(|run| self.runs[*run].key.bias)
    }

    /// The block of some runs that are alike.
    #[must_use]
    pub fn block(&self, numbers: &[usize], draws: &mut Draws, inputs: &Inputs) -> Block {
        let (n, rows) = (inputs.n, draws.rows);
        let mut block = Block {
            optimizer: Optimizer::Gd,
            gram: false,
            classes_rows: rows,
            heads: Vec::with_capacity(numbers.len()),
            initial: Vec::with_capacity(numbers.len() * rows * inputs.width),
            omitted: Vec::new(),
            steps: 0,
            snapshots: Vec::new(),
        };
        for (head, number) in numbers.iter().enumerate() {
            let run = &self.runs[*number];
            let [eta, mu, lambda, init_std] = run.key.numbers.map(f64::from_bits);
            let kept = run.kept.count() - usize::from(run.key.left_out.is_some());
            let scale = 1.0 / (kept.max(1) as f64 * f64::from(run.key.divisor.max(1)));
            block.heads.push(HeadParameters { eta, mu, lambda, scale });
            let initial = draws.initial(run.key.seed, run.key.head, init_std);
            for row in initial.chunks_exact(draws.d) {
                block.initial.extend_from_slice(row);
                block.initial.resize(block.initial.len() + inputs.width - draws.d, 0.0);
            }
            let left_out = run.key.left_out.map(|i| i as usize);
            for row in head * rows..(head + 1) * rows {
                block.omitted.extend(
                    run.kept
                        .removed
                        .iter()
                        .copied()
                        .chain(left_out)
                        .chain(inputs.samples..n)
                        .map(|i| row * n + i),
                );
            }
            block.snapshots.extend_from_slice(&run.snapshots);
            (block.optimizer, block.gram, block.steps) =
                (run.key.optimizer, self.gram(*number, draws), run.steps);
        }
        block.snapshots.sort_unstable();
        block.snapshots.dedup();
        block
    }

    /// Takes the weights [rows, width] of a block's runs after `step` steps, without those that are not real.
    pub fn take(&mut self, numbers: &[usize], inputs: &Inputs, step: u32, weights: &[f32]) {
        let each = weights.len() / numbers.len().max(1);
        for (number, weights) in numbers.iter().zip(weights.chunks_exact(each.max(1))) {
            let run = &mut self.runs[*number];
            if run.snapshots.binary_search(&step).is_ok() {
                for row in weights.chunks_exact(inputs.width) {
                    run.weights.extend_from_slice(&row[..inputs.weights]);
                }
            }
        }
    }
}

/// Most rows of a block on the CPU.
fn cpu_block_rows(n: usize, width: usize, optimizer: Optimizer, gram: bool) -> usize {
    let moments = match optimizer {
        Optimizer::Gd | Optimizer::Sgd => 0,
        Optimizer::Momentum => 1,
        Optimizer::Adam | Optimizer::Adamw => 2,
    };
    // Residuals, then weights, moments and gradients; in Gram form residuals, initial logits, coefficients, moments.
    let numbers = if gram { n * (3 + moments) } else { n + width * (2 + moments) };
    (BLOCK_BYTES / (4 * numbers.max(1)) / 16 * 16).clamp(BLOCK_ROWS.0, BLOCK_ROWS.1)
}
