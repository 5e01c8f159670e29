//! An encoder on its device, and a dataset in the encoder's tokens.

use std::collections::BTreeSet;

use evenkeel_common::seed::Key;
use evenkeel_common::spec::Pooling;
use evenkeel_common::text::TextData;
use evenkeel_common::trial::{PretrainedConfig, TextConfig};
use tch::Tensor;

use crate::data::text::{TextDataset, TokenExample, Tokenization, Tokens};
use crate::data::{DataError, ModelFiles, sequences};
use crate::engine::EngineError;
use crate::models::{EncoderConfig, MlmHead, Network, Parameter, Transformer, load, load_mlm_head};

/// A pre-trained encoder.
pub struct Encoder {
    /// What it computes.
    pub network: Network,
    /// How the vectors of a text's tokens become one.
    pub pooling: Pooling,
    /// Its tensors, in the order of [`Network::parameters`].
    pub parameters: Vec<Parameter>,
    /// Their values, on the device, fp32.
    pub values: Vec<Tensor>,
    /// What it was pre-trained with on top, where that was kept.
    pub guesses: Option<Guesses>,
    /// Name and content of `tokenizer.json`; none for what reads no texts.
    tokenizer: Option<(String, Vec<u8>)>,
}

/// A head that guesses what was masked.
pub enum Guesses {
    /// Tokens.
    Tokens(MlmHead),
    /// Features, by a linear layer: weight [d, H] and bias [d].
    Features {
        /// Weight.
        weight: Tensor,
        /// Bias.
        bias: Tensor,
    },
}

impl Encoder {
    /// Reads the files of an encoder in the layout of Hugging Face.
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
            network: Network::Transformer(Transformer::new(config)),
            pooling: model.pooling,
            values,
            guesses: mlm.map(Guesses::Tokens),
            tokenizer: Some((model.path.clone(), files.tokenizer.to_vec())),
        })
    }

    /// An encoder of our own, from its tensors in the order of [`Network::parameters`].
    #[must_use]
    pub fn small(network: Network, pooling: Pooling, values: Vec<Tensor>, guesses: Option<Guesses>) -> Self {
        Self { parameters: network.parameters(false), network, pooling, values, guesses, tokenizer: None }
    }

    /// Splits a dataset of texts and turns it into tokens of this encoder's vocabulary.
    ///
    /// # Errors
    /// When the data do not fit the configuration or the encoder.
    pub fn prepare(&self, data: &TextData, config: &TextConfig, key: &Key) -> Result<Prepared, DataError> {
        let (Some((path, tokenizer)), Network::Transformer(network)) = (&self.tokenizer, &self.network)
        else {
            return Err(DataError::Invalid(format!("{}: this encoder reads no texts", config.path)));
        };
        let mut tokenization = Tokenization::new(path, tokenizer)?;
        let longest = (config.max_length as usize).min(network.config().max_positions as usize);
        let dataset = tokenization.prepare(data, config, longest, key)?;
        Prepared::new(dataset, &tokenization, network.config(), path)
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
    /// Feature vectors [rows, d] on the device, for an encoder that reads those: ids are their rows then, one a sample, and
    /// there is no vocabulary.
    pub vectors: Option<Tensor>,
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
            vectors: None,
        })
    }

    /// Sequences of a grammar of `vocabulary` tokens. All rows of the embedding table are kept: there are few.
    #[must_use]
    pub fn sequences(data: TextDataset, vocabulary: u32) -> Self {
        Self {
            data,
            vocabulary: (0..i64::from(vocabulary)).collect(),
            mask: Some(i64::from(sequences::MASK)),
            padding: i64::from(sequences::PAD),
            special: (0..vocabulary).map(|id| id < sequences::SPECIAL).collect(),
            vectors: None,
        }
    }

    /// Feature vectors, row-major in f32: sets of inputs with their classes.
    ///
    /// # Errors
    /// When memory is short.
    pub fn vectors(
        classes: usize,
        features: usize,
        [train, validation, test]: [(&[f32], &[u32]); 3],
        device: tch::Device,
    ) -> Result<Self, tch::TchError> {
        let mut row = 0;
        let mut set = |labels: &[u32]| {
            let examples = labels.iter().map(|label| {
                let inputs = vec![Tokens { ids: vec![row], types: vec![0] }];
                row += 1;
                TokenExample { inputs, label: *label, group: None }
            });
            examples.collect()
        };
        let data = TextDataset {
            classes,
            train: set(train.1),
            validation: set(validation.1),
            test: set(test.1),
            truncated: 0,
        };
        let all = [train.0, validation.0, test.0].concat();
        let vectors = Tensor::f_from_slice(&all)?.f_view([-1, features as i64])?.f_to_device(device)?;
        Ok(Self {
            data,
            vocabulary: Vec::new(),
            mask: None,
            padding: 0,
            special: Vec::new(),
            vectors: Some(vectors),
        })
    }

    /// The encoder's tensors, with the embedding table's rows of this dataset alone.
    ///
    /// # Errors
    /// When memory is short.
    pub fn values(&self, encoder: &Encoder) -> Result<Vec<Tensor>, tch::TchError> {
        let mut values: Vec<Tensor> = encoder.values.iter().map(Tensor::shallow_clone).collect();
        if let (Some(table), None) = (values.first_mut(), &self.vectors) {
            let rows = Tensor::f_from_slice(&self.vocabulary)?.f_to_device(table.device())?;
            *table = table.f_index_select(0, &rows)?;
        }
        Ok(values)
    }
}
