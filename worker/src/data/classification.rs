//! The semantics of scikit-learn's `make_classification`.

use std::collections::HashSet;

use evenkeel_common::seed::{Purpose, Stream};
use evenkeel_common::text::Metric;
use evenkeel_common::trial::{GeneratorConfig, SyntheticConfig};

use super::{DataError, Dataset, Draws};

/// Most numbers the covariances of all clusters may take: 1e8 f64 are 800 MB.
const MAX_COVARIANCE_NUMBERS: u64 = 100_000_000;

/// What training and test samples share.
struct Structure {
    informative: usize,
    redundant: usize,
    /// Centre of each cluster, [K, informative].
    centroids: Vec<f64>,
    /// Mixing matrix of each cluster, [K, informative, informative].
    mixing: Vec<f64>,
    /// Redundant features as combinations of the informative ones, [informative, redundant].
    combination: Vec<f64>,
    /// Which of the informative and redundant features each repeated one copies.
    copies: Vec<usize>,
}

/// Draws a dataset as `sklearn.datasets.make_classification` does (scikit-learn 1.x, after Guyon's design of the MADELON
/// data, 2003), here with training and test samples from one structure:
///
/// - K = C·`clusters_per_class` clusters sit at different corners of the cube {−`class_sep`, `class_sep`}^informative, cluster
///   k belongs to class k mod C; without `hypercube` each centroid and each axis is scaled by a uniform factor;
/// - the informative part of a sample is `z·A_k + centroid_k`, z standard normal, A_k uniform in [−1, 1];
/// - redundant features are combinations of the informative ones with coefficients uniform in [−1, 1];
/// - repeated features copy random informative or redundant ones, exactly;
/// - what is left is standard normal noise;
/// - a share `flip_y` of the samples gets a class drawn uniformly, which may be the one it had.
///
/// Differences: columns stay in the order informative, redundant, repeated, noise, and rows take turns over the clusters
/// (scikit-learn shuffles both; a linear head on full batches does not see either). No shift and no scale. A flip that
/// would leave a class of the training set with fewer than two samples is not made.
///
/// # Errors
/// When the features do not suffice or there are more clusters than corners.
pub fn generate(config: &SyntheticConfig, draws: Draws<'_>) -> Result<Dataset, DataError> {
    let GeneratorConfig::Classification { flip_y, .. } = config.generator else {
        return Err(DataError::Invalid("not a `classification` dataset".to_owned()));
    };
    let structure = structure(config, &mut draws.key.stream(Purpose::Structure, 0, 0))?;
    let set = |purpose: Purpose, rows: u32, least: usize| {
        let mut stream = draws.key.stream(purpose, 0, 0);
        let x = structure.inputs(config, rows as usize, &mut stream);
        let y = structure.classes(config, rows as usize, flip_y, least, &mut stream);
        (x, y)
    };
    let (x_train, y_train) = set(draws.purposes[0], config.samples, 2);
    let (x_test, y_test) = set(draws.purposes[1], config.test_samples, 0);
    Ok(Dataset {
        features: config.features as usize,
        classes: config.classes as usize,
        x_train,
        y_train,
        x_test,
        y_test,
        metric: Metric::Accuracy,
        groups_test: None,
    })
}

fn structure(config: &SyntheticConfig, stream: &mut Stream) -> Result<Structure, DataError> {
    let GeneratorConfig::Classification {
        informative,
        redundant,
        repeated,
        clusters_per_class,
        class_sep,
        hypercube,
        ..
    } = config.generator
    else {
        return Err(DataError::Invalid("not a `classification` dataset".to_owned()));
    };
    let used = u64::from(informative) + u64::from(redundant) + u64::from(repeated);
    if informative == 0 || used > u64::from(config.features) {
        return Err(DataError::Invalid(format!(
            "informative + redundant + repeated is {used}, with {} features",
            config.features
        )));
    }
    let clusters = u64::from(config.classes) * u64::from(clusters_per_class);
    if clusters == 0 || (informative < 64 && clusters > 1 << informative) {
        return Err(DataError::Invalid(format!(
            "{clusters} clusters do not fit the corners of a cube with {informative} dimensions"
        )));
    }
    let numbers = clusters.saturating_mul(u64::from(informative).pow(2));
    if numbers > MAX_COVARIANCE_NUMBERS {
        return Err(DataError::Invalid(format!(
            "the covariances of {clusters} clusters with {informative} informative features take {numbers} numbers"
        )));
    }
    let (clusters, inf) = (clusters as usize, informative as usize);
    let mut centroids = corners(clusters, inf, stream);
    for value in &mut centroids {
        *value = class_sep * (2.0 * *value - 1.0);
    }
    if !hypercube {
        for centroid in centroids.chunks_exact_mut(inf) {
            let factor = stream.uniform();
            centroid.iter_mut().for_each(|value| *value *= factor);
        }
        let axes: Vec<f64> = (0..inf).map(|_| stream.uniform()).collect();
        for centroid in centroids.chunks_exact_mut(inf) {
            centroid.iter_mut().zip(&axes).for_each(|(value, factor)| *value *= factor);
        }
    }
    let mut coefficients =
        |count: usize| (0..count).map(|_| 2.0 * stream.uniform() - 1.0).collect::<Vec<f64>>();
    let mixing = coefficients(clusters * inf * inf);
    let combination = coefficients(inf * redundant as usize);
    let sources = u64::from(informative) + u64::from(redundant);
    // Rounding as scikit-learn does: the first and the last source have half the chance of the others.
    let copies = (0..repeated).map(|_| ((sources - 1) as f64 * stream.uniform() + 0.5) as usize).collect();
    Ok(Structure { informative: inf, redundant: redundant as usize, centroids, mixing, combination, copies })
}

