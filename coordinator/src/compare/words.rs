//! The table and the sentences of a comparison.

use std::fmt::Write as _;

use super::load::Side;
use super::pairs::{Comparison, LineDifference};
use crate::report::{counted, plain_table, significant, thousands};

/// Lines of the specs that are shown.
const SHOWN: usize = 12;

/// What a comparison says, for a terminal.
#[must_use]
pub fn render(a: &Side, b: &Side, of: &Comparison, width: Option<u16>) -> String {
    let mut text = String::new();
    for (letter, side) in [("A", a), ("B", b)] {
        let _ = writeln!(
            text,
            "{letter}  {}: {}, {}, evenkeel {}, {}",
            side.name,
            side.sweep,
            counted(side.trials.len() as u64, "trial", "trials"),
            side.version,
            side.devices.join(", ")
        );
    }
    specs(&mut text, of);
    text.push('\n');
    if of.strategies.is_empty() {
        text.push_str("They have no dataset, strategy and seed in common: there is nothing to compare.\n");
        return text;
    }
    let rows: Vec<Vec<String>> = of.strategies.iter().map(row).collect();
    let titles =
        ["strategy", "datasets", "pairs", "score A", "score B", "B − A", "variance B / A", "LOO B / A"];
    let _ = writeln!(text, "{}\n", plain_table(&titles, &rows, width));
    sentences(of).iter().for_each(|sentence| {
        let _ = writeln!(text, "{sentence}");
    });
    text
}

fn specs(text: &mut String, of: &Comparison) {
    let (a, b) = &of.spec_only;
    if a.is_empty() && b.is_empty() {
        text.push_str("Their specs are the same.\n");
        return;
    }
    text.push_str("Their specs differ:\n");
    for (sign, lines) in [('A', a), ('B', b)] {
        for line in lines.iter().take(SHOWN) {
            let _ = writeln!(text, "  {sign}: {line}");
        }
        if lines.len() > SHOWN {
            let _ = writeln!(text, "  {sign}: … and {} more lines", lines.len() - SHOWN);
        }
    }
}

fn row(line: &LineDifference) -> Vec<String> {
    let interval = |ends: Option<(f64, f64)>| match ends {
        Some((low, high)) => format!(" [{}, {}]", significant(low, 2), end(high)),
        None => String::new(),
    };
    vec![
        line.strategy.clone(),
        thousands(line.datasets),
        thousands(line.pairs),
        significant(line.score_a, 4),
        significant(line.score_b, 4),
        format!("{}{}", significant(line.difference, 2), interval(line.difference_ci)),
        line.variance_ratio.map_or_else(
            || "–".to_owned(),
            |ratio| format!("{}{}", significant(ratio, 3), interval(line.variance_ratio_ci)),
        ),
        line.loo_ratio.map_or_else(|| "–".to_owned(), |ratio| significant(ratio, 3)),
    ]
}

fn end(value: f64) -> String {
    if value.is_infinite() { "∞".to_owned() } else { significant(value, 2) }
}

/// What changed, in words.
fn sentences(of: &Comparison) -> Vec<String> {
    let mut said = Vec::new();
    if of.same_trials > 0 {
        let differ = of.same_trials - of.identical_trials;
        said.push(match differ {
            0 => format!(
                "{} are in both sweeps, and all are identical to the last bit.",
                counted(of.same_trials, "trial", "trials")
            ),
            differ => format!(
                "{} are in both sweeps; {} of them differ, the score by at most {}: the two did not compute the same.",
                counted(of.same_trials, "trial", "trials"),
                thousands(differ),
                significant(of.greatest_difference.unwrap_or(0.0), 2)
            ),
        });
    }
    if of.across_models {
        said.push(
            "They have no model in common: trials are paired on dataset, strategy and seed.".to_owned(),
        );
    }
    for line in &of.strategies {
        if line.difference == 0.0 && line.variance_ratio.is_none_or(|ratio| ratio == 1.0) {
            continue;
        }
        let p = line.difference_p.map_or_else(String::new, |p| format!(", p = {}", significant(p, 2)));
        let score = match (line.score_differs(), line.difference > 0.0) {
            (true, true) => format!("B scores higher, by {}{p}", significant(line.difference, 2)),
            (true, false) => format!("B scores lower, by {}{p}", significant(-line.difference, 2)),
            _ => format!("the scores cannot be told apart{p}"),
        };
        let ratio = line.variance_ratio.map_or_else(String::new, |ratio| significant(ratio, 3));
        let variance = match (line.variance_ratio_ci, line.variance_differs()) {
            (None, _) => "there are too few seeds to say how the variance changed".to_owned(),
            (_, true) => format!("the variance over seeds is {ratio} times as large"),
            (_, false) => "the variance over seeds cannot be told apart".to_owned(),
        };
        said.push(format!("{}: {score}; {variance}.", line.strategy));
    }
    let changed = of.strategies.iter().any(|line| line.score_differs() || line.variance_differs());
    let moved =
        of.same_trials != of.identical_trials || of.strategies.iter().any(|line| line.difference != 0.0);
    if moved && !changed {
        said.push("Nothing changed by more than noise.".to_owned());
    }
    if of.alone.0 + of.alone.1 > 0 {
        said.push(format!(
            "{} of A and {} of B have no partner and are left out.",
            counted(of.alone.0, "trial", "trials"),
            thousands(of.alone.1)
        ));
    }
    said
}
