//! What is known of the files a sweep works on, once they were read: enough to number its trials and guess their cost.

use serde::{Deserialize, Serialize};

use crate::id::ContentHash;
use crate::spec::{DatasetSpec, Encoder, Spec};

/// A dataset or a model that comes in files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputInfo {
    /// A file of feature vectors.
    Features(FeatureInfo),
    /// Files of text.
    Text(TextInfo),
    /// A pre-trained encoder.
    Model(ModelInfo),
}

impl InputInfo {
    /// BLAKE3 of all its files, hex.
    #[must_use]
    pub fn content(&self) -> &str {
        match self {
            Self::Features(info) => &info.content,
            Self::Text(info) => &info.content,
            Self::Model(info) => &info.content,
        }
    }
}

/// A feature file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureInfo {
    /// Rows with a class.
    pub rows: u32,
    /// Features d.
    pub features: u32,
    /// Rows of each class, in class order.
    pub class_counts: Vec<u32>,
    /// BLAKE3 of the file's bytes (and then of the labels file's), hex.
    pub content: String,
}

/// A dataset of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextInfo {
    /// BLAKE3 of its files, hex.
    pub content: String,
    /// What the classes are called, in class order.
    pub labels: Vec<String>,
    /// Training rows of each class.
    pub class_counts: Vec<u32>,
    /// Rows of the test file; none when the test set is cut from the training rows.
    pub test_rows: Option<u32>,
    /// Mean characters of an input, over all rows.
    pub mean_characters: u32,
    /// Rows that were passed over because they cannot be read.
    pub skipped: u32,
}

/// A pre-trained encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// BLAKE3 of its files, hex.
    pub content: String,
    /// Size of its output vectors.
    pub hidden: u32,
    /// Layers.
    pub layers: u32,
    /// Weights of its layers, without the embeddings: what a token is multiplied with.
    pub layer_weights: u64,
    /// Most tokens it takes.
    pub max_length: u32,
    /// Whether its file has a trained pooler.
    pub pooler: bool,
}

/// A file of an input: what it is for, and the BLAKE3 of its bytes, hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What it is for: `features`, `labels`, `train`, `test`, `config.json`…
    pub role: String,
    /// BLAKE3 of its bytes, hex: its name wherever it is kept.
    pub hash: String,
}

/// An input with its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// What was found in it.
    pub info: InputInfo,
    /// Its files.
    pub files: Vec<FileRecord>,
}

impl InputRecord {
    /// The file of a role.
    #[must_use]
    pub fn file(&self, role: &str) -> Option<&str> {
        self.files.iter().find(|file| file.role == role).map(|file| file.hash.as_str())
    }
}

/// Which entry of a spec an input belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of `datasets`.
    Dataset(usize),
    /// Of `models`.
    Model(usize),
}

/// The entries of a spec that come in files, in the order inputs are listed everywhere: datasets, then models.
pub fn places(spec: &Spec) -> impl Iterator<Item = Place> + '_ {
    let datasets = spec.datasets.iter().enumerate().filter_map(|(at, dataset)| match dataset {
        DatasetSpec::Synthetic(_) => None,
        DatasetSpec::Features(_) | DatasetSpec::Text(_) => Some(Place::Dataset(at)),
    });
    let models = spec.models.iter().enumerate().filter_map(|(at, model)| match model.encoder {
        Encoder::Identity | Encoder::Transformer | Encoder::Mlp => None,
        Encoder::Huggingface => Some(Place::Model(at)),
    });
    datasets.chain(models)
}

/// Hash of the files of an input, as results and ids hold it: of the one file's bytes, or of the hashes of several.
#[must_use]
pub fn content_hash<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> ContentHash {
    let mut hashes: Vec<ContentHash> = files.into_iter().map(ContentHash::of).collect();
    match (hashes.pop(), hashes.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            let all: Vec<u8> = hashes.iter().chain([&last]).flat_map(|hash| hash.0).collect();
            ContentHash::of(&all)
        }
        (None, _) => ContentHash::of(&[]),
    }
}