/// `count` different corners of the unit cube, as zeros and ones.
fn corners(count: usize, dims: usize, stream: &mut Stream) -> Vec<f64> {
    // Few corners: take a random order of all, since drawing again until one is new may take long.
    if dims <= 16 {
        let mut all: Vec<u32> = (0..1u32 << dims).collect();
        stream.shuffle(&mut all);
        return all[..count]
            .iter()
            .flat_map(|corner| (0..dims).map(move |i| f64::from(corner >> i & 1)))
            .collect();
    }
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(count * dims);
    while out.len() < count * dims {
        let words: Vec<u64> = (0..dims.div_ceil(64)).map(|_| stream.next_u64()).collect();
        let corner: Vec<bool> = (0..dims).map(|i| words[i / 64] >> (i % 64) & 1 == 1).collect();
        if seen.insert(corner.clone()) {
            out.extend(corner.into_iter().map(f64::from));
        }
    }
    out
}

impl Structure {
    fn clusters(&self) -> usize {
        self.centroids.len() / self.informative
    }

    fn inputs(&self, config: &SyntheticConfig, rows: usize, stream: &mut Stream) -> Vec<f32> {
        let (inf, d) = (self.informative, config.features as usize);
        let mut x = Vec::with_capacity(rows * d);
        let mut z = vec![0.0; inf];
        let mut row = vec![0.0; d];
        for i in 0..rows {
            let cluster = i % self.clusters();
            z.iter_mut().for_each(|value| *value = stream.normal());
            row[..inf].copy_from_slice(&self.centroids[cluster * inf..][..inf]);
            let mixing = &self.mixing[cluster * inf * inf..][..inf * inf];
            for (weight, coefficients) in z.iter().zip(mixing.chunks_exact(inf)) {
                for (value, a) in row[..inf].iter_mut().zip(coefficients) {
                    *value += weight * a;
                }
            }
            let (own, rest) = row.split_at_mut(inf);
            let (redundant, rest) = rest.split_at_mut(self.redundant);
            for (j, value) in redundant.iter_mut().enumerate() {
                *value =
                    own.iter().enumerate().map(|(k, v)| v * self.combination[k * self.redundant + j]).sum();
            }
            let (repeated, noise) = rest.split_at_mut(self.copies.len());
            for (value, source) in repeated.iter_mut().zip(&self.copies) {
                *value = if *source < inf { own[*source] } else { redundant[source - inf] };
            }
            noise.iter_mut().for_each(|value| *value = stream.normal());
            x.extend(row.iter().map(|value| *value as f32));
        }
        x
    }

    fn classes(
        &self,
        config: &SyntheticConfig,
        rows: usize,
        flip_y: f64,
        least: usize,
        stream: &mut Stream,
    ) -> Vec<u32> {
        let clusters = self.clusters();
        let mut y: Vec<u32> = (0..rows).map(|i| (i % clusters) as u32 % config.classes).collect();
        let mut counts = vec![0usize; config.classes as usize];
        y.iter().for_each(|class| counts[*class as usize] += 1);
        for class in &mut y {
            if stream.uniform() < flip_y {
                let other = stream.below(u64::from(config.classes)) as u32;
                if other != *class && counts[*class as usize] > least {
                    counts[*class as usize] -= 1;
                    counts[other as usize] += 1;
                    *class = other;
                }
            }
        }
        y
    }
}
