//! Findings in words, made from the summary's numbers.

use super::figures::{count, counted, percent, ratio, significant};
use crate::export::{LineSummary, Slope, Summary};

/// More seeds than this are not worth naming.
const MOST_SEEDS: u64 = 10_000;

/// The sweep in a paragraph: what was compared, and what came of it. Not escaped.
pub(super) fn overview(summary: &Summary) -> String {
    if summary.recorded == 0 {
        return "No trial has a result yet.".to_owned();
    }
    let others: Vec<&LineSummary> = summary.strategies.iter().filter(|line| !line.is_baseline).collect();
    let of = match others.len() as u64 {
        0 => format!("{} was run", summary.baseline),
        others => format!("{} compared with {}", are(others), summary.baseline),
    };
    let mut text = vec![format!(
        "{of} on {}, with {} each ({}{}).",
        counted(summary.datasets, "dataset", "datasets"),
        counted(summary.seeds, "seed", "seeds"),
        counted(summary.recorded, "trial", "trials"),
        if summary.complete { String::new() } else { format!(" of {} so far", count(summary.trials)) },
    )];
    let known = |line: &&&LineSummary| line.variance_ratio.is_some();
    let below = |line: &&&LineSummary| line.variance_ratio_ci_high.is_some_and(|high| high < 1.0);
    let above = |line: &&&LineSummary| line.variance_ratio_ci_low.is_some_and(|low| low > 1.0);
    let named = |what: &str, chosen: Vec<&&LineSummary>| {
        let each: Vec<String> = chosen.into_iter().map(|line| ratio_of(line)).collect();
        (!each.is_empty()).then(|| format!("{what}: {}.", each.join("; ")))
    };
    let doubtful = |line: &&&LineSummary| known(line) && !below(line) && !above(line);
    text.extend(named(
        &format!("Varied less over seeds than {}", summary.baseline),
        others.iter().filter(below).collect(),
    ));
    text.extend(named(
        &format!("Varied more than {}", summary.baseline),
        others.iter().filter(above).collect(),
    ));
    text.extend(named(
        &format!("Not to be told from {}", summary.baseline),
        others.iter().filter(doubtful).collect(),
    ));
    let sum = |get: fn(&LineSummary) -> u64| summary.strategies.iter().map(get).sum::<u64>();
    let (groups, held) = (sum(|line| line.bounded_groups), sum(|line| line.bound_held));
    if groups > 0 {
        text.push(format!(
            "Leave-one-out distances kept to their theoretical bound on {} of {}, of which {} have a bound that says anything.",
            count(held),
            counted(groups, "group", "groups"),
            count(sum(|line| line.bound_telling)),
        ));
    }
    let bad = summary.diverged + summary.failed;
    if bad > 0 {
        text.push(format!(
            "{} diverged and {} could not be run.",
            counted(summary.diverged, "trial", "trials"),
            count(summary.failed)
        ));
    }
    text.join(" ")
}

fn are(strategies: u64) -> String {
    if strategies == 1 {
        "1 strategy was".to_owned()
    } else {
        format!("{} strategies were", count(strategies))
    }
}

/// A strategy with its ratio, and on how many datasets it varies less.
fn ratio_of(line: &LineSummary) -> String {
    format!(
        "{} (variance ratio {}; less on {} of {})",
        line.label,
        ratio(line),
        count(line.less_varied_pairs),
        counted(line.variance_ratio_pairs, "dataset", "datasets")
    )
}

/// Sentences about results: what varies, what follows the theory, what went wrong. Not escaped.
pub(super) fn findings(summary: &Summary) -> Vec<String> {
    let mut found = Vec::new();
    if summary.recorded == 0 {
        return vec!["No trial has a result yet.".to_owned()];
    }
    for line in &summary.strategies {
        found.extend(against_baseline(line, &summary.baseline));
    }
    found.extend(super::outputs::finding(summary));
    found.extend(summary.strategies.iter().filter_map(above_bound));
    found.extend(summary.strategies.iter().filter_map(not_convex));
    found.extend(laws(summary).into_iter().filter(|law| law.parts).map(|law| law.text));
    let all_fine = summary.strategies.iter().all(|line| line.failed_run_rate.is_none_or(|rate| rate == 0.0));
    let judged = summary.strategies.iter().any(|line| line.failed_run_rate.is_some());
    if all_fine && judged {
        found.push("Every run scored better than predicting the most frequent class.".to_owned());
    } else {
        let worse = |line: &LineSummary| {
            let rate = line.failed_run_rate.filter(|rate| *rate > 0.0)?;
            Some(format!(
                "{}: {} of the runs failed (diverged, or scored no better than predicting the most frequent class).",
                line.label,
                percent(rate)
            ))
        };
        found.extend(summary.strategies.iter().filter_map(worse));
    }
    if summary.failed > 0 {
        found.push(format!(
            "{} could not be run; the errors are listed below.",
            counted(summary.failed, "trial", "trials")
        ));
    }
    if !summary.complete {
        let missing = summary.trials.saturating_sub(summary.recorded);
        found.push(format!(
            "The sweep is not complete: {} of {} trials have no result, and the numbers above may change.",
            count(missing),
            count(summary.trials)
        ));
    }
    found
}

