//! What types cannot say: ranges, fields that belong together, names that must exist.

use super::error::nearest;
use crate::trial::separable_offset;

use super::{
    Axis, DatasetSpec, FeaturesSpec, Generator, LeaveOneOut, Optimizer, Problem, Scalar, Setting, Spec,
    StrategySpec, SyntheticSpec,
};

type Check = Result<(), Problem>;

const MAX_SAMPLES: u32 = 10_000_000;
const MAX_FEATURES: u32 = 1_000_000;
const MAX_CLASSES: u32 = 10_000;

impl Spec {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    /// The first problem, with its path.
    pub(super) fn validate(&self) -> Check {
        self.check_name()?;
        for (name, empty) in [
            ("datasets", self.datasets.is_empty()),
            ("models", self.models.is_empty()),
            ("strategies", self.strategies.is_empty()),
            ("seeds", self.seeds.is_empty()),
        ] {
            if empty {
                return Err(
                    Problem::field(name, "is empty, so the grid has no trial").allowed("at least one")
                );
            }
        }
        if let super::Seeds::List(seeds) = &self.seeds {
            let mut sorted = seeds.clone();
            sorted.sort_unstable();
            if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Problem::field("seeds", format!("seed {} appears twice", pair[0])));
            }
        }
        for (i, dataset) in self.datasets.iter().enumerate() {
            match dataset {
                DatasetSpec::Synthetic(d) => check_synthetic(d, &format!("datasets[{i}].synthetic"))?,
                DatasetSpec::Features(d) => check_features(d, &format!("datasets[{i}].features"))?,
            }
        }
        self.check_strategies()?;
        if let Some(LeaveOneOut::Count(0)) = self.stability.leave_one_out {
            return Err(Problem::field("stability.leave_one_out", "found 0")
                .allowed("1 or more, or `all`; leave it out for none"));
        }
        number("retries.max_attempts", self.retries.max_attempts, 1, 100)?;
        number("priority", self.priority, 1, 1000)?;
        Ok(())
    }

    fn check_name(&self) -> Check {
        let valid = (1..=60).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !self.name.starts_with('-');
        if valid {
            return Ok(());
        }
        Err(Problem::field("name", format!("found \"{}\"", self.name))
            .allowed("1 to 60 lower-case letters, digits and dashes, not beginning with a dash"))
    }

    fn check_strategies(&self) -> Check {
        for (i, strategy) in self.strategies.iter().enumerate() {
            let path = format!("strategies[{i}]");
            if strategy.name.trim().is_empty() || strategy.name.len() > 100 {
                return Err(Problem::field(format!("{path}.name"), "is empty or longer than 100 bytes"));
            }
            if self.strategies.iter().take(i).any(|other| other.name == strategy.name) {
                let message =
                    format!("\"{}\" is the name of an earlier strategy; names must differ", strategy.name);
                return Err(Problem::field(format!("{path}.name"), message));
            }
            check_strategy(strategy, &path)?;
        }
        if let Some(baseline) = &self.baseline {
            let names: Vec<&str> = self.strategies.iter().map(|s| s.name.as_str()).collect();
            if !names.contains(&baseline.as_str()) {
                return Err(Problem::field("baseline", format!("no strategy is named \"{baseline}\""))
                    .allowed(names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
                    .hint(nearest(baseline, &names)));
            }
        }
        Ok(())
    }
}

