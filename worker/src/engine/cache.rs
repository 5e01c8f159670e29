//! Datasets and what was derived from them, kept for the next pack: packs may split a dataset.

use std::cell::OnceCell;
use std::rc::Rc;

use evenkeel_common::trial::{DatasetConfig, ModelConfig, Trial};

use super::EngineError;
use super::block::Inputs;
use super::margin::{HardMargin, hard_margin};
use crate::data::{self, Dataset};

/// Datasets kept.
const KEPT: usize = 8;
/// Bytes of datasets kept beside the last one.
const KEPT_BYTES: usize = 256 << 20;

/// A dataset with what trials derive from it, each made when first asked for.
pub struct Prepared {
    /// The dataset.
    pub data: Dataset,
    inputs: [OnceCell<Inputs>; 2],
    margins: [OnceCell<HardMargin>; 2],
}

impl Prepared {
    /// Wraps a dataset.
    #[must_use]
    pub fn new(data: Dataset) -> Self {
        Self { data, inputs: Default::default(), margins: Default::default() }
    }

    /// Its training set for training, with or without bias.
    ///
    /// # Errors
    /// When there is too little memory.
    pub fn inputs(&self, bias: bool) -> Result<&Inputs, EngineError> {
        let cell = &self.inputs[usize::from(bias)];
        if let Some(inputs) = cell.get() {
            return Ok(inputs);
        }
        let inputs = Inputs::new(&self.data, bias)?;
        Ok(cell.get_or_init(|| inputs))
    }

    /// The hard margin of its training set, with or without bias.
    pub fn margin(&self, bias: bool) -> &HardMargin {
        self.margins[usize::from(bias)].get_or_init(|| {
            let d = self.data.features;
            let row = |x: &[f32]| {
                let mut row: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                row.extend(bias.then_some(1.0));
                row
            };
            let x: Vec<f64> = self.data.x_train.chunks_exact(d).flat_map(row).collect();
            let found = hard_margin(&x, &self.data.y_train, d + usize::from(bias), self.data.classes);
            if let HardMargin::Unknown { reason } = &found {
                tracing::warn!(%reason, "hard margin is not known");
            }
            found
        })
    }

    /// Bytes it takes, about: the dataset, and both forms of the inputs with their Gram matrices.
    fn bytes(&self) -> usize {
        let n = self.data.train_rows();
        let made = self.inputs.iter().filter(|cell| cell.get().is_some()).count();
        let gram = if n < 2 * self.data.features { 4 * n * n } else { 0 };
        self.data.bytes() + made * (2 * self.data.bytes() + gram)
    }
}

/// What decides a dataset: its configuration, the encoder that makes its features, the sweep's seed.
type Key = (DatasetConfig, ModelConfig, u64);

/// The datasets used last, the latest at the end.
#[derive(Default)]
pub struct Cache {
    entries: Vec<(Key, Rc<Prepared>)>,
}

impl Cache {
    /// A dataset, drawn or read if it is not there.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn get(&mut self, trial: &Trial, inputs: &dyn data::Inputs) -> Result<Rc<Prepared>, EngineError> {
        let (config, model, seed) = (&trial.dataset, &trial.model, trial.settings.sweep_seed);
        let found = self.entries.iter().position(|((a, b, c), _)| a == config && b == model && *c == seed);
        let entry = match found {
            Some(at) => self.entries.remove(at),
            None => {
                let data = data::load(config, model, seed, inputs)?;
                ((config.clone(), model.clone(), seed), Rc::new(Prepared::new(data)))
            }
        };
        let prepared = Rc::clone(&entry.1);
        self.entries.push(entry);
        let bytes =
            |entries: &[(Key, Rc<Prepared>)]| entries.iter().map(|(_, data)| data.bytes()).sum::<usize>();
        while self.entries.len() > 1 && (self.entries.len() > KEPT || bytes(&self.entries) > KEPT_BYTES) {
            self.entries.remove(0);
        }
        Ok(prepared)
    }
}
