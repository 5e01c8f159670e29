//! An encoder on its device, and a dataset in the encoder's tokens.

use std::collections::BTreeSet;

use evenkeel_common::seed::Key;
use evenkeel_common::spec::Pooling;
use evenkeel_common::text::TextData;
use evenkeel_common::trial::{PretrainedConfig, TextConfig};
use tch::Tensor;

use crate::data::text::{TextDataset, TokenExample, Tokenization};
use crate::data::{DataError, ModelFiles};
use crate::engine::EngineError;
use crate::models::{EncoderConfig, MlmHead, Parameter, load, load_mlm_head};

/// A pre-trained encoder.
pub struct Encoder {
    /// Its shape.
    pub config: EncoderConfig,
    /// How the vectors of a text's tokens become one.
    pub pooling: Pooling,
    /// Its tensors, in the order of [`EncoderConfig::parameters`].
    pub parameters: Vec<Parameter>,
    /// Their values, on the device, fp32.
    pub values: Vec<Tensor>,
    /// Its head for masked tokens, where the file has one.
    pub mlm: Option<MlmHead>,
    path: String,
    tokenizer: Vec<u8>,
}

impl Encoder {
    /// Reads the files of an encoder.
    ///
    /// # Errors
    /// When they hold none, or memory is short.
    pub fn new(
        model: &PretrainedConfig,
        files: &ModelFiles,
        device: tch::Device,
    ) -> Result<Self, EngineError> {
        let invalid = |error: &dyn std::fmt::Display| EngineError::Data(error.to_string());
        let name = |file: &str| format!("{}/{file}", model.path);
        let config = EncoderConfig::parse(&name("config.json"), &files.config).map_err(|e| invalid(&e))?;
        let pooler = model.pooling == Pooling::Pooler;
        let weights = name("model.safetensors");
        let values = load(&config, &weights, &files.weights, pooler).map_err(|e| invalid(&e))?;
        let mlm = load_mlm_head(&config, &weights, &files.weights).map_err(|e| invalid(&e))?;
        let values = values
            .iter()
            .map(|value| value.f_to_device(device))
            .collect::<Result<Vec<_>, tch::TchError>>()?;
        Ok(Self {
            parameters: config.parameters(pooler),
            config,
            pooling: model.pooling,
            values,
            mlm,
            path: model.path.clone(),
            tokenizer: files.tokenizer.to_vec(),
        })
    }

    /// Splits a dataset and turns it into tokens of this encoder's vocabulary.
    ///
    /// # Errors
    /// When the data do not fit the configuration or the encoder.
    pub fn prepare(&self, data: &TextData, config: &TextConfig, key: &Key) -> Result<Prepared, DataError> {
        let mut tokenization = Tokenization::new(&self.path, &self.tokenizer)?;
        let longest = (config.max_length as usize).min(self.config.max_positions as usize);
        let dataset = tokenization.prepare(data, config, longest, key)?;
        Prepared::new(dataset, &tokenization, &self.config, &self.path)
    }
}

/// A dataset in tokens, numbered anew: only tokens that occur keep a row of the embedding table.
///
/// A table of 30,522 rows of which a dataset uses 5,000 would otherwise be copied, differentiated, clipped and updated in
/// every step, with gradients of zero. Rows that no text uses do not change what is computed.
pub struct Prepared {
    /// The sets; ids are places in `vocabulary`.
    pub data: TextDataset,
    /// The encoder's number of each token, rising.
    pub vocabulary: Vec<i64>,
    /// The token that stands for one to be guessed.
    pub mask: Option<i64>,
    /// Padding.
    pub padding: i64,
    /// Whether a token is no part of a text.
    pub special: Vec<bool>,
}

impl Prepared {
    fn new(
        mut data: TextDataset,
        tokens: &Tokenization,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, DataError> {
        let padding = u32::try_from(config.pad_token_id).unwrap_or(0);
        let mut used: BTreeSet<u32> = tokens.mask.into_iter().chain([padding]).collect();
        let sets = [&data.train, &data.validation, &data.test];
        for input in sets.into_iter().flatten().flat_map(|example| &example.inputs) {
            used.extend(&input.ids);
            if input.ids.is_empty() {
                return Err(DataError::Invalid(format!("{path}/tokenizer.json: it gives a text no tokens")));
            }
        }
        if let Some(beyond) = used.iter().find(|id| i64::from(**id) >= config.vocabulary) {
            return Err(DataError::Invalid(format!(
                "{path}: tokenizer.json gives token {beyond}, but the model knows {} tokens; they do not belong together",
                config.vocabulary
            )));
        }
        let vocabulary: Vec<u32> = used.into_iter().collect();
        let place = |id: u32| vocabulary.partition_point(|known| *known < id) as u32;
        for set in [&mut data.train, &mut data.validation, &mut data.test] {
            for input in set.iter_mut().flat_map(|example: &mut TokenExample| &mut example.inputs) {
                input.ids.iter_mut().for_each(|id| *id = place(*id));
            }
        }
        Ok(Self {
            data,
            mask: tokens.mask.map(|id| i64::from(place(id))),
            padding: i64::from(place(padding)),
            special: vocabulary.iter().map(|id| tokens.special.binary_search(id).is_ok()).collect(),
            vocabulary: vocabulary.into_iter().map(i64::from).collect(),
        })
    }

    /// The encoder's tensors, of which the first is the embedding table, with the embedding table's rows of this dataset alone.
    ///
    /// # Errors
    /// When memory is short.
    pub fn values(&self, encoder: &Encoder) -> Result<Vec<Tensor>, tch::TchError> {
        let mut values: Vec<Tensor> = encoder.values.iter().map(Tensor::shallow_clone).collect();
        if let Some(table) = values.first_mut() {
            let rows = Tensor::f_from_slice(&self.vocabulary)?.f_to_device(table.device())?;
            *table = table.f_index_select(0, &rows)?;
        }
        Ok(values)
    }
}
