//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::thousands;

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What progress shows.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
    pub failed: u64,
    pub diverged: u64,
    pub workers: usize,
    pub trials_per_second: f64,
    pub notice: Option<String>,
}

/// Where progress goes.
pub enum Display {
    /// Nowhere.
    Quiet,
    /// A bar on standard error.
    Bar(ProgressBar),
    /// Lines on standard error.
    Lines { last: Option<Instant>, notice: Option<String> },
}

impl Display {
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None, notice: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self::Bar(bar)
    }

    /// Shows where things stand.
    pub fn show(&mut self, progress: &Progress) {
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
                bar.set_message(progress.line());
            }
            Self::Lines { last, notice } => {
                let news = progress.notice.is_some() && *notice != progress.notice;
                if news || last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    notice.clone_from(&progress.notice);
                    eprintln!("{}", progress.line());
                }
            }
        }
    }

    /// Says something in between.
    pub fn say(&self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Self::Lines { .. } => eprintln!("{text}"),
        }
    }

    /// Shows the last state and leaves the screen to others.
    pub fn finish(&mut self, progress: &Progress) {
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => {
                bar.finish_and_clear();
            }
            Self::Lines { .. } => eprintln!("{}", progress.line()),
        }
    }
}

impl Progress {
    fn line(&self) -> String {
        let mut line = format!("{} of {} trials", thousands(self.done), thousands(self.total));
        if self.trials_per_second > 0.0 && self.done < self.total {
            let left = (self.total - self.done) as f64 / self.trials_per_second;
            line += &format!(", {}/s, {} left", thousands(self.trials_per_second as u64), clock(left));
        }
        line += &format!(", {} worker{}", self.workers, if self.workers == 1 { "" } else { "s" });
        if self.failed > 0 {
            line += &format!(", {} failed", thousands(self.failed));
        }
        if self.diverged > 0 {
            line += &format!(", {} diverged", thousands(self.diverged));
        }
        if let Some(notice) = &self.notice {
            line += &format!(" ({notice})");
        }
        line
    }
}

fn clock(seconds: f64) -> String {
    let s = seconds.min(359_999.0) as u64;
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_matters() {
        let progress = Progress {
            done: 2_500,
            total: 10_000,
            failed: 3,
            diverged: 0,
            workers: 2,
            trials_per_second: 100.0,
            notice: Some("the store takes no results".into()),
        };
        assert_eq!(
            progress.line(),
            "2,500 of 10,000 trials, 100/s, 1:15 left, 2 workers, 3 failed (the store takes no results)"
        );
    }
}
