//! Stratified splits of a feature file.

use evenkeel_common::grid::test_rows;
use evenkeel_common::seed::{Key, Purpose};
use evenkeel_common::table::FeatureTable;
use evenkeel_common::text::Metric;
use evenkeel_common::trial::FeaturesConfig;

use super::{DataError, Dataset};

/// Splits a table into training and test set.
///
/// The rows of each class are put in a random order that depends on the dataset's key and the class. The first
/// [`test_rows`] of them become the test set. With `samples`, the training set is a stratified part of the rest: each
/// class gets its share by largest remainder, but at least one row, and two where it has two. Rows keep the order they
/// have in the file. With `standardize`, both sets are shifted and scaled by mean and standard deviation (of the
/// population) of the training set, computed in f64; a feature that is constant there is only shifted.
///
/// # Errors
/// When the table is not the one the configuration was made for.
pub fn split(table: &FeatureTable, config: &FeaturesConfig, key: &Key) -> Result<Dataset, DataError> {
    let (rows, d) = (table.rows as usize, table.features as usize);
    let classes = table.class_counts.len();
    let fits = d == config.features as usize
        && classes == config.classes as usize
        && table.x.len() == rows * d
        && table.y.len() == rows
        && d > 0
        && table.y.iter().all(|class| (*class as usize) < classes);
    if !fits {
        return Err(DataError::Invalid(format!(
            "{}: found {rows} rows, {d} features and {classes} classes where {} features and {} classes were planned",
            config.path, config.features, config.classes
        )));
    }
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (row, class) in table.y.iter().enumerate() {
        by_class[*class as usize].push(row);
    }
    let counts: Vec<u32> = by_class.iter().map(|rows| rows.len() as u32).collect();
    let held_out = test_rows(&counts, config.test_fraction);
    let mut test = Vec::new();
    for (class, (rows, held_out)) in by_class.iter_mut().zip(&held_out).enumerate() {
        key.stream(Purpose::Split, 0, class as u64).shuffle(rows);
        test.extend(rows.drain(..(*held_out as usize).min(rows.len())));
    }
    let left: Vec<usize> = by_class.iter().map(Vec::len).collect();
    let wanted = config.samples.map_or(left.iter().sum(), |samples| samples as usize);
    let taken = shares(&left, wanted);
    let mut train: Vec<usize> =
        by_class.iter().zip(&taken).flat_map(|(rows, taken)| rows[..*taken].iter().copied()).collect();
    if train.len() != config.train_rows as usize {
        return Err(DataError::Invalid(format!(
            "{}: the split leaves {} training rows where {} were planned",
            config.path,
            train.len(),
            config.train_rows
        )));
    }
    test.sort_unstable();
    train.sort_unstable();
    let scaling = scaling(table, &train, config.standardize);
    let inputs = |rows: &[usize]| -> Vec<f32> {
        rows.iter()
            .flat_map(|row| table.x[row * d..][..d].iter().zip(&scaling))
            .map(|(x, (mean, scale))| ((f64::from(*x) - mean) / scale) as f32)
            .collect()
    };
    let labels = |rows: &[usize]| rows.iter().map(|row| table.y[*row]).collect();
    Ok(Dataset {
        features: d,
        classes,
        x_train: inputs(&train),
        y_train: labels(&train),
        x_test: inputs(&test),
        y_test: labels(&test),
        metric: Metric::Accuracy,
        groups_test: None,
    })
}

/// How many of `wanted` rows come from each class, given how many there are: proportional, by largest remainder, with at
/// least min(2, available) of each class where `wanted` allows it.
pub(super) fn shares(available: &[usize], wanted: usize) -> Vec<usize> {
    let total: usize = available.iter().sum();
    let wanted = wanted.min(total);
    if wanted == total {
        return available.to_vec();
    }
    let floors: Vec<usize> = available.iter().map(|count| 2.min(*count)).collect();
    let least = if floors.iter().sum::<usize>() <= wanted { floors } else { vec![0; available.len()] };
    let mut taken: Vec<usize> =
        available.iter().zip(&least).map(|(count, least)| (count * wanted / total).max(*least)).collect();
    // Largest remainder first, then the lower class; the order is the same everywhere.
    let mut order: Vec<usize> = (0..available.len()).collect();
    order.sort_by_key(|class| (std::cmp::Reverse(available[*class] * wanted % total), *class));
    for class in order.iter().cycle().take(available.len() * (wanted + 1)) {
        match taken.iter().sum::<usize>().cmp(&wanted) {
            std::cmp::Ordering::Equal => break,
            std::cmp::Ordering::Less if taken[*class] < available[*class] => taken[*class] += 1,
            std::cmp::Ordering::Greater => {
                // Minima of small classes took too many: the class furthest above its minimum gives one back.
                let above = (0..taken.len()).max_by_key(|c| (taken[*c] - least[*c], std::cmp::Reverse(*c)));
                let Some(above) = above else { break };
                taken[above] -= 1;
            }
            std::cmp::Ordering::Less => {}
        }
    }
    taken
}

