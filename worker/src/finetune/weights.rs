//! The tensors of a training run, and what the encoder sees of them: mixout, low-rank adapters, number format.

use evenkeel_common::seed::Stream;
use evenkeel_common::spec::Precision;
use tch::{Kind, Tensor};

use super::dropout::Masks;
use crate::models::{Group, Parameter};

/// Which part of the model a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Embeddings and their layer norm.
    Embeddings,
    /// A layer, from 0.
    Layer(u32),
    /// The pooler.
    Pooler,
    /// The classifier.
    Head,
}

impl Place {
    /// Its name in results.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Embeddings => "embeddings".to_owned(),
            Self::Layer(layer) => format!("layer.{layer}"),
            Self::Pooler => "pooler".to_owned(),
            Self::Head => "head".to_owned(),
        }
    }
}

impl From<Group> for Place {
    fn from(group: Group) -> Self {
        match group {
            Group::Embeddings => Self::Embeddings,
            Group::Layer(layer) => Self::Layer(layer),
            Group::Pooler => Self::Pooler,
        }
    }
}

/// What is known of a tensor.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Where it belongs.
    pub place: Place,
    /// Whether the optimiser's weight decay acts on it: not on biases and layer norms (Devlin et al. 2019).
    pub decays: bool,
    /// Factor of its step size.
    pub rate: f64,
    /// Whether it is the weight of a linear layer of the encoder.
    pub linear: bool,
    /// Whether it is trained at all.
    pub trained: bool,
}

/// Weight decay acts on neither biases nor layer norms.
fn decays(name: &str) -> bool {
    !name.ends_with("bias") && !name.contains("LayerNorm") && !name.contains("layer_norm")
}

/// A low-rank adapter, by places of its tensors.
#[derive(Clone, Copy, Debug)]
struct Adapter {
    target: usize,
    a: usize,
    b: usize,
}

/// All tensors of a run: the encoder's in their order, then those of heads, then adapters.
pub struct Weights {
    /// What each is.
    pub parts: Vec<Part>,
    /// Their values, without gradients.
    pub values: Vec<Tensor>,
    encoder: usize,
    adapters: Vec<Adapter>,
    adapter_scale: f64,
}

impl Weights {
    /// Weights of an encoder alone.
    #[must_use]
    pub fn new(parameters: &[Parameter], values: Vec<Tensor>) -> Self {
        let parts = parameters.iter().map(|parameter| {
            let place = Place::from(parameter.group);
            Part {
                name: parameter.name.clone(),
                place,
                decays: decays(&parameter.name),
                rate: 1.0,
                linear: parameter.shape.len() == 2 && place != Place::Embeddings,
                trained: true,
            }
        });
        Self {
            parts: parts.collect(),
            encoder: values.len(),
            values,
            adapters: Vec::new(),
            adapter_scale: 0.0,
        }
    }

    /// Number of the encoder's tensors.
    #[must_use]
    pub fn encoder_len(&self) -> usize {
        self.encoder
    }

    /// Adds a tensor of a head. Gives its place.
    pub fn push_head(&mut self, name: &str, value: Tensor) -> usize {
        self.parts.push(Part {
            name: name.to_owned(),
            place: Place::Head,
            decays: decays(name),
            rate: 1.0,
            linear: false,
            trained: true,
        });
        self.values.push(value);
        self.values.len() - 1
    }

