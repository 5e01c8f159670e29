//! What another seed changes beside the score.

use super::figures::{maybe, percent};
use super::page::{row, section as heading};
use crate::export::{LineSummary, PartingSummary, Summary};

type Get = fn(&PartingSummary) -> Option<f64>;

type Write = fn(f64) -> String;

/// Columns: title, value, and how it is written.
const COLUMNS: [(&str, Get, Write); 6] = [
    ("other answers", |p| p.disagreement, percent),
    ("κ", |p| p.fleiss_kappa, digits),
    ("Jensen–Shannon", |p| p.jensen_shannon, digits),
    ("CKA distance", |p| p.cka_distance, digits),
    ("SVCCA distance", |p| p.svcca_distance, digits),
    ("Procrustes distance", |p| p.procrustes_distance, digits),
];

const NOTE: &str = "</tbody></table></div>\n<p class=\"small\">Means over pairs of seeds, then over datasets; the table \
    <code>stability</code> has each. Other answers: share of test points that two seeds put into different classes (Du &amp; Nguyen 2023), \
    which may be large where scores are equal. κ: agreement of all seeds beyond chance (Fleiss 1971), 1 where all agree. \
    Jensen–Shannon: divergence of the predicted probabilities, 0 to ln 2. CKA, SVCCA and Procrustes distances: how far two seeds\u{2019} \
    encoders represent the same test points differently, whatever a rotation and a scale would undo; 0 is alike, and unrelated ones \
    are about 1, at most 1, and at most 2 apart.</p>\n";

fn digits(value: f64) -> String {
    maybe(Some(value), 3)
}

/// The section, of sweeps that keep outputs; with the columns that they have.
pub(super) fn section(html: &mut String, summary: &Summary) {
    let lines: &[LineSummary] = &summary.strategies;
    let shown = |get: Get| lines.iter().any(|line| get(&line.parting).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(|(_, get, _)| shown(*get)).collect();
    if columns.is_empty() {
        return;
    }
    heading(html, "What another seed changes");
    html.push_str("<div class=\"wide\"><table><thead><tr><th>strategy</th>");
    columns.iter().for_each(|(title, ..)| html.push_str(&format!("<th>{title}</th>")));
    html.push_str("</tr></thead><tbody>\n");
    for line in lines {
        let cell = |get: Get, write: Write| get(&line.parting).map_or_else(|| "–".to_owned(), write);
        let cells: Vec<String> = columns.iter().map(|(_, get, write)| cell(*get, *write)).collect();
        row(html, &line.label, &cells);
    }
    html.push_str(NOTE);
}

/// How often two seeds part, in a sentence. Not escaped.
pub(super) fn finding(summary: &Summary) -> Option<String> {
    let of = |line: &LineSummary| {
        line.parting.disagreement.map(|share| format!("{} {}", line.label, percent(share)))
    };
    let each: Vec<String> = summary.strategies.iter().filter_map(of).collect();
    let text =
        format!("Two seeds put this share of the test points into different classes: {}.", each.join(", "));
    (!each.is_empty()).then_some(text)
}