/// (shift, divisor) of each feature.
fn scaling(table: &FeatureTable, train: &[usize], standardize: bool) -> Vec<(f64, f64)> {
    let d = table.features as usize;
    if !standardize || train.is_empty() {
        return vec![(0.0, 1.0); d];
    }
    let n = train.len() as f64;
    let mut mean = vec![0.0; d];
    for row in train {
        mean.iter_mut().zip(&table.x[row * d..][..d]).for_each(|(m, x)| *m += f64::from(*x));
    }
    mean.iter_mut().for_each(|m| *m /= n);
    let mut square = vec![0.0; d];
    for row in train {
        for ((s, x), m) in square.iter_mut().zip(&table.x[row * d..][..d]).zip(&mean) {
            *s += (f64::from(*x) - m) * (f64::from(*x) - m);
        }
    }
    mean.into_iter()
        .zip(square)
        .map(|(m, s)| {
            let deviation = libm::sqrt(s / n);
            // Below the rounding of f32 around the mean, a feature is constant.
            (m, if deviation > 1e-7 * m.abs().max(f64::MIN_POSITIVE) { deviation } else { 1.0 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(counts: &[u32], features: u32) -> FeatureTable {
        let y: Vec<u32> = counts.iter().enumerate().flat_map(|(c, n)| vec![c as u32; *n as usize]).collect();
        let rows = y.len() as u32;
        let x = (0..rows * features)
            .map(|i| if i % features == 0 { 7.0 } else { (i * i % 101) as f32 })
            .collect();
        let names = (0..features).map(|i| format!("f{i}")).collect();
        let classes = (0..counts.len()).map(|c| c.to_string()).collect();
        FeatureTable { x, y, rows, features, classes, class_counts: counts.to_vec(), names }
    }

    fn config(table: &FeatureTable, samples: Option<u32>, train_rows: u32) -> FeaturesConfig {
        FeaturesConfig {
            path: "f.csv".to_owned(),
            content: String::new(),
            label: None,
            labels: None,
            drop: Vec::new(),
            standardize: true,
            test_fraction: 0.2,
            samples,
            instance: 0,
            train_rows,
            features: table.features,
            classes: table.class_counts.len() as u32,
        }
    }

    #[test]
    fn a_split_is_stratified_and_standardised_by_the_training_set() {
        let table = table(&[50, 30, 20], 4);
        let data = split(&table, &config(&table, None, 80), &Key::of_dataset(1, "a")).unwrap();
        assert_eq!((data.train_rows(), data.test_rows()), (80, 20));
        for (class, train, test) in [(0, 40, 10), (1, 24, 6), (2, 16, 4)] {
            assert_eq!(data.y_train.iter().filter(|y| **y == class).count(), train);
            assert_eq!(data.y_test.iter().filter(|y| **y == class).count(), test);
        }
        for feature in 0..4 {
            let column: Vec<f64> =
                data.x_train.iter().skip(feature).step_by(4).map(|v| f64::from(*v)).collect();
            let mean = column.iter().sum::<f64>() / 80.0;
            let variance = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 80.0;
            assert!(mean.abs() < 1e-6);
            assert!((variance - if feature == 0 { 0.0 } else { 1.0 }).abs() < 1e-5);
        }
        let other = split(&table, &config(&table, None, 80), &Key::of_dataset(1, "b")).unwrap();
        assert_ne!(data.x_train, other.x_train);
    }

    #[test]
    fn a_smaller_training_set_keeps_the_shares_of_the_classes() {
        assert_eq!(shares(&[40, 24, 16], 40), [20, 12, 8]);
        assert_eq!(shares(&[40, 24, 16], 41).iter().sum::<usize>(), 41);
        assert_eq!(shares(&[1000, 3, 3], 10), [6, 2, 2]);
        assert_eq!(shares(&[5, 5], 20), [5, 5]);
        assert_eq!(shares(&[5, 5, 5], 4).iter().sum::<usize>(), 4);
    }

    #[test]
    fn a_table_of_another_shape_is_refused() {
        let table = table(&[10, 10], 3);
        let mut other = config(&table, None, 16);
        other.features = 4;
        assert!(matches!(split(&table, &other, &Key::of_dataset(1, "a")), Err(DataError::Invalid(_))));
    }
}
