//! Encoders: which fields they have, and which datasets they read.

use super::validate::{Bound, Check, MAX_SAMPLES, number, real};
use super::{Axis, DatasetSpec, Encoder, Generator, ModelSpec, Pooling, Problem};

/// What an encoder reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vectors,
    Texts,
    Tokens,
}

impl Kind {
    fn of(dataset: &DatasetSpec) -> Self {
        match dataset {
            DatasetSpec::Synthetic(d) if d.generator == Generator::TokenSequences => Self::Tokens,
            DatasetSpec::Synthetic(_) | DatasetSpec::Features(_) => Self::Vectors,
            DatasetSpec::Text(_) => Self::Texts,
        }
    }

    fn read_by(encoder: Encoder) -> Self {
        match encoder {
            Encoder::Identity | Encoder::Mlp => Self::Vectors,
            Encoder::Huggingface => Self::Texts,
            Encoder::Transformer => Self::Tokens,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vectors => "feature vectors",
            Self::Texts => "texts",
            Self::Tokens => "sequences of tokens",
        }
    }

    fn encoders(self) -> &'static str {
        match self {
            Self::Vectors => "`identity` or `mlp`",
            Self::Texts => "`huggingface`",
            Self::Tokens => "`transformer`",
        }
    }
}

/// An encoder and what it can read.
pub(super) fn check_model(model: &ModelSpec, path: &str, datasets: &[DatasetSpec]) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    use Encoder::{Huggingface, Mlp, Transformer};
    let fields: [(&str, bool, &[Encoder]); 8] = [
        ("path", model.path.is_some(), &[Huggingface]),
        ("revision", model.revision.is_some(), &[Huggingface]),
        ("pooling", model.pooling.is_some(), &[Huggingface, Transformer]),
        ("layers", model.layers.is_some(), &[Transformer, Mlp]),
        ("hidden", model.hidden.is_some(), &[Transformer, Mlp]),
        ("attention_heads", model.attention_heads.is_some(), &[Transformer]),
        ("dropout", model.dropout.is_some(), &[Transformer, Mlp]),
        ("pretrain", model.pretrain.is_some(), &[Transformer, Mlp]),
    ];
    for (field, given, owners) in fields {
        if given && !owners.contains(&model.encoder) {
            let owners: Vec<String> =
                owners.iter().map(|owner| format!("`encoder: {}`", owner.name())).collect();
            return Err(Problem::field(at(field), format!("is for {}", owners.join(" and "))));
        }
    }
    if model.encoder == Huggingface && model.path.as_deref().is_none_or(str::is_empty) {
        return Err(Problem::field(
            at("path"),
            "is missing: the folder of the model, or its name on the hub",
        ));
    }
    check_small(model, path)?;
    let reads = Kind::read_by(model.encoder);
    for (i, dataset) in datasets.iter().enumerate() {
        let kind = Kind::of(dataset);
        if kind != reads {
            let message = format!(
                "`{}` reads {}, not the {} of datasets[{i}]; they need {}, in a sweep of their own",
                model.encoder.name(),
                reads.name(),
                kind.name(),
                kind.encoders()
            );
            return Err(Problem::field(at("encoder"), message));
        }
    }
    Ok(())
}

/// The shape of a small encoder, and how it is pre-trained.
fn check_small(model: &ModelSpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    let hidden = model.hidden.unwrap_or(64);
    number(&at("hidden"), hidden, 1, 8192)?;
    number(&at("layers"), model.layers.unwrap_or(2), 1, 100)?;
    if model.encoder == Encoder::Transformer {
        let heads = model.attention_heads.unwrap_or(4);
        number(&at("attention_heads"), heads, 1, hidden)?;
        if !hidden.is_multiple_of(heads) {
            let message = format!("found {heads}, which does not divide hidden: {hidden}");
            return Err(Problem::field(at("attention_heads"), message));
        }
        if model.pooling == Some(Pooling::Pooler) {
            return Err(Problem::field(
                at("pooling"),
                "found `pooler`, which only files from elsewhere have",
            )
            .allowed("`mean`, `cls`"));
        }
    }
    if let Some(dropout) = model.dropout {
        real(&at("dropout"), &Axis::One(dropout), Bound::From(0.0), 0.9)?;
    }
    if let Some(pretrain) = &model.pretrain {
        let at = |field: &str| format!("{path}.pretrain.{field}");
        number(&at("samples"), pretrain.samples, 2, MAX_SAMPLES)?;
        number(&at("epochs"), pretrain.epochs, 0, 100_000)?;
        number(&at("batch_size"), pretrain.batch_size, 1, 1_000_000)?;
        real(&at("learning_rate"), &Axis::One(pretrain.learning_rate), Bound::Above(0.0), 1e3)?;
        real(&at("mask"), &Axis::One(pretrain.mask), Bound::Above(0.0), 0.9)?;
    }
    Ok(())
}