fn check_synthetic(d: &SyntheticSpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    whole(&at("classes"), &d.classes, 2, MAX_CLASSES)?;
    let most_classes = d.classes.values().iter().copied().max().unwrap_or(2);
    // Two of each class: one may be left out and the class still exists.
    whole(&at("samples"), &d.samples, 2 * most_classes, MAX_SAMPLES)?;
    whole(&at("features"), &d.features, 1, MAX_FEATURES)?;
    whole(&at("test_samples"), &d.test_samples, most_classes, MAX_SAMPLES)?;
    number(&at("instances"), d.instances, 1, 1_000_000)?;

    let separable = &[
        ("margin", d.margin.is_some()),
        ("noise", d.noise.is_some()),
        ("max_norm", d.max_norm.is_some()),
    ][..];
    let classification = &[
        ("informative", d.informative.is_some()),
        ("redundant", d.redundant.is_some()),
        ("repeated", d.repeated.is_some()),
        ("clusters_per_class", d.clusters_per_class.is_some()),
        ("class_sep", d.class_sep.is_some()),
        ("flip_y", d.flip_y.is_some()),
        ("hypercube", d.hypercube.is_some()),
    ][..];
    let blobs = &[("cluster_std", d.cluster_std.is_some()), ("center_box", d.center_box.is_some())][..];
    for (owner, fields) in [
        (Generator::Separable, separable),
        (Generator::Classification, classification),
        (Generator::Blobs, blobs),
    ] {
        if let Some((field, _)) = fields.iter().find(|(_, given)| *given && owner != d.generator) {
            let message =
                format!("belongs to the generator `{}`, not to `{}`", owner.name(), d.generator.name());
            return Err(Problem::field(at(field), message));
        }
    }
    optional(&d.margin, |a| real(&at("margin"), a, Bound::Above(0.0), 1e6))?;
    optional(&d.noise, |a| real(&at("noise"), a, Bound::From(0.0), 1e6))?;
    optional(&d.max_norm, |a| real(&at("max_norm"), a, Bound::Above(0.0), 1e9))?;
    optional(&d.class_sep, |a| real(&at("class_sep"), a, Bound::From(0.0), 1e6))?;
    optional(&d.flip_y, |a| real(&at("flip_y"), a, Bound::From(0.0), 1.0))?;
    optional(&d.hypercube, |a| filled(&at("hypercube"), a))?;
    optional(&d.cluster_std, |a| real(&at("cluster_std"), a, Bound::Above(0.0), 1e6))?;
    optional(&d.center_box, |a| real(&at("center_box"), a, Bound::Above(0.0), 1e6))?;
    for (field, axis, least) in [
        ("informative", &d.informative, 1),
        ("redundant", &d.redundant, 0),
        ("repeated", &d.repeated, 0),
        ("clusters_per_class", &d.clusters_per_class, 1),
    ] {
        optional(axis, |a| whole(&at(field), a, least, MAX_FEATURES))?;
    }
    match d.generator {
        Generator::Separable => check_separable(d, path),
        Generator::Classification => check_classification(d, path),
        Generator::Blobs => Ok(()),
    }
}

fn check_separable(d: &SyntheticSpec, path: &str) -> Check {
    let least_features = d.features.values().iter().copied().min().unwrap_or(1);
    if let Some(classes) = d.classes.values().iter().find(|c| **c > 2 && **c - 1 > least_features) {
        let message = format!(
            "{classes} classes on a simplex need at least {} features, found {least_features}",
            classes - 1
        );
        return Err(Problem::field(format!("{path}.classes"), message));
    }
    let margins = d.margin.as_ref().map_or(&[1.0][..], Axis::values);
    let most_classes = d.classes.values().iter().copied().max().unwrap_or(2);
    let greatest = separable_offset(margins.iter().copied().fold(0.0, f64::max), most_classes);
    if let Some(norm) =
        d.max_norm.as_ref().and_then(|axis| axis.values().iter().find(|norm| **norm <= greatest))
    {
        let message =
            format!("found {norm}; a point at the greatest margin has a norm of at least {greatest:.4}");
        return Err(Problem::field(format!("{path}.max_norm"), message));
    }
    Ok(())
}

fn check_classification(d: &SyntheticSpec, path: &str) -> Check {
    let most = |axis: &Option<Axis<u32>>, default: u32| {
        axis.as_ref().map_or(default, |a| a.values().iter().copied().max().unwrap_or(default))
    };
    let least_informative =
        d.informative.as_ref().map_or(2, |a| a.values().iter().copied().min().unwrap_or(2));
    let used = u64::from(most(&d.informative, 2))
        + u64::from(most(&d.redundant, 2))
        + u64::from(most(&d.repeated, 0));
    let features = d.features.values().iter().copied().min().unwrap_or(0);
    if used > u64::from(features) {
        let message =
            format!("informative + redundant + repeated is {used}, more than the {features} features");
        return Err(Problem::field(format!("{path}.features"), message));
    }
    let classes = u64::from(d.classes.values().iter().copied().max().unwrap_or(2));
    let clusters = classes * u64::from(most(&d.clusters_per_class, 2));
    if least_informative < 64 && clusters > 1 << least_informative {
        let message = format!(
            "{clusters} clusters (classes × clusters_per_class) need as many corners, but {least_informative} informative features make only {}",
            1u64 << least_informative
        );
        return Err(Problem::field(format!("{path}.informative"), message));
    }
    Ok(())
}

fn check_features(d: &FeaturesSpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    let plain = d.path.strip_suffix(".gz").unwrap_or(&d.path);
    let npy = plain.ends_with(".npy");
    if !(npy || plain.ends_with(".csv") || plain.ends_with(".parquet")) {
        return Err(Problem::field(at("path"), format!("found \"{}\"", d.path))
            .allowed("a file ending in .csv, .csv.gz, .parquet, .npy or .npy.gz"));
    }
    match (npy, &d.label, &d.labels) {
        (true, _, None) => {
            return Err(Problem::field(
                at("labels"),
                "is missing: an .npy file of features needs one of classes beside it",
            ));
        }
        (true, Some(_), _) => {
            return Err(Problem::field(
                at("label"),
                "names a column, which .npy files do not have; use `labels: FILE.npy`",
            ));
        }
        (false, None, _) => {
            return Err(Problem::field(at("label"), "is missing: name the column that holds the class"));
        }
        (false, _, Some(_)) => {
            return Err(Problem::field(at("labels"), "is for .npy files; here `label` names a column"));
        }
        _ => {}
    }
    real(&at("test_fraction"), &d.test_fraction, Bound::Above(0.0), 0.9)?;
    optional(&d.samples, |a| whole(&at("samples"), a, 4, MAX_SAMPLES))?;
    number(&at("instances"), d.instances, 1, 1_000_000)
}