    /// Freezes the encoder and adds adapters to the query and value projections of each layer (Hu et al. 2022, §4.2), or to
    /// the one product of a perceptron's layer: the encoder sees W + (α/r)·B·A with A [r, in] ~ N(0, 1/r²) and B [out, r] zero.
    ///
    /// # Errors
    /// When memory is short.
    pub fn adapt(
        &mut self,
        rank: u32,
        alpha: f64,
        mut draws: impl FnMut(usize) -> Stream,
    ) -> Result<(), tch::TchError> {
        self.adapter_scale = alpha / f64::from(rank.max(1));
        for at in 0..self.encoder {
            let (name, place) = (self.parts[at].name.clone(), self.parts[at].place);
            self.parts[at].trained = false;
            let adapted = name.ends_with("query.weight")
                || name.ends_with("value.weight")
                || (matches!(place, Place::Layer(_)) && name.starts_with("layer.") && self.parts[at].linear);
            if !adapted {
                continue;
            }
            let value = &self.values[at];
            let (out, input) = value.size2()?;
            let mut stream = draws(at);
            let count = i64::from(rank) * input;
            let a: Vec<f32> = (0..count).map(|_| (stream.normal() / f64::from(rank)) as f32).collect();
            let options = (Kind::Float, value.device());
            let a = Tensor::f_from_slice(&a)?.f_view([i64::from(rank), input])?.f_to_device(options.1)?;
            let b = Tensor::f_zeros([out, i64::from(rank)], options)?;
            let first = self.values.len();
            for (suffix, value) in [("lora_a", a), ("lora_b", b)] {
                self.parts.push(Part {
                    name: format!("{name}.{suffix}"),
                    place,
                    decays: true,
                    rate: self.parts[at].rate,
                    linear: false,
                    trained: true,
                });
                self.values.push(value);
            }
            self.adapters.push(Adapter { target: at, a: first, b: first + 1 });
        }
        Ok(())
    }

    /// Tensors to differentiate by: they share the values' memory and begin without a gradient.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn leaves(&self) -> Result<Vec<Tensor>, tch::TchError> {
        let leaf = |(value, part): (&Tensor, &Part)| value.f_detach()?.f_set_requires_grad(part.trained);
        self.values.iter().zip(&self.parts).map(leaf).collect()
    }

    /// The encoder's tensors as it sees them: with mixout where `mixout` says so, with adapters, in `precision`.
    ///
    /// Mixout (Lee, Cho, Kang 2020, eq. 5): (mask·u + (1 − mask)·w − p·u) / (1 − p) = u + (w − u)·D with D zero with
    /// probability p and else 1/(1 − p), for the weights of linear layers.
    ///
    /// # Errors
    /// When memory is short.
    pub fn effective(
        &self,
        leaves: &[Tensor],
        mixout: Option<Mixout<'_>>,
        precision: Precision,
    ) -> Result<Vec<Tensor>, tch::TchError> {
        let mut seen: Vec<Tensor> = leaves.iter().take(self.encoder).map(Tensor::shallow_clone).collect();
        if let Some(Mixout { origin, p, masks }) = mixout {
            for ((seen, part), origin) in seen.iter_mut().zip(&self.parts).zip(origin) {
                if part.linear {
                    let mask = masks.f_mask(&seen.size(), p)?.f_to_device(seen.device())?;
                    *seen = origin.f_add(&seen.f_sub(origin)?.f_mul(&mask)?)?;
                }
            }
        }
        for adapter in &self.adapters {
            if let (Some(a), Some(b), Some(target)) =
                (leaves.get(adapter.a), leaves.get(adapter.b), seen.get_mut(adapter.target))
            {
                *target = target.f_add(&b.f_matmul(a)?.f_mul_scalar(self.adapter_scale)?)?;
            }
        }
        if precision == Precision::Bf16 {
            seen = seen.iter().map(|seen| seen.f_to_kind(Kind::BFloat16)).collect::<Result<_, _>>()?;
        }
        Ok(seen)
    }

    /// Copies of the encoder's tensors with adapters worked in.
    ///
    /// # Errors
    /// When memory is short.
    pub fn merged(&self) -> Result<Vec<Tensor>, tch::TchError> {
        let seen = self.effective(&self.values, None, Precision::Fp32)?;
        seen.iter().map(Tensor::f_detach_copy).collect()
    }
}

/// What mixout needs in a step.
pub struct Mixout<'a> {
    /// The pre-trained values, in the encoder's order.
    pub origin: &'a [Tensor],
    /// Share of weights that fall back.
    pub p: f64,
    /// Which.
    pub masks: &'a mut Masks,
}