fn against_baseline(line: &LineSummary, baseline: &str) -> Option<String> {
    let known = line.variance_ratio.filter(|_| !line.is_baseline);
    let spread = known.map(|value| {
        let interval = (line.variance_ratio_ci_low, line.variance_ratio_ci_high);
        // Nothing is called a difference whose interval holds 1.
        let (verb, doubt) = match interval {
            (_, Some(high)) if high < 1.0 => ("varies less over seeds than", ""),
            (Some(low), _) if low > 1.0 => ("varies more over seeds than", ""),
            (Some(_), _) => ("cannot be told to vary less or more over seeds than", ", which holds 1"),
            _ => ("was not seen with enough seeds to say how it varies beside", ""),
        };
        let within = match interval {
            (Some(low), high) => format!(
                " (95 % interval {} to {}{doubt})",
                significant(low, 2),
                high.map_or_else(|| "infinity".to_owned(), |high| significant(high, 2))
            ),
            _ => String::new(),
        };
        let needed = match (line.seeds_needed, doubt.is_empty()) {
            (Some(seeds), false) if seeds < MOST_SEEDS => format!(
                "; were that the true ratio, {} would show it on a single dataset",
                counted(seeds, "seed", "seeds")
            ),
            _ => String::new(),
        };
        format!(
            "its score {verb} that of {baseline}: the variance is {} times as large{within}, less on {} and more on {} of {}{needed}",
            significant(value, 3),
            count(line.less_varied_pairs),
            count(line.more_varied_pairs),
            counted(line.variance_ratio_pairs, "dataset", "datasets"),
        )
    });
    let distance = line.loo_ratio.filter(|_| !line.is_baseline).map(|ratio| {
        format!(
            "its mean leave-one-out distance is {} times that of {baseline} (median over those datasets)",
            significant(ratio, 3)
        )
    });
    let parts: Vec<String> = [spread, distance].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{}: {}.", line.label, parts.join("; ")))
}

/// A measured distance above its bound is a finding.
fn above_bound(line: &LineSummary) -> Option<String> {
    let above = |held: u64, of: &str| {
        let above = line.bounded_groups.saturating_sub(held);
        (above > 0).then(|| {
            format!(
                "{}: the mean leave-one-out distance is above its {of} on {} of {}: a condition of the theory or the estimate of \
                 a constant does not hold there.",
                line.label,
                count(above),
                counted(line.bounded_groups, "group", "groups"),
            )
        })
    };
    above(line.bound_held, "theoretical bound").or_else(|| {
        line.support_bound_ratio.and_then(|_| above(line.support_bound_held, "bound with support vectors"))
    })
}

/// The bound for full fine-tuning assumes a loss that is convex where training ends.
fn not_convex(line: &LineSummary) -> Option<String> {
    let (bent, runs) = line.not_convex_runs.zip(Some(line.completed))?;
    (bent > 0).then(|| {
        format!(
            "{}: the loss is not convex where {} of {} ended, which the bound for full fine-tuning assumes.",
            line.label,
            count(bent),
            counted(runs, "run", "runs")
        )
    })
}

/// The direction of a slope that is told from zero: −1 or 1, else 0.
fn direction(slope: &Slope) -> i8 {
    match slope.ci_low.zip(slope.ci_high) {
        Some((_, high)) if high < 0.0 => -1,
        Some((low, _)) if low > 0.0 => 1,
        _ => 0,
    }
}

/// How the distance depends on one quantity.
pub(super) struct Law {
    pub text: String,
    /// Whether the bound depends on it in another way.
    pub parts: bool,
}

/// How the distance depends on n, γ, t and H, of every strategy. Not escaped.
pub(super) fn laws(summary: &Summary) -> Vec<Law> {
    let of_line = |line: &LineSummary| {
        let laws = [
            (&line.slope_samples, "the training set size n", line.bound_slope_samples.as_ref()),
            (&line.slope_margin, "the margin γ", line.bound_slope_margin.as_ref()),
            (&line.slope_rate, "log log t / log t over the training steps t", None),
        ];
        let law = |(slope, of, bound): (&Option<Slope>, &str, Option<&Slope>)| {
            Some(power_law(&line.label, slope.as_ref()?, of, bound))
        };
        laws.into_iter().filter_map(law).collect::<Vec<_>>()
    };
    let heads = summary.slopes_heads.iter();
    let heads =
        heads.map(|of| power_law(&of.strategy, &of.slope, "the number of heads H", of.bound.as_ref()));
    summary.strategies.iter().flat_map(of_line).chain(heads).collect()
}

fn power_law(label: &str, slope: &Slope, of: &str, bound: Option<&Slope>) -> Law {
    let power = |slope: &Slope| match (slope.ci_low, slope.ci_high) {
        (Some(low), Some(high)) => format!(
            "{} (95 % interval {} to {})",
            significant(slope.slope, 3),
            significant(low, 3),
            significant(high, 3)
        ),
        _ => significant(slope.slope, 3),
    };
    let verb = match direction(slope) {
        -1 => "falls",
        1 => "rises",
        _ => "neither clearly falls nor rises",
    };
    let parts = bound.is_some_and(|bound| direction(bound) != direction(slope));
    let verdict = match bound {
        Some(bound) if parts => {
            format!("; its bound goes as a power of {}: theory and measurement part here", power(bound))
        }
        Some(bound) => format!("; so does its bound, as a power of {}", power(bound)),
        None => String::new(),
    };
    let text = format!(
        "{label}: the mean leave-one-out distance {verb} with {of}, as a power of {}{verdict}.",
        power(slope)
    );
    Law { text, parts }
}
