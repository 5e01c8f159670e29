//! Pieces of HTML. Whatever comes from outside passes through [`escape`].

use std::fmt::Write as _;

pub(super) use crate::report::{duration, escape, maybe, percent_encoded, significant, thousands, time};

/// A mark beside a state, so that it is not told by colour alone.
fn mark(state: &str) -> &'static str {
    match state {
        "running" | "ready" => "▶",
        "paused" => "❚❚",
        "completed" => "✓",
        "cancelled" | "failed" | "refused" => "✕",
        "diverged" => "∿",
        "quarantined" => "!",
        _ => "…",
    }
}

/// A state with its mark.
pub fn state(name: &str) -> String {
    let name = escape(name);
    format!("<span class=\"state {name}\"><span aria-hidden=\"true\">{}</span> {name}</span>", mark(&name))
}

/// A table whose first column names the row. Cells are HTML; on narrow screens each row is a card, on others a table that is too
/// wide scrolls by itself.
pub fn table(caption: &str, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut html = format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\"><table class=\"cards\" role=\"table\">\
         <caption>{0}</caption><thead role=\"rowgroup\"><tr role=\"row\">",
        escape(caption)
    );
    for head in heads {
        let _ = write!(html, "<th role=\"columnheader\" scope=\"col\">{head}</th>");
    }
    html.push_str("</tr></thead><tbody role=\"rowgroup\">\n");
    for row in rows {
        html.push_str("<tr role=\"row\">");
        for (at, (cell, head)) in row.iter().zip(heads).enumerate() {
            let (tag, role) = if at == 0 { ("th scope=\"row\"", "rowheader") } else { ("td", "cell") };
            let end = tag.split(' ').next().unwrap_or("td");
            let _ = write!(html, "<{tag} role=\"{role}\" data-label=\"{head}\"><span>{cell}</span></{end}>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// Text that a cell may break.
pub fn long(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<span class=\"long\">{}</span>", escape(text)) }
}

/// Boxes with a value and what it is.
pub fn tiles(tiles: &[(String, &str)]) -> String {
    let tiles =
        tiles.iter().map(|(value, what)| format!("<div><dt>{what}</dt><dd>{}</dd></div>", escape(value)));
    format!("<dl class=\"figures\">{}</dl>\n", tiles.collect::<String>())
}

/// A bar that shows how much is done.
pub fn progress(label: &str, done: u64, total: u64) -> String {
    format!(
        "<progress aria-label=\"{}\" value=\"{done}\" max=\"{}\">{done} of {total}</progress>",
        escape(label),
        total.max(1)
    )
}

/// A form that is one button.
pub fn button(action: &str, label: &str, class: &str) -> String {
    let (action, label) = (escape(action), escape(label));
    format!("<form method=\"post\" action=\"{action}\"><button class=\"{class}\">{label}</button></form>")
}

/// Entries of a list of names and values; values are HTML, and empty ones are left out.
pub fn entries<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut html = String::from("<dl>");
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(html, "<dt>{name}</dt><dd>{value}</dd>");
    }
    html.push_str("</dl>\n");
    html
}

/// Time left, to a precision that holds for a moment.
pub fn left(seconds: f64) -> String {
    let whole = seconds.max(0.0).ceil() as u64;
    match whole {
        0..100 => format!("{whole} s"),
        100..6000 => format!("{} min", whole.div_ceil(60)),
        6000..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// A percentage that is 100 only at the end.
pub fn percent(done: u64, total: u64) -> String {
    let share = done as f64 / total.max(1) as f64 * 100.0;
    if done >= total { "100 %".to_owned() } else { format!("{:.1} %", (share * 10.0).floor() / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_stays_text() {
        let evil = "<script>alert(1)</script>\"'";
        for html in
            [state(evil), tiles(&[(evil.to_owned(), "x")]), button(evil, evil, ""), progress(evil, 1, 2)]
        {
            assert!(!html.contains("<script") && !html.contains("\"'"), "{html}");
        }
    }

    #[test]
    fn times_and_shares_are_short() {
        assert_eq!(
            [left(3.2), left(150.0), left(7300.0), left(1e6)],
            ["4 s", "3 min", "2 h 1 min", "11 days"]
        );
        assert_eq!([percent(999, 1000), percent(1, 1), percent(0, 0)], ["99.9 %", "100 %", "100 %"]);
        assert_eq!(percent(999_999, 1_000_000), "99.9 %");
    }
}
