//! Whether runs that differ by their seed alone predict the same (Du & Nguyen 2023).

/// Agreement of several runs on the same examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Share of examples on which two runs differ, averaged over all pairs of runs.
    pub disagreement: f64,
    /// κ of Fleiss 1971, eq. 1 to 7, with runs for raters: 1 where all agree, 0 where they agree as often as by chance. None
    /// where all runs predict one class for all examples: chance alone makes them agree.
    pub kappa: Option<f64>,
}

/// Counts of predicted classes, example by example: mergeable, independent of order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    runs: u32,
    /// Class and runs that predict it, of each example, by class.
    examples: Vec<Vec<(u32, u32)>>,
    /// Runs whose number of predictions was another: they are not counted.
    misfits: u32,
}

impl Votes {
    /// Adds a run's predicted classes.
    pub fn push(&mut self, classes: &[u32]) {
        if self.runs == 0 {
            self.examples = vec![Vec::new(); classes.len()];
        } else if self.examples.len() != classes.len() {
            self.misfits += 1;
            return;
        }
        self.runs += 1;
        for (votes, class) in self.examples.iter_mut().zip(classes) {
            match votes.binary_search_by_key(class, |(known, _)| *known) {
                Ok(at) => votes[at].1 += 1,
                Err(at) => votes.insert(at, (*class, 1)),
            }
        }
    }

    /// Agreement of the runs; none with fewer than two, or without examples.
    #[must_use]
    pub fn agreement(&self) -> Option<Agreement> {
        if self.runs < 2 || self.examples.is_empty() {
            return None;
        }
        let runs = f64::from(self.runs);
        // Whole numbers until the end: sums do not depend on an order.
        let (mut pairs, mut totals) = (0u64, std::collections::BTreeMap::<u32, u64>::new());
        for (class, count) in self.examples.iter().flatten() {
            pairs += u64::from(*count) * u64::from(count - 1);
            *totals.entry(*class).or_default() += u64::from(*count);
        }
        let examples = self.examples.len() as f64;
        let observed = pairs as f64 / (examples * runs * (runs - 1.0));
        let all = examples * runs;
        let by_chance: f64 = totals.values().map(|count| (*count as f64 / all) * (*count as f64 / all)).sum();
        let kappa = (totals.len() > 1).then(|| (observed - by_chance) / (1.0 - by_chance));
        Some(Agreement { disagreement: 1.0 - observed, kappa })
    }
}
