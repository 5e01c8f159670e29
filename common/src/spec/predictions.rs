//! What is kept of a trial's predictions.

use schemars::JsonSchema;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is kept of a trial's predictions on the test set: `false`, `true` or `probabilities`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(with = "PredictionsForm")]
pub enum Predictions {
    /// Nothing.
    #[default]
    None,
    /// The predicted classes.
    Classes,
    /// The predicted classes, and the logarithms of all class probabilities.
    Probabilities,
}

impl Predictions {
    /// Whether classes are kept.
    #[must_use]
    pub fn classes(self) -> bool {
        self != Self::None
    }

    /// Whether probabilities are kept.
    #[must_use]
    pub fn probabilities(self) -> bool {
        self == Self::Probabilities
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only describes the JSON Schema")]
enum PredictionsForm {
    Classes(bool),
    Probabilities(ProbabilitiesForm),
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only describes the JSON Schema")]
enum ProbabilitiesForm {
    Probabilities,
}

const PROBABILITIES: &str = "probabilities";

impl Serialize for Predictions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Probabilities => serializer.serialize_str(PROBABILITIES),
            other => serializer.serialize_bool(other.classes()),
        }
    }
}

impl<'de> Deserialize<'de> for Predictions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Predictions;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`true`, `false` or `probabilities`")
            }
            fn visit_bool<E: Error>(self, kept: bool) -> Result<Predictions, E> {
                Ok(if kept { Predictions::Classes } else { Predictions::None })
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Predictions, E> {
                match text {
                    PROBABILITIES => Ok(Predictions::Probabilities),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}
