//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use evenkeel_proto::v1;
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
    pub training: Vec<TrainingLine>,
}

/// The curve of a trial that trains.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingLine {
    name: String,
    last: v1::TrialSample,
    curve: String,
}

impl TrainingLine {
    /// From the newest point of a trial's curve, and the scores of the newest ones.
    pub fn new(name: String, last: v1::TrialSample, scores: &[f64]) -> Self {
        Self { name, last, curve: sparkline(scores) }
    }

    fn text(&self, width: usize) -> String {
        let v1::TrialSample { step, steps, train_loss, score, .. } = self.last;
        let digits = steps.to_string().len();
        let score = if score.is_finite() { format!("{score:.3}") } else { "–".to_owned() };
        format!(
            "{:width$}  step {step:>digits$}/{steps}  loss {train_loss:.3}  score {score}  {}",
            self.name, self.curve
        )
    }
}

/// Values as a line of blocks, between their least and greatest.
fn sparkline(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let block = |value: &f64| match value.is_finite() {
        true if most > least => BLOCKS[(((value - least) / (most - least)) * 7.0).round() as usize],
        true => BLOCKS[3],
        false => ' ',
    };
    values.iter().map(block).collect()
}

/// Trials whose curves are shown at once.
const SHOWN: usize = 8;

/// Where progress goes.
pub enum Display {
    /// Nowhere.
    Quiet,
    /// A bar on standard error.
    Bar(ProgressBar),
    /// Lines on standard error.
    Lines { last: Option<Instant>, notice: Option<String>, shown: Vec<TrainingLine> },
}

impl Display {
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None, notice: None, shown: Vec::new() };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {wide_msg}{prefix}");
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
                let lines = progress.training_lines().into_iter().take(SHOWN);
                bar.set_prefix(lines.map(|line| format!("\n  {line}")).collect::<String>());
            }
            Self::Lines { last, notice, shown } => {
                let news = progress.notice.is_some() && *notice != progress.notice;
                if news || last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    notice.clone_from(&progress.notice);
                    eprintln!("{}", progress.line());
                    for (line, text) in progress.training.iter().zip(progress.training_lines()).take(SHOWN) {
                        if !shown.contains(line) {
                            eprintln!("  {text}");
                        }
                    }
                    shown.clone_from(&progress.training);
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
    fn training_lines(&self) -> Vec<String> {
        let width = self.training.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        self.training.iter().map(|line| line.text(width)).collect()
    }

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
            training: vec![TrainingLine::new(
                "mmr seed 3".into(),
                v1::TrialSample { trial: 9, step: 60, steps: 300, train_loss: 0.41239, score: 0.8 },
                &[0.5, 0.7, f64::NAN, 0.8],
            )],
        };
        assert_eq!(progress.training_lines(), ["mmr seed 3  step  60/300  loss 0.412  score 0.800  ▁▆ █"]);
        assert_eq!(
            progress.line(),
            "2,500 of 10,000 trials, 100/s, 1:15 left, 2 workers, 3 failed (the store takes no results)"
        );
    }
}
