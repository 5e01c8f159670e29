//! What types cannot say: ranges, fields that belong together, names that must exist.

use super::error::nearest;
use super::validate_model::check_model;
use super::validate_strategy::check_strategy;
use super::validate_synthetic::check_synthetic;
use crate::text::Task;

use super::{
    Axis, DatasetSpec, Encoder, FeaturesSpec, LeaveOneOut, Problem, Scalar, Setting, Spec, TextSpec,
};

pub(super) type Check = Result<(), Problem>;

pub(super) const MAX_SAMPLES: u32 = 10_000_000;
pub(super) const MAX_FEATURES: u32 = 1_000_000;
pub(super) const MAX_CLASSES: u32 = 10_000;

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
                DatasetSpec::Text(d) => check_text(d, &format!("datasets[{i}].text"))?,
            }
        }
        self.check_models()?;
        self.check_strategies()?;
        if let Some(LeaveOneOut::Count(0)) = self.stability.leave_one_out {
            return Err(Problem::field("stability.leave_one_out", "found 0")
                .allowed("1 or more, or `all`; leave it out for none"));
        }
        if let Some(examples) = self.stability.representations {
            number("stability.representations", examples, 4, 1024)?;
            if self.strategies.iter().all(|strategy| strategy.setting == Setting::Head) {
                return Err(Problem::field(
                    "stability.representations",
                    "has no effect: no strategy trains the encoder (`setting: full`), so the features of all seeds are the same",
                ));
            }
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

    fn check_models(&self) -> Check {
        for (i, model) in self.models.iter().enumerate() {
            check_model(model, &format!("models[{i}]"), &self.datasets)?;
        }
        Ok(())
    }

    fn check_strategies(&self) -> Check {
        let trainable = self.models.iter().all(|model| model.encoder != Encoder::Identity);
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
            if strategy.setting == Setting::Full && !trainable {
                return Err(Problem::field(
                    format!("{path}.setting"),
                    "`full` fine-tuning needs encoders with weights, and `identity` has none; name a model under `models`",
                ));
            }
        }
        self.check_validation_sets()?;
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

fn check_text(d: &TextSpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    let own = [
        ("text", d.text.is_some()),
        ("text_pair", d.text_pair.is_some()),
        ("label", d.label.is_some()),
        ("test", d.test.is_some()),
    ];
    if let Some(task) = &d.task {
        if Task::from_name(task).is_none() {
            let names: Vec<&str> = Task::ALL.iter().map(|task| task.name()).collect();
            return Err(Problem::field(at("task"), format!("found \"{task}\""))
                .allowed(names.join(", "))
                .hint(nearest(task, &names)));
        }
        if let Some((field, _)) = own.iter().find(|(_, given)| *given) {
            return Err(Problem::field(
                at(field),
                "is for a file of your own; the files of a `task` are known",
            ));
        }
    } else {
        let known = [".csv", ".tsv", ".jsonl", ".parquet"];
        for (field, file) in [("path", Some(&d.path)), ("test", d.test.as_ref())] {
            if let Some(file) = file.filter(|file| !known.iter().any(|ending| file.ends_with(ending))) {
                return Err(Problem::field(at(field), format!("found \"{file}\"")).allowed(
                    "a file ending in .csv, .tsv, .jsonl or .parquet; or name the `task` whose folder it is",
                ));
            }
        }
        for field in ["text", "label"] {
            if own.iter().any(|(name, given)| *name == field && !given) {
                return Err(Problem::field(at(field), "is missing: name the column"));
            }
        }
    }
    real(&at("test_fraction"), &d.test_fraction, Bound::Above(0.0), 0.9)?;
    if (d.task.is_some() || d.test.is_some()) && d.test_fraction.len() > 1 {
        return Err(Problem::field(at("test_fraction"), "has no effect: the test set is a file of its own"));
    }
    real(&at("validation_fraction"), &d.validation_fraction, Bound::From(0.0), 0.9)?;
    optional(&d.samples, |a| whole(&at("samples"), a, 4, MAX_SAMPLES))?;
    optional(&d.test_samples, |count| number(&at("test_samples"), *count, 1, MAX_SAMPLES))?;
    whole(&at("max_length"), &d.max_length, 8, 100_000)?;
    number(&at("instances"), d.instances, 1, 1_000_000)
}

impl Spec {
    /// Strategies that look at the validation set need one.
    fn check_validation_sets(&self) -> Check {
        let looks =
            |s: &super::StrategySpec| s.select == Some(super::Select::Best) || s.early_stopping.is_some();
        let Some(strategy) = self.strategies.iter().position(looks) else { return Ok(()) };
        for (i, dataset) in self.datasets.iter().enumerate() {
            if let DatasetSpec::Features(_) = dataset {
                return Err(Problem::field(
                    format!("strategies[{strategy}]"),
                    format!(
                        "looks at the validation set (`select: best` or `early_stopping`), but the feature file of datasets[{i}] has none"
                    ),
                ));
            }
            if let DatasetSpec::Text(text) = dataset
                && text.validation_fraction.values().contains(&0.0)
            {
                return Err(Problem::field(
                    format!("datasets[{i}].text.validation_fraction"),
                    format!(
                        "found 0, but strategies[{strategy}] looks at the validation set (`select: best` or `early_stopping`)"
                    ),
                ));
            }
        }
        Ok(())
    }
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

#[derive(Clone, Copy)]
pub(super) enum Bound {
    From(f64),
    Above(f64),
}

pub(super) fn optional<T>(axis: &Option<T>, check: impl FnOnce(&T) -> Check) -> Check {
    axis.as_ref().map_or(Ok(()), check)
}

pub(super) fn filled<T: Scalar>(path: &str, axis: &Axis<T>) -> Check {
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

pub(super) fn number(path: &str, value: u32, least: u32, most: u32) -> Check {
    whole(path, &Axis::One(value), least, most)
}

pub(super) fn whole(path: &str, axis: &Axis<u32>, least: u32, most: u32) -> Check {
    filled(path, axis)?;
    match axis.values().iter().find(|v| !(least..=most).contains(*v)) {
        Some(bad) => Err(Problem::field(path, format!("found {bad}"))
            .allowed(format!("a whole number from {least} to {most}"))),
        None => Ok(()),
    }
}

pub(super) fn real(path: &str, axis: &Axis<f64>, least: Bound, most: f64) -> Check {
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
