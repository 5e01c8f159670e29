//! Axes: a value, a list, or a generated sequence; each is one more dimension of the grid.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A scalar that can be an axis element.
pub trait Scalar:
    Clone + fmt::Debug + PartialEq + Serialize + for<'de> Deserialize<'de> + JsonSchema
{
    /// What an error calls it.
    const EXPECTED: &'static str;
    /// From a point of a generated sequence, if this type can hold it.
    fn from_f64(value: f64) -> Option<Self>;
}

impl Scalar for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_f64(value: f64) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for u32 {
    const EXPECTED: &'static str = "a whole number";
    fn from_f64(value: f64) -> Option<Self> {
        let rounded = libm::round(value);
        (0.0..=f64::from(u32::MAX)).contains(&rounded).then_some(rounded as u32)
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "text";
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

/// One dimension of the grid: `v`, `[v, …]`, `{range: [a, b, step]}` (b excluded),
/// `{linspace: [a, b, n]}` or `{logspace: [a, b, n]}` (both ends included, a and b the values themselves).
#[derive(Clone, Debug, PartialEq)]
pub enum Axis<T> {
    /// A single value: not a dimension.
    One(T),
    /// The values in the order written.
    List(Vec<T>),
}

/// Longest generated or written axis; a longer one is a mistake (use `seeds` or `instances` for many repeats).
pub const MAX_AXIS: u64 = 1_000_000;

impl<T: Scalar> Axis<T> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::List(values) => values.len() as u64,
        }
    }

    /// Whether it has no value at all (which makes the grid empty).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in order.
    #[must_use]
    pub fn values(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::List(values) => values,
        }
    }
}

impl<T> From<T> for Axis<T> {
    fn from(value: T) -> Self {
        Self::One(value)
    }
}

