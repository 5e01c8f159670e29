//! Synthetic datasets: ranges, and which field belongs to which generator.

use super::validate::{
    Bound, Check, MAX_CLASSES, MAX_FEATURES, MAX_SAMPLES, filled, number, optional, real, whole,
};
use super::{Axis, Generator, Problem, SyntheticSpec};
use crate::trial::separable_offset;

pub(super) fn check_synthetic(d: &SyntheticSpec, path: &str) -> Check {
    let at = |field: &str| format!("{path}.{field}");
    whole(&at("classes"), &d.classes, 2, MAX_CLASSES)?;
    let most_classes = d.classes.values().iter().copied().max().unwrap_or(2);
    // Two of each class: one may be left out and the class still exists.
    whole(&at("samples"), &d.samples, 2 * most_classes, MAX_SAMPLES)?;
    match (&d.features, d.generator.features()) {
        (Some(axis), None) => whole(&at("features"), axis, 1, MAX_FEATURES)?,
        (Some(_), Some(0)) => {
            return Err(Problem::field(at("features"), "sequences of tokens have none; leave it out"));
        }
        (Some(axis), Some(fixed)) => whole(&at("features"), axis, fixed, fixed)?,
        (None, None) => return Err(Problem::field(at("features"), "is missing: the number of features")),
        (None, Some(_)) => {}
    }
    whole(&at("test_samples"), &d.test_samples, most_classes, MAX_SAMPLES)?;
    number(&at("instances"), d.instances, 1, 1_000_000)?;

    check_owners(d, path)?;
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
        ("units", &d.units, 1),
        ("vocabulary", &d.vocabulary, 8),
        ("length", &d.length, 2),
        ("topics", &d.topics, 2),
    ] {
        optional(axis, |a| whole(&at(field), a, least, MAX_FEATURES))?;
    }
    optional(&d.factor, |a| real(&at("factor"), a, Bound::From(0.0), 0.999))?;
    optional(&d.topic_strength, |a| real(&at("topic_strength"), a, Bound::From(0.0), 100.0))?;
    match d.generator {
        Generator::Separable => check_separable(d, path),
        Generator::Classification => check_classification(d, path),
        Generator::Moons | Generator::Circles | Generator::Xor => {
            whole(&at("classes"), &d.classes, 2, 2)?;
            check_xor(d, path)
        }
        Generator::TokenSequences => check_sequences(d, path),
        Generator::Blobs | Generator::Teacher => Ok(()),
    }
}

/// Every field of a distribution is for a generator that has it.
fn check_owners(d: &SyntheticSpec, path: &str) -> Check {
    use Generator::{Blobs, Circles, Classification, Moons, Separable, Teacher, TokenSequences, Xor};
    let fields: [(&str, bool, &[Generator]); 18] = [
        ("margin", d.margin.is_some(), &[Separable]),
        ("noise", d.noise.is_some(), &[Separable, Moons, Circles, Xor]),
        ("max_norm", d.max_norm.is_some(), &[Separable]),
        ("informative", d.informative.is_some(), &[Classification, Xor]),
        ("redundant", d.redundant.is_some(), &[Classification]),
        ("repeated", d.repeated.is_some(), &[Classification]),
        ("clusters_per_class", d.clusters_per_class.is_some(), &[Classification]),
        ("class_sep", d.class_sep.is_some(), &[Classification]),
        ("flip_y", d.flip_y.is_some(), &[Classification, Teacher, TokenSequences]),
        ("hypercube", d.hypercube.is_some(), &[Classification]),
        ("cluster_std", d.cluster_std.is_some(), &[Blobs]),
        ("center_box", d.center_box.is_some(), &[Blobs]),
        ("factor", d.factor.is_some(), &[Circles]),
        ("units", d.units.is_some(), &[Teacher]),
        ("vocabulary", d.vocabulary.is_some(), &[TokenSequences]),
        ("length", d.length.is_some(), &[TokenSequences]),
        ("topics", d.topics.is_some(), &[TokenSequences]),
        ("topic_strength", d.topic_strength.is_some(), &[TokenSequences]),
    ];
    let wrong = fields.iter().find(|(_, given, owners)| *given && !owners.contains(&d.generator));
    let Some((field, _, owners)) = wrong else { return Ok(()) };
    let names: Vec<String> = owners.iter().map(|owner| format!("`{}`", owner.name())).collect();
    let (noun, names) = match names.as_slice() {
        [only] => ("generator", only.clone()),
        _ => ("generators", names.join(", ")),
    };
    let message = format!("belongs to the {noun} {names}, not to `{}`", d.generator.name());
    Err(Problem::field(format!("{path}.{field}"), message))
}

fn check_xor(d: &SyntheticSpec, path: &str) -> Check {
    if d.generator != Generator::Xor {
        return Ok(());
    }
    let informative =
        d.informative.as_ref().and_then(|axis| axis.values().iter().copied().max()).unwrap_or(2);
    let features = d.features.as_ref().and_then(|axis| axis.values().iter().copied().min()).unwrap_or(0);
    if informative > features {
        let message = format!("found {features}, fewer than the {informative} informative ones");
        return Err(Problem::field(format!("{path}.features"), message));
    }
    Ok(())
}

fn check_sequences(d: &SyntheticSpec, path: &str) -> Check {
    let topics = d.topics.as_ref().and_then(|axis| axis.values().iter().copied().min()).unwrap_or(8);
    let classes = d.classes.values().iter().copied().max().unwrap_or(2);
    if classes > topics {
        let message = format!("found {classes}, but a class has at least one of the {topics} topics");
        return Err(Problem::field(format!("{path}.classes"), message));
    }
    let longest = d.length.as_ref().and_then(|axis| axis.values().iter().copied().max()).unwrap_or(16);
    number(&format!("{path}.length"), longest, 2, 4096)
}

fn check_separable(d: &SyntheticSpec, path: &str) -> Check {
    let least_features =
        d.features.as_ref().and_then(|axis| axis.values().iter().copied().min()).unwrap_or(1);
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
    let features = d.features.as_ref().and_then(|axis| axis.values().iter().copied().min()).unwrap_or(0);
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
