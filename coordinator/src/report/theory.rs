//! What the theory says beside what was measured.

use std::collections::BTreeMap;

use super::figures::{count, counted, maybe};
use super::page::{list, row, section as heading};
use super::words::laws;
use crate::export::{LineSummary, Summary};

const HEADER: &str = "<div class=\"wide\"><table><thead><tr><th>strategy</th><th>bound holds</th><th>bound below 2</th>\
    <th>bound / distance</th><th>ρ</th><th>with support vectors: holds</th><th>below 2</th><th>bound / distance</th>\
    <th>ρ</th></tr></thead><tbody>\n";
const NOTE: &str = "</tbody></table></div>\n<p class=\"small\">The bounds are those of Fu, So &amp; Collier (2023), with constants \
    estimated from these trainings (table <code>theory</code>): for head tuning by gradient descent on separable data, and for \
    full fine-tuning by gradient descent with the step 1/β, a convex loss at the end, and no remainder. A distance above its \
    bound is a finding. Two directions are at most 2 apart, so a bound above 2 says nothing of head tuning. With support vectors: \
    its second term weighted by the share of points that are support vectors, as the limit of training does not move without \
    another. Bound / distance: median over groups. ρ: Spearman\u{2019}s rank correlation of bound and distance over groups. Powers \
    below are slopes on log-log axes, within groups that are alike in all else.</p>\n";

/// The section, of strategies that have a bound or a slope.
pub(super) fn section(html: &mut String, summary: &Summary) {
    let shown = |line: &&LineSummary| {
        line.bounded_groups > 0 || line.slope_samples.is_some() || line.slope_margin.is_some()
    };
    let lines: Vec<&LineSummary> = summary.strategies.iter().filter(shown).collect();
    if lines.is_empty() {
        return;
    }
    heading(html, "Theory and measurement");
    html.push_str(HEADER);
    lines.iter().for_each(|line| row(html, &line.label, &cells(line)));
    html.push_str(NOTE);
    let mut without: BTreeMap<&str, (Vec<&str>, u64)> = BTreeMap::new();
    for line in &summary.strategies {
        for (reason, groups) in &line.no_bound {
            let (labels, all) = without.entry(reason).or_default();
            labels.push(&line.label);
            *all += groups;
        }
    }
    let reasons = without.into_iter().map(|(reason, (labels, groups))| {
        format!("{}: no bound for {}: {reason}.", labels.join(", "), counted(groups, "group", "groups"))
    });
    let laws: Vec<String> = laws(summary).into_iter().map(|law| law.text).chain(reasons).collect();
    list(html, laws.iter());
}

fn cells(line: &LineSummary) -> [String; 8] {
    let groups = line.bounded_groups;
    let of = |some: u64, known: bool| match known {
        true => format!("{} of {}", count(some), count(groups)),
        false => "–".to_owned(),
    };
    // Only head tuning has directions and support vectors.
    let head = line.support_bound_ratio.is_some();
    [
        of(line.bound_held, groups > 0),
        of(line.bound_telling, head),
        maybe(line.bound_ratio, 2),
        maybe(line.bound_spearman, 2),
        of(line.support_bound_held, head),
        of(line.support_bound_telling, head),
        maybe(line.support_bound_ratio, 2),
        maybe(line.support_bound_spearman, 2),
    ]
}
