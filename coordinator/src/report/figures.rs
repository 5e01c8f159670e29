//! Numbers and times as people read them.

use std::fmt::Write as _;

use crate::export::LineSummary;

/// A number with `digits` significant digits, in plain notation where that is short.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "–".to_owned() };
    }
    let rounded = format!("{value:.*e}", digits.saturating_sub(1));
    let Some((mantissa, exponent)) = rounded.split_once('e') else { return rounded };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
        return minus(&format!("{value:.decimals$}"));
    }
    format!("{}×10{}", minus(mantissa), superscript(exponent))
}

/// The same, or a dash.
pub(crate) fn maybe(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| significant(value, digits))
}

/// A strategy's variance ratio and its interval.
pub(super) fn ratio(line: &LineSummary) -> String {
    let Some(value) = line.variance_ratio else { return "–".to_owned() };
    let value = significant(value, 3);
    match (line.variance_ratio_ci_low, line.variance_ratio_ci_high) {
        (Some(low), Some(high)) => format!("{value} [{}, {}]", significant(low, 2), significant(high, 2)),
        (Some(low), None) => format!("{value} [{}, ∞]", significant(low, 2)),
        _ => value,
    }
}

/// On how many datasets a strategy varies less than the baseline, and on how many more.
pub(super) fn votes(line: &LineSummary) -> String {
    format!("{} : {}", count(line.less_varied_pairs), count(line.more_varied_pairs))
}

/// A share as a percentage.
pub(super) fn percent(value: f64) -> String {
    let text = match value * 100.0 {
        p if p == 0.0 || p >= 9.95 => format!("{p:.0}"),
        p if p >= 0.095 => format!("{p:.1}"),
        _ => "< 0.1".to_owned(),
    };
    format!("{text} %")
}

/// A count with commas between thousands.
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun.
pub(crate) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

/// A duration in seconds.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 59.95 => {
            format!("{} s", significant(seconds.max(0.0), if seconds < 9.95 { 2 } else { 3 }))
        }
        0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A time as `2026-01-31 12:00:00 UTC`, from milliseconds since the Unix epoch
/// (days to civil date: Hinnant, *chrono-Compatible Low-Level Date Algorithms*).
pub(crate) fn time(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A tick of an axis.
pub(super) fn tick(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    if (-3..5).contains(&exponent) {
        let text = format!("{value:.6}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return minus(text);
    }
    let mantissa = (value / 10f64.powi(exponent) * 1e6).round() / 1e6;
    if mantissa == 1.0 {
        format!("10{}", superscript(exponent))
    } else {
        format!("{mantissa}×10{}", superscript(exponent))
    }
}

fn minus(text: &str) -> String {
    text.replace('-', "−")
}

fn superscript(exponent: i32) -> String {
    exponent
        .to_string()
        .chars()
        .map(|digit| match digit {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            other => other.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(other),
        })
        .collect()
}

/// Text from outside as HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Of the characters that HTML does not allow, those that text may hold.
            control if control.is_control() && !matches!(control, '\n' | '\t') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A text that keeps to so many characters.
pub(crate) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().trim_end()),
        None => text.to_owned(),
    }
}

/// Text as part of a `data:` address (RFC 3986, §2.1).
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
