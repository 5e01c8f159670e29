//! The page.

use std::fmt::Write as _;

use super::figures::{
    count, counted, duration, escape, maybe, percent, percent_encoded, ratio, significant, time, votes,
};
use super::plots::Figure;
use super::words::{findings, overview};
use super::{MARKS, STYLE};
use crate::export::{ExportError, Plots, Summary};

/// Errors that the page lists.
const SHOWN_FAILURES: usize = 50;
/// Longest text of a picture that the page holds for download, in bytes.
const MOST_EMBEDDED: usize = 16 << 10;

/// The report as one HTML page: no script, nothing loaded from elsewhere.
///
/// # Errors
/// When the data of a picture cannot be written.
pub(crate) fn page(
    summary: &Summary,
    plots: &Plots<'_>,
    drawn: &[Figure],
    yaml: &str,
) -> Result<String, ExportError> {
    let mut html = String::with_capacity(1 << 16);
    let name = escape(&summary.name);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{name} – stability report</title>\
         <style>{STYLE}</style></head><body><main>\n<h1>{name}</h1>\n"
    );
    if let Some(description) = &summary.description {
        let _ = writeln!(html, "<p class=\"lead\">{}</p>", escape(description));
    }
    let _ = writeln!(html, "<p class=\"abstract\">{}</p>", escape(&overview(summary)));
    ran(&mut html, summary);
    section(&mut html, "Findings");
    list(&mut html, findings(summary).iter());
    strategies(&mut html, summary);
    super::outputs::section(&mut html, summary);
    super::theory::section(&mut html, summary);
    if !drawn.is_empty() {
        section(&mut html, "Pictures");
    }
    drawn.iter().try_for_each(|figure| picture(&mut html, figure, plots))?;
    failures(&mut html, summary);
    if !summary.notes.is_empty() {
        section(&mut html, "Notes");
        list(&mut html, summary.notes.iter());
    }
    how(&mut html, summary);
    let _ = write!(
        html,
        "<details><summary>The spec, every default written out</summary><pre>{}</pre></details>\n</main></body></html>\n",
        escape(yaml)
    );
    Ok(html)
}

pub(super) fn section(html: &mut String, title: &str) {
    let _ = writeln!(html, "<h2>{title}</h2>");
}

pub(super) fn list<'a>(html: &mut String, items: impl Iterator<Item = &'a String>) {
    html.push_str("<ul>\n");
    for item in items {
        let _ = writeln!(html, "<li>{}</li>", escape(item));
    }
    html.push_str("</ul>\n");
}

fn ran(html: &mut String, summary: &Summary) {
    let trials = if summary.complete {
        count(summary.trials)
    } else {
        format!("{} of {}", count(summary.recorded), count(summary.trials))
    };
    let mut tiles = vec![
        (trials, "trials"),
        (count(summary.datasets), "datasets"),
        (count(summary.strategies.len() as u64), "strategies and variants"),
        (count(summary.seeds), "seeds each"),
        (count(summary.completed), "completed"),
        (count(summary.diverged), "diverged"),
        (count(summary.failed), "failed"),
    ];
    if let Some(seconds) = summary.wall_seconds {
        tiles.push((duration(seconds), "in all"));
    }
    html.push_str("<div class=\"tiles\">");
    for (value, what) in tiles {
        let _ = write!(html, "<div><b>{}</b><span>{what}</span></div>", escape(&value));
    }
    html.push_str("</div>\n");
}

fn strategies(html: &mut String, summary: &Summary) {
    section(html, "Strategies");
    html.push_str(
        "<div class=\"wide\"><table><thead><tr><th>strategy</th><th>trials</th><th>diverged : failed</th>\
         <th>mean score</th><th>SD over seeds, pooled</th><th>SD over seeds, median</th><th>failed runs</th>\
         <th>mean LOO distance</th><th>max LOO distance</th><th>variance ratio</th><th>varies less : more</th>\
         <th>p</th></tr></thead><tbody>\n",
    );
    for line in &summary.strategies {
        let cells = [
            count(line.completed + line.diverged + line.failed),
            format!("{} : {}", count(line.diverged), count(line.failed)),
            maybe(line.score_mean, 4),
            maybe(line.score_sd_pooled, 3),
            maybe(line.score_sd_median, 3),
            line.failed_run_rate.map_or_else(|| "–".to_owned(), percent),
            maybe(line.loo_mean, 3),
            maybe(line.loo_max, 3),
            if line.is_baseline { "baseline".to_owned() } else { ratio(line) },
            if line.is_baseline { String::new() } else { votes(line) },
            if line.is_baseline { String::new() } else { maybe(line.signed_rank_p, 2) },
        ];
        row(html, &line.label, &cells);
    }
    let _ = writeln!(
        html,
        "</tbody></table></div>\n<p class=\"small\">The score is each dataset's metric on the test set: accuracy, unless the \
         dataset has another. A failed run diverged or was right no more often than predicting the most frequent class. LOO \
         (leave-one-out) distance: how far training moves when one point is left out, for heads the direction of the \
         weights, 0 (not at all) to 2 (reversed), for encoders the weights themselves. Variance ratio: variance of the score over seeds relative to {}, both averaged over the same datasets, with its 95 % \
         interval (BCa bootstrap over seeds: how far other seeds might have led on these datasets). Varies less : more: on how many \
         datasets. p: Wilcoxon's signed-rank test over datasets that standard deviations are the same, corrected for the number \
         of strategies (Holm).</p>",
        escape(&summary.baseline)
    );
}

