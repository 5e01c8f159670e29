//! One isotropic Gaussian a class.

use evenkeel_common::seed::Purpose;
use evenkeel_common::trial::SyntheticConfig;

use super::{Dataset, Draws, both_sets, turn};

/// Draws blobs: the centre of each class is uniform in [−`center_box`, `center_box`]^d, samples scatter around it with
/// standard deviation `cluster_std` (the semantics of scikit-learn's `make_blobs`). Classes take turns.
#[must_use]
pub fn generate(config: &SyntheticConfig, cluster_std: f64, center_box: f64, draws: Draws<'_>) -> Dataset {
    let d = config.features as usize;
    let mut structure = draws.key.stream(Purpose::Structure, 0, 0);
    let centers: Vec<f64> =
        (0..d * config.classes as usize).map(|_| center_box * (2.0 * structure.uniform() - 1.0)).collect();
    both_sets(config, draws, |stream, i, x| {
        let class = turn(i, config.classes);
        let center = &centers[class as usize * d..][..d];
        x.extend(center.iter().map(|c| (c + cluster_std * stream.normal()) as f32));
        class
    })
}
