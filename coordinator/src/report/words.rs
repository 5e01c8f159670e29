//! Findings in words, made from the summary's numbers.

use super::figures::{count, counted, percent, significant};
use crate::export::{LineSummary, Slope, Summary};

/// More seeds than this are not worth naming.
const MOST_SEEDS: u64 = 10_000;

/// Sentences about results: what varies, what follows the theory, what went wrong. Not escaped.
pub(super) fn findings(summary: &Summary) -> Vec<String> {
    let mut found = Vec::new();
    if summary.recorded == 0 {
        return vec!["No trial has a result yet.".to_owned()];
    }
    for line in &summary.strategies {
        found.extend(against_baseline(line, &summary.baseline));
    }
    found.extend(summary.strategies.iter().filter_map(bound));
    for line in &summary.strategies {
        let (n, gamma) = ("the training set size n", "the margin γ");
        let laws = [
            (&line.slope_samples, n, line.bound_slope_samples.as_ref()),
            (&line.slope_margin, gamma, line.bound_slope_margin.as_ref()),
            (&line.slope_rate, "log log t / log t over the training steps t", None),
        ];
        let law = |(slope, of, bound): (&Option<Slope>, &str, Option<&Slope>)| {
            Some(power_law(&line.label, slope.as_ref()?, of, bound))
        };
        found.extend(laws.into_iter().filter_map(law));
    }
    let heads = summary.slopes_heads.iter();
    found.extend(
        heads.map(|of| power_law(&of.strategy, &of.slope, "the number of heads H", of.bound.as_ref())),
    );
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

/// How many measurements keep to the bound, and whether it says anything. One above it is a finding.
fn bound(line: &LineSummary) -> Option<String> {
    let groups = line.bounded_groups;
    let kept = |held: u64, ratio: Option<f64>, telling: u64| {
        let times = ratio.map_or_else(String::new, |ratio| {
            format!(" ({} times the distance in the median)", significant(ratio, 2))
        });
        let above = match groups.saturating_sub(held) {
            0 => String::new(),
            above => format!(
                ", and above it on {}, where a condition of the theory or the estimate of a constant does not hold",
                count(above)
            ),
        };
        let empty = match groups.saturating_sub(telling) {
            0 => String::new(),
            empty => format!(
                "; on {} it is above 2, the most that two directions can differ by, and says nothing",
                count(empty)
            ),
        };
        format!("{times} on {} of {}{above}{empty}", count(held), counted(groups, "group", "groups"))
    };
    (groups > 0).then(|| {
        format!(
            "{}: the mean leave-one-out distance is at most its theoretical bound{}. With the share of points that are support \
             vectors, which alone move the limit, it is at most the bound{}.",
            line.label,
            kept(line.bound_held, line.bound_ratio, line.bound_telling),
            kept(line.support_bound_held, line.support_bound_ratio, line.support_bound_telling),
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

fn power_law(label: &str, slope: &Slope, of: &str, bound: Option<&Slope>) -> String {
    let interval = |slope: &Slope| match (slope.ci_low, slope.ci_high) {
        (Some(low), Some(high)) => {
            format!("95 % confidence interval {} to {}", significant(low, 3), significant(high, 3))
        }
        _ => "without an interval".to_owned(),
    };
    let verb = match direction(slope) {
        -1 => "falls",
        1 => "rises",
        _ => "neither clearly falls nor rises",
    };
    let verdict = bound.map_or_else(String::new, |bound| {
        let power = format!("as a power of {} ({})", significant(bound.slope, 3), interval(bound));
        if direction(bound) == direction(slope) {
            format!("; so does its bound, {power}")
        } else {
            format!("; its bound goes {power}: theory and measurement part here")
        }
    });
    format!(
        "{label}: the mean leave-one-out distance {verb} with {of}, as a power of {} ({}, {} of families alike in all \
         else){verdict}.",
        significant(slope.slope, 3),
        interval(slope),
        counted(slope.groups, "point", "points")
    )
}
