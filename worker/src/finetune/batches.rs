//! Which examples a step sees, and as which tensors.

use evenkeel_common::seed::Stream;
use tch::{Device, Tensor};

use super::prepared::Prepared;
use crate::data::text::{TokenExample, Tokens};
use crate::models::{Batch, Input};

/// Batches whose examples are sorted by length together.
const BUCKET_BATCHES: usize = 16;

/// The batches of an epoch over `kept`, places in a set whose examples have `lengths`.
///
/// The order is a uniform permutation. With `buckets`, the examples of 16 consecutive batches are sorted by length and cut
/// into batches of similar length, and the batches of the epoch are shuffled: each example is still seen once an epoch, and
/// little is padded.
#[must_use]
pub fn epoch(
    lengths: &[usize],
    kept: &[usize],
    batch: usize,
    buckets: bool,
    stream: &mut Stream,
) -> Vec<Vec<usize>> {
    let mut order = kept.to_vec();
    stream.shuffle(&mut order);
    if buckets {
        for bucket in order.chunks_mut(batch.max(1) * BUCKET_BATCHES) {
            bucket.sort_by_key(|place| lengths.get(*place).copied().unwrap_or(0));
        }
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch.max(1)).map(<[usize]>::to_vec).collect();
    if buckets {
        stream.shuffle(&mut batches);
    }
    batches
}

/// Inputs as tensors: tokens padded to the longest, or feature vectors.
///
/// # Errors
/// When memory is short.
pub fn tensors(inputs: &[&Tokens], data: &Prepared, device: Device) -> Result<Input, tch::TchError> {
    if let Some(vectors) = &data.vectors {
        let rows: Vec<i64> = inputs.iter().flat_map(|input| &input.ids).map(|id| i64::from(*id)).collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
        return Ok(Input::Vectors(vectors.f_index_select(0, &rows)?));
    }
    let rows = inputs.len();
    let length = inputs.iter().map(|input| input.ids.len()).max().unwrap_or(0);
    let mut ids = vec![data.padding; rows * length];
    let mut types = vec![0i64; rows * length];
    let mut mask = vec![false; rows * length];
    for (row, input) in inputs.iter().enumerate() {
        for (column, (id, kind)) in input.ids.iter().zip(&input.types).enumerate() {
            let at = row * length + column;
            (ids[at], types[at], mask[at]) = (i64::from(*id), i64::from(*kind), true);
        }
    }
    let shape = [rows as i64, length as i64];
    let place = |tensor: Tensor| tensor.f_view(shape)?.f_to_device(device);
    let batch = Batch::new(
        &place(Tensor::f_from_slice(&ids)?)?,
        &place(Tensor::f_from_slice(&types)?)?,
        &place(Tensor::f_from_slice(&mask)?)?,
    )?;
    Ok(Input::Tokens(batch))
}

/// The inputs of some examples, one after the other, and how many each example has.
#[must_use]
pub fn inputs<'a>(examples: &[&'a TokenExample]) -> (Vec<&'a Tokens>, usize) {
    let each = examples.first().map_or(1, |example| example.inputs.len());
    (examples.iter().flat_map(|example| &example.inputs).collect(), each)
}

/// Feature vectors of examples from those of their inputs, [inputs, d] → [examples, d]. An example with two choices has the
/// difference of the second's and the first's: a linear score a choice and a softmax over choices (Wang et al. 2019,
/// SuperGLUE) depend on it alone.
///
/// # Errors
/// When shapes do not fit.
pub fn examples(features: &Tensor, each: usize) -> Result<Tensor, tch::TchError> {
    if each < 2 {
        return Ok(features.shallow_clone());
    }
    let d = features.size().last().copied().unwrap_or(0);
    let pairs = features.f_view([-1, each as i64, d])?;
    pairs.f_select(1, 1)?.f_sub(&pairs.f_select(1, 0)?)
}

#[cfg(test)]
mod tests {
    use evenkeel_common::seed::{Key, Purpose};

    use super::*;

    fn stream(seed: u64) -> Stream {
        Key::of_dataset(1, "d").stream(Purpose::DataOrder, seed, 0)
    }

    #[test]
    fn an_epoch_sees_each_example_once_in_batches_of_similar_length() {
        let lengths: Vec<usize> = (0..1000).map(|i| 5 + (i * 37) % 60).collect();
        let kept: Vec<usize> = (0..1000).filter(|i| i % 7 != 0).collect();
        let padding = |batches: &[Vec<usize>]| -> usize {
            let longest = |batch: &Vec<usize>| batch.iter().map(|i| lengths[*i]).max().unwrap_or(0);
            batches.iter().map(|batch| longest(batch) * batch.len()).sum()
        };
        let plain = epoch(&lengths, &kept, 16, false, &mut stream(0));
        let sorted = epoch(&lengths, &kept, 16, true, &mut stream(0));
        for batches in [&plain, &sorted] {
            let mut seen: Vec<usize> = batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, kept);
            assert!(batches.iter().all(|batch| batch.len() <= 16));
        }
        let tokens: usize = kept.iter().map(|i| lengths[*i]).sum();
        assert!(padding(&sorted) < tokens * 11 / 10, "{} of {tokens}", padding(&sorted));
        assert!(padding(&plain) > tokens * 14 / 10, "{} of {tokens}", padding(&plain));
        assert_ne!(sorted, epoch(&lengths, &kept, 16, true, &mut stream(1)));
    }
}