fn picture(html: &mut String, figure: &Figure, plots: &Plots<'_>) -> Result<(), ExportError> {
    let _ = write!(html, "<figure><h3>{}</h3>", figure.title);
    if !figure.legend.is_empty() {
        html.push_str("<p class=\"legend\">");
        for line in &figure.legend {
            let label = plots.lines.get(*line).map_or("", |line| line.label);
            let mark = MARKS.get(line % MARKS.len()).copied().unwrap_or("●");
            let _ = write!(html, "<span><i class=\"c-{line}\">{mark}</i> {}</span> ", escape(label));
        }
        html.push_str("</p>");
    }
    let hidden = match plots.hidden {
        0 => String::new(),
        hidden => format!(
            " {} are not shown; the tables have them.",
            counted(hidden as u64, "further line", "further lines")
        ),
    };
    let (slug, caption) = (figure.slug, escape(&figure.caption));
    let _ =
        write!(html, "{}<figcaption>{caption}{hidden}</figcaption><p class=\"data\">", figure.drawing.inline);
    let csv = figure.data.csv()?;
    for (ending, kind, text) in
        [("csv", "text/csv", csv.as_str()), ("svg", "image/svg+xml", figure.drawing.file.as_str())]
    {
        // A page stays a page: what is longer is beside it.
        if text.len() <= MOST_EMBEDDED {
            let _ = write!(
                html,
                "<a download=\"{slug}.{ending}\" href=\"data:{kind};charset=utf-8,{}\">{slug}.{ending}</a> ",
                percent_encoded(text)
            );
        }
    }
    html.push_str("</p></figure>\n");
    Ok(())
}

pub(super) fn row(html: &mut String, label: &str, cells: &[String]) {
    let _ = write!(html, "<tr><th>{}</th>", escape(label));
    cells.iter().for_each(|cell| {
        let _ = write!(html, "<td>{}</td>", escape(cell));
    });
    html.push_str("</tr>\n");
}

fn failures(html: &mut String, summary: &Summary) {
    if summary.failures.is_empty() {
        return;
    }
    section(html, "Failures");
    html.push_str(
        "<div class=\"wide\"><table><thead><tr><th>error</th><th>trials</th><th>first trial</th></tr></thead><tbody>\n",
    );
    for failure in summary.failures.iter().take(SHOWN_FAILURES) {
        let (error, trials) = (escape(&failure.error), count(failure.trials));
        let _ = writeln!(html, "<tr><th>{error}</th><td>{trials}</td><td>{}</td></tr>", failure.first_trial);
    }
    html.push_str("</tbody></table></div>\n");
    let listed: u64 = summary.failures.iter().take(SHOWN_FAILURES).map(|failure| failure.trials).sum();
    let others = summary.failed.saturating_sub(listed);
    if others > 0 {
        let _ = writeln!(
            html,
            "<p class=\"small\">{} failed with other errors; the results table has them.</p>",
            counted(others, "more trial", "more trials")
        );
    }
}

fn how(html: &mut String, summary: &Summary) {
    section(html, "How it was run");
    html.push_str("<dl>");
    let mut entry = |what: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(html, "<dt>{what}</dt><dd>{}</dd>", escape(value));
        }
    };
    entry("sweep", &summary.sweep_id);
    entry("program", &format!("evenkeel {}", summary.version));
    entry("begun", &summary.started_ms.map(time).unwrap_or_default());
    let rate = |seconds: f64| {
        format!(
            "{} ({} trials a second)",
            duration(seconds),
            significant(summary.recorded as f64 / seconds, 3)
        )
    };
    entry("took", &summary.wall_seconds.filter(|s| *s > 0.0).map(rate).unwrap_or_default());
    entry("workers", &few(&summary.workers));
    entry("devices", &few(&summary.devices));
    entry("command", summary.command.as_deref().unwrap_or_default());
    html.push_str("</dl>\n");
    html.push_str(
        "<p>To repeat it, run <code>evenkeel run spec.yaml --out DIRECTORY</code> with the spec below \
         (<code>spec.yaml</code> beside this page, like each picture and its data in <code>figures/</code>) and the same version of the program; feature files are found by the \
         paths in it and recognised by their content.</p>\n",
    );
}

/// Some of many names.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {}", counted(more as u64, "other", "others")),
    }
}