fn check_strategy(s: &StrategySpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    if s.setting == Setting::Full {
        return Err(Problem::field(
            at("setting"),
            "`full` fine-tuning needs a trainable encoder, which this version does not have yet",
        )
        .allowed("`head`"));
    }
    if s.mmr.is_some() {
        return Err(Problem::field(
            at("mmr"),
            "cannot work with `setting: head`: the regulariser depends on the features alone, and with a frozen encoder \
             its gradient is zero, so it would change nothing",
        ));
    }
    whole(&at("steps"), &s.steps, 0, 100_000_000)?;
    real(&at("learning_rate"), &s.learning_rate, Bound::Above(0.0), 1e6)?;
    filled(&at("optimizer"), &s.optimizer)?;
    filled(&at("bias"), &s.bias)?;
    real(&at("weight_decay"), &s.weight_decay, Bound::From(0.0), 1e6)?;
    real(&at("init_std"), &s.init_std, Bound::From(0.0), 1e3)?;
    real(&at("data_perturbation"), &s.data_perturbation, Bound::From(0.0), 0.9)?;
    if let Some(momentum) = &s.momentum {
        real(&at("momentum"), momentum, Bound::From(0.0), 0.999_999)?;
        if !s.optimizer.values().contains(&Optimizer::Momentum) {
            return Err(Problem::field(at("momentum"), "has no effect without `optimizer: momentum`"));
        }
    }
    if let Some(mhloss) = &s.mhloss {
        whole(&at("mhloss.heads"), &mhloss.heads, 1, 100_000)?;
    }
    let least_steps = s.steps.values().iter().copied().min().unwrap_or(0);
    if let Some(late) = s.checkpoints.iter().find(|t| **t == 0 || **t > least_steps) {
        return Err(Problem::field(at("checkpoints"), format!("found {late}"))
            .allowed(format!("steps from 1 to the fewest steps of this strategy, {least_steps}")));
    }
    if s.checkpoints.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Problem::field(at("checkpoints"), "must rise from one to the next"));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Bound {
    From(f64),
    Above(f64),
}

fn optional<T>(axis: &Option<T>, check: impl FnOnce(&T) -> Check) -> Check {
    axis.as_ref().map_or(Ok(()), check)
}

fn filled<T: Scalar>(path: &str, axis: &Axis<T>) -> Check {
    if axis.is_empty() {
        return Err(
            Problem::field(path, "is an empty list, so the grid has no trial").allowed("at least one value")
        );
    }
    if axis.len() > MAX_AXIS_VALUES {
        return Err(Problem::field(
            path,
            format!("has {} values; at most {MAX_AXIS_VALUES} are allowed", axis.len()),
        ));
    }
    for (i, value) in axis.values().iter().enumerate().take(1000) {
        if axis.values().iter().take(i).any(|other| other == value) {
            return Err(Problem::field(
                path,
                format!("{value:?} appears twice, which would run the same trials twice"),
            ));
        }
    }
    Ok(())
}

const MAX_AXIS_VALUES: u64 = super::MAX_AXIS;

fn number(path: &str, value: u32, least: u32, most: u32) -> Check {
    whole(path, &Axis::One(value), least, most)
}

fn whole(path: &str, axis: &Axis<u32>, least: u32, most: u32) -> Check {
    filled(path, axis)?;
    match axis.values().iter().find(|v| !(least..=most).contains(*v)) {
        Some(bad) => Err(Problem::field(path, format!("found {bad}"))
            .allowed(format!("a whole number from {least} to {most}"))),
        None => Ok(()),
    }
}

fn real(path: &str, axis: &Axis<f64>, least: Bound, most: f64) -> Check {
    filled(path, axis)?;
    let inside = |v: f64| {
        v <= most
            && match least {
                Bound::From(from) => v >= from,
                Bound::Above(above) => v > above,
            }
    };
    match axis.values().iter().find(|v| !inside(**v)) {
        Some(bad) => {
            let allowed = match least {
                Bound::From(from) => format!("a number from {from} to {most}"),
                Bound::Above(above) => format!("a number above {above}, at most {most}"),
            };
            Err(Problem::field(path, format!("found {bad}")).allowed(allowed))
        }
        None => Ok(()),
    }
}
