//! Which tensors an encoder has, in which order, and what files call them.

use super::config::{EncoderConfig, Family};

/// Parameters of a layer.
const OF_LAYER: usize = 16;

/// What a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// The tables, their LayerNorm, and the projection from the embeddings' width to that of the layers.
    Embeddings,
    /// A layer, counted from the input. All layers of ALBERT are layer 0.
    Layer(u32),
    /// The layer between the first token's vector and a head.
    Pooler,
}

/// A tensor that an encoder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in Hugging Face's files, without the prefix (`bert.` and the like) that a file with heads gives it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// What it belongs to.
    pub group: Group,
}

/// Names of a layer's parameters within the layer, in order: of BERT's, and of ALBERT's. A `weight` and a `bias` each.
const LAYER: [(&str, &str, Width, Width); OF_LAYER / 2] = [
    ("attention.self.query", "attention.query", Width::Hidden, Width::Hidden),
    ("attention.self.key", "attention.key", Width::Hidden, Width::Hidden),
    ("attention.self.value", "attention.value", Width::Hidden, Width::Hidden),
    ("attention.output.dense", "attention.dense", Width::Hidden, Width::Hidden),
    ("attention.output.LayerNorm", "attention.LayerNorm", Width::Hidden, Width::None),
    ("intermediate.dense", "ffn", Width::Intermediate, Width::Hidden),
    ("output.dense", "ffn_output", Width::Hidden, Width::Intermediate),
    ("output.LayerNorm", "full_layer_layer_norm", Width::Hidden, Width::None),
];

#[derive(Clone, Copy)]
enum Width {
    None,
    Hidden,
    Intermediate,
}

impl EncoderConfig {
    /// The encoder's parameters, in the order in which workers keep and pass them:
    ///
    /// 1. tables of words [vocabulary, E], positions and token types; LayerNorm's weight [E] and bias; with embeddings
    ///    narrower than the layers (ALBERT: always) the projection's weight [H, E] and bias [H];
    /// 2. of each layer weight and bias of query, key, value, attention output, LayerNorm, intermediate, output and
    ///    LayerNorm: 16 (ALBERT: once);
    /// 3. with `with_pooler`, the pooler's weight [H, H] and bias [H].
    ///
    /// A weight [out, in] is followed by its bias [out].
    #[must_use]
    pub fn parameters(&self, with_pooler: bool) -> Vec<Parameter> {
        let mut all = Vec::new();
        let mut push = |name: String, shape: Vec<i64>, group| all.push(Parameter { name, shape, group });
        let (wide, narrow) = (self.hidden, self.embedding_size);
        for (table, rows) in [
            ("word", self.vocabulary),
            ("position", self.max_positions + self.first_position()),
            ("token_type", self.type_vocabulary),
        ] {
            push(format!("embeddings.{table}_embeddings.weight"), vec![rows, narrow], Group::Embeddings);
        }
        for part in ["weight", "bias"] {
            push(format!("embeddings.LayerNorm.{part}"), vec![narrow], Group::Embeddings);
        }
        if self.has_projection() {
            let name = match self.family {
                Family::Albert => "encoder.embedding_hidden_mapping_in",
                Family::Bert | Family::Roberta | Family::Electra => "embeddings_project",
            };
            push(format!("{name}.weight"), vec![wide, narrow], Group::Embeddings);
            push(format!("{name}.bias"), vec![wide], Group::Embeddings);
        }
        let albert = self.family == Family::Albert;
        for layer in 0..self.stored_layers() {
            let place = if albert {
                "encoder.albert_layer_groups.0.albert_layers.0".to_owned()
            } else {
                format!("encoder.layer.{layer}")
            };
            for (bert_name, albert_name, rows, columns) in LAYER {
                let name = if albert { albert_name } else { bert_name };
                let rows = self.width(rows);
                push(
                    format!("{place}.{name}.weight"),
                    rows.into_iter().chain(self.width(columns)).collect(),
                    Group::Layer(layer),
                );
                push(format!("{place}.{name}.bias"), rows.into_iter().collect(), Group::Layer(layer));
            }
        }
        if with_pooler {
            let name = if albert { "pooler" } else { "pooler.dense" };
            push(format!("{name}.weight"), vec![wide, wide], Group::Pooler);
            push(format!("{name}.bias"), vec![wide], Group::Pooler);
        }
        all
    }

    /// How many parameters come before those of layer `layer`; `layers` gives those before the pooler.
    #[must_use]
    pub fn parameters_before(&self, layer: u32) -> usize {
        let embeddings = if self.has_projection() { 7 } else { 5 };
        let before = if self.family == Family::Albert { u32::from(layer >= self.layers) } else { layer };
        embeddings + OF_LAYER * before as usize
    }

    /// Layers that have parameters of their own.
    fn stored_layers(&self) -> u32 {
        if self.family == Family::Albert { 1 } else { self.layers }
    }

    /// Whether a product stands between the embeddings and the first layer.
    #[must_use]
    pub fn has_projection(&self) -> bool {
        self.family == Family::Albert || self.embedding_size != self.hidden
    }

    /// What a file with heads puts before the names of the encoder's tensors.
    pub(super) fn prefix(&self) -> &'static str {
        match self.family {
            Family::Bert => "bert.",
            Family::Roberta => "roberta.",
            Family::Electra => "electra.",
            Family::Albert => "albert.",
        }
    }

    fn width(&self, width: Width) -> Option<i64> {
        match width {
            Width::None => None,
            Width::Hidden => Some(self.hidden),
            Width::Intermediate => Some(self.intermediate),
        }
    }

    /// Names of the masked language model's head, which have no prefix: of the dense layer, of LayerNorm, and those that
    /// the decoder's bias may have. (Tied tensors are stored under one of their names.)
    #[must_use]
    pub fn mlm_names(&self) -> (&'static str, &'static str, [&'static str; 2]) {
        match self.family {
            Family::Bert => (
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                ["cls.predictions.bias", "cls.predictions.decoder.bias"],
            ),
            Family::Roberta => {
                ("lm_head.dense", "lm_head.layer_norm", ["lm_head.bias", "lm_head.decoder.bias"])
            }
            Family::Electra => (
                "generator_predictions.dense",
                "generator_predictions.LayerNorm",
                ["generator_lm_head.bias", "generator_lm_head.bias"],
            ),
            Family::Albert => (
                "predictions.dense",
                "predictions.LayerNorm",
                ["predictions.bias", "predictions.decoder.bias"],
            ),
        }
    }
}
