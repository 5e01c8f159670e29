//! What a sweep shows: a table on the terminal, and one HTML page that needs nothing beside itself.
//!
//! Every sentence about results is made from the summary's numbers. Text from outside (names, errors, the spec)
//! is escaped, in the page as well as in its pictures.

mod chart;
mod figures;
mod outputs;
mod page;
mod plots;
mod table;
mod theory;
mod words;

pub use figures::count as thousands;
pub(crate) use figures::{clip, counted, duration, escape, maybe, percent_encoded, significant, time};
pub(crate) use page::page;
pub(crate) use plots::{COLORS as LINE_COLORS, Figure, figures, live};
/// Shapes of marks, as the pictures draw them.
pub(crate) const MARKS: [&str; 4] = ["●", "■", "◆", "▲"];
/// Colours and style that the report and the coordinator's page share.
pub(crate) const STYLE: &str = concat!(include_str!("colors.css"), include_str!("style.css"));
pub(crate) use table::plain as plain_table;
pub use table::render as table;

#[cfg(test)]
mod tests;