impl<T: Scalar> Serialize for Axis<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::List(values) => values.serialize(serializer),
        }
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Axis<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AxisVisitor<T>(std::marker::PhantomData<T>);

        impl<T: Scalar> AxisVisitor<T> {
            fn one<'de, E: de::Error>(self, value: impl de::IntoDeserializer<'de, E>) -> Result<Axis<T>, E> {
                T::deserialize(value.into_deserializer()).map(Axis::One)
            }
        }

        impl<'de, T: Scalar> Visitor<'de> for AxisVisitor<T> {
            type Value = Axis<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "{}, a list, or one of {{range: [a, b, step]}}, {{linspace: [a, b, n]}}, {{logspace: [a, b, n]}}",
                    T::EXPECTED
                )
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Axis<T>, E> {
                self.one(v)
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Axis<T>, E> {
                self.one(v)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Axis<T>, E> {
                self.one(v)
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Axis<T>, E> {
                self.one(v)
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Axis<T>, E> {
                self.one(v)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Axis<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Axis::List(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Axis<T>, A::Error> {
                let key = map.next_key::<String>()?.unwrap_or_default();
                let points = match key.as_str() {
                    "range" => {
                        let [a, b, step] = map.next_value::<[f64; 3]>()?;
                        range(a, b, step)
                    }
                    "linspace" => spaced(map.next_value::<(f64, f64, u64)>()?, |a, b, t| a + (b - a) * t),
                    "logspace" => {
                        let (a, b, n) = map.next_value::<(f64, f64, u64)>()?;
                        if !(a > 0.0 && b > 0.0) {
                            return Err(de::Error::custom(format!(
                                "logspace needs ends above zero (the values themselves, not exponents), found {a} and {b}"
                            )));
                        }
                        spaced((a, b, n), |a, b, t| libm::exp(libm::log(a) + (libm::log(b) - libm::log(a)) * t))
                    }
                    other => {
                        return Err(de::Error::custom(format!(
                            "unknown sequence `{other}`; allowed: `range`, `linspace`, `logspace`"
                        )));
                    }
                }
                .map_err(de::Error::custom)?;
                if let Some(extra) = map.next_key::<String>()? {
                    return Err(de::Error::custom(format!(
                        "`{extra}` after `{key}`: a sequence has exactly one kind"
                    )));
                }
                let mut values = Vec::with_capacity(points.len());
                for point in points {
                    let value = T::from_f64(point).ok_or_else(|| {
                        de::Error::custom(format!(
                            "{point} of the {key} cannot be used here: expected {}",
                            T::EXPECTED
                        ))
                    })?;
                    if values.last() != Some(&value) {
                        values.push(value);
                    }
                }
                Ok(Axis::List(values))
            }
        }
        deserializer.deserialize_any(AxisVisitor(std::marker::PhantomData))
    }
}

fn range(a: f64, b: f64, step: f64) -> Result<Vec<f64>, String> {
    let count = libm::ceil((b - a) / step - 1e-9);
    if !(a.is_finite() && b.is_finite() && step.is_finite() && step != 0.0) || count < 0.0 {
        return Err(format!(
            "range [{a}, {b}, {step}] never reaches its end; write [first, end, step] with the end excluded"
        ));
    }
    if count > MAX_AXIS as f64 {
        return Err(format!("range [{a}, {b}, {step}] has {count} values; at most {MAX_AXIS} are allowed"));
    }
    Ok((0..count as u64).map(|i| tidy(a + i as f64 * step)).collect())
}

fn spaced((a, b, n): (f64, f64, u64), at: impl Fn(f64, f64, f64) -> f64) -> Result<Vec<f64>, String> {
    if n > MAX_AXIS {
        return Err(format!("{n} values asked for; at most {MAX_AXIS} are allowed"));
    }
    Ok((0..n)
        .map(|i| match i {
            0 => a,
            i if i + 1 == n => b,
            i => tidy(at(a, b, i as f64 / (n - 1) as f64)),
        })
        .collect())
}

/// Rounds to 12 significant digits, so that 0.1 + 0.2 reads 0.3 in configs and ids.
fn tidy(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

impl<T: Scalar> JsonSchema for Axis<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Axis_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        let triple =
            json_schema!({"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3});
        let mut forms = vec![serde_json::json!(item), serde_json::json!({"type": "array", "items": item})];
        for name in ["range", "linspace", "logspace"] {
            forms.push(serde_json::json!({
                "type": "object", "properties": {name: triple}, "required": [name], "additionalProperties": false
            }));
        }
        json_schema!({"anyOf": forms})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(json: serde_json::Value) -> Result<Vec<f64>, String> {
        serde_json::from_value::<Axis<f64>>(json)
            .map(|axis| axis.values().to_vec())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn sequences_have_the_values_their_names_promise() {
        assert_eq!(axis(serde_json::json!({"range": [0.1, 0.4, 0.1]})), Ok(vec![0.1, 0.2, 0.3]));
        assert_eq!(axis(serde_json::json!({"linspace": [0.0, 1.0, 5]})), Ok(vec![0.0, 0.25, 0.5, 0.75, 1.0]));
        assert_eq!(
            axis(serde_json::json!({"logspace": [0.01, 100.0, 5]})),
            Ok(vec![0.01, 0.1, 1.0, 10.0, 100.0])
        );
        assert_eq!(axis(serde_json::json!({"linspace": [2.0, 3.0, 1]})), Ok(vec![2.0]));
        assert_eq!(axis(serde_json::json!(3)), Ok(vec![3.0]));
    }

    #[test]
    fn a_sequence_that_makes_no_sense_is_refused() {
        for (bad, word) in [
            (serde_json::json!({"range": [0, 1, 0]}), "never reaches"),
            (serde_json::json!({"range": [0, 1, -1]}), "never reaches"),
            (serde_json::json!({"range": [0, 1e9, 1e-3]}), "at most"),
            (serde_json::json!({"logspace": [0, 1, 3]}), "above zero"),
            (serde_json::json!({"steps": [0, 1, 3]}), "unknown sequence"),
        ] {
            let message = axis(bad.clone()).expect_err("accepted");
            assert!(message.contains(word), "{bad}: {message}");
        }
    }

    #[test]
    fn whole_numbers_are_rounded_and_not_repeated() {
        let axis: Axis<u32> =
            serde_json::from_value(serde_json::json!({"logspace": [1, 4, 7]})).expect("axis");
        assert_eq!(axis.values(), [1, 2, 3, 4]);
    }
}
