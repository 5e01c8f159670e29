//! The user's file: parsing, validation, canonical form and JSON Schema.

mod axis;
mod encoder;
mod error;
mod model;
mod node;
mod predictions;
mod regularizer;
mod strategy;
mod text;
mod validate;
mod validate_model;
mod validate_strategy;
mod validate_synthetic;

pub use axis::{Axis, MAX_AXIS, Scalar};
pub use encoder::*;
pub use error::{Problem, SpecError};
pub use model::*;
pub use predictions::Predictions;
pub use regularizer::*;
pub use strategy::*;
pub use text::*;

use crate::id::{ContentHash, SweepId};

/// Largest spec that is read, in bytes.
pub const MAX_SPEC_BYTES: usize = 4 << 20;

impl Spec {
    /// Parses and validates YAML or JSON. `file` is what errors call the source.
    ///
    /// # Errors
    /// With the line, the field, what was found and what is allowed.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        let fail = |problem: Problem| SpecError { file: file.to_owned(), problem: Box::new(problem) };
        if text.len() > MAX_SPEC_BYTES {
            let message = format!("the spec has {} bytes; at most {MAX_SPEC_BYTES} are read", text.len());
            return Err(fail(Problem::field("", message)));
        }
        // `y` and `no` are text, as in YAML 1.2: `label: y` names a column.
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        let node: node::Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            fail(Problem::at("", line, format!("not valid YAML or JSON: {}", error.without_snippet())))
        })?;
        let mut spec: Self = node::read(&node).map_err(fail)?;
        spec.strategies.iter_mut().for_each(StrategySpec::fill_defaults);
        spec.validate().map_err(|problem| fail(problem.with_line(|path| node.line_of(path))))?;
        Ok(spec)
    }

    /// The canonical form as JSON: every default written out, fields in a fixed order.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The canonical form as YAML.
    #[must_use]
    pub fn to_canonical_yaml(&self) -> String {
        serde_saphyr::to_string(self).unwrap_or_default()
    }

    /// Hash of everything that decides what is computed; not of description, baseline, retries and priority.
    #[must_use]
    pub fn identity(&self) -> ContentHash {
        let mut identity = self.clone();
        identity.description = None;
        identity.baseline = None;
        identity.retries = RetriesSpec::default();
        identity.priority = 1;
        ContentHash::of(identity.to_canonical_json().as_bytes())
    }

    /// The id of the sweep that runs this spec on data of these content hashes
    /// (one per feature dataset, in the spec's order): the same study has the same id everywhere.
    #[must_use]
    pub fn sweep_id(&self, data: &[ContentHash]) -> SweepId {
        let mut bytes = self.identity().0.to_vec();
        for hash in data {
            bytes.extend_from_slice(&hash.0);
        }
        let hash = ContentHash::of(&bytes).to_hex();
        // The name was validated to be made of the letters an id may have.
        SweepId::parse(&format!("{}-{}", self.name, hash.get(..10).unwrap_or_default()))
            .unwrap_or_else(|_| unreachable!("a valid name and hex digits make a valid id"))
    }

    /// Name of the baseline strategy.
    #[must_use]
    pub fn baseline_name(&self) -> &str {
        self.baseline.as_deref().or(self.strategies.first().map(|s| s.name.as_str())).unwrap_or_default()
    }
}

/// The JSON Schema of a spec.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Spec).to_value()
}

#[cfg(test)]
mod tests;
