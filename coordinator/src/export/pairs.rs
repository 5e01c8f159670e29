//! Strategy points against points of the baseline, on a thread of its own: bootstraps take as long as reading does.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use evenkeel_common::stats::{Bootstrap, Pairs, RatioEstimate, Sample, Summary as Numbers, brown_forsythe};

use super::ExportError;
use super::groups::{Group, Seed};

/// One quantity of a strategy point against a baseline point, paired on the seed.
#[derive(Clone, Debug, Default)]
pub(super) struct Compared {
    /// Statistics of strategy − baseline.
    pub difference: Option<Numbers>,
    /// Mean of the strategy over mean of the baseline.
    pub mean_ratio: Option<f64>,
    /// Variance of the strategy over variance of the baseline, with its interval.
    pub variance_ratio: Option<RatioEstimate>,
    /// p-value of the test of Brown & Forsythe that both vary equally.
    pub equal_variances: Option<f64>,
    /// The two variances, from two pairs on.
    pub variances: Option<(f64, f64)>,
    /// The values themselves.
    pub pairs: Pairs,
}

impl Compared {
    fn of(
        bootstrap: &mut Bootstrap,
        strategy: &[Seed],
        baseline: &[Seed],
        get: impl Fn(&Seed) -> Option<f64>,
    ) -> Self {
        let (mut ours, mut theirs, mut differences) =
            (Sample::default(), Sample::default(), Sample::default());
        let mut pairs = Pairs::new();
        let mut rest = baseline.iter().peekable();
        for seed in strategy {
            // Both are sorted by seed.
            while rest.next_if(|other| other.position < seed.position).is_some() {}
            let other = rest.peek().filter(|other| other.position == seed.position);
            if let (Some(a), Some(b)) = (get(seed), other.and_then(|other| get(other))) {
                ours.push(a);
                theirs.push(b);
                differences.push(a - b);
                if a.is_finite() && b.is_finite() {
                    pairs.push((a, b));
                }
            }
        }
        let means = (ours.summary().map(|n| n.mean), theirs.summary().map(|n| n.mean));
        Self {
            difference: differences.summary(),
            mean_ratio: means.0.zip(means.1).filter(|(_, b)| *b != 0.0).map(|(a, b)| a / b),
            variance_ratio: bootstrap.mean_variance_ratio(std::slice::from_ref(&pairs)),
            equal_variances: brown_forsythe(&ours.sorted(), &theirs.sorted()).map(|(_, p)| p),
            variances: ours.variance().zip(theirs.variance()),
            pairs,
        }
    }
}

/// A strategy point against a baseline point.
pub(super) struct Pair<'a> {
    pub group: &'a Group,
    pub baseline: &'a Group,
    pub score: &'a Compared,
    pub loo: &'a Compared,
}

/// The groups of one dataset and model, and their comparisons.
pub(super) struct Block {
    groups: Vec<Group>,
    /// Places of the strategy's and the baseline's group, with what was found of score and leave-one-out distance.
    found: Vec<(usize, usize, Compared, Compared)>,
}

impl Block {
    /// The pairs, in the order of strategies and then of baselines.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.found.iter().filter_map(|(group, baseline, score, loo)| {
            let (group, baseline) = (self.groups.get(*group)?, self.groups.get(*baseline)?);
            Some(Pair { group, baseline, score, loo })
        })
    }
}

/// Compares blocks one after the other, beside the thread that makes them.
pub(super) struct Comparing {
    jobs: Option<SyncSender<Vec<Group>>>,
    done: Receiver<Block>,
    thread: Option<JoinHandle<()>>,
}

/// Blocks that wait on either side.
const WAITING: usize = 64;

impl Comparing {
    /// Compares with this entry of `strategies`.
    pub fn start(baseline: usize) -> Self {
        let (jobs, inbox) = sync_channel::<Vec<Group>>(WAITING);
        let (finished, done) = std::sync::mpsc::channel();
        let work = move || {
            let mut bootstrap = Bootstrap::default();
            for groups in inbox {
                let found = compare(&mut bootstrap, &groups, baseline);
                if finished.send(Block { groups, found }).is_err() {
                    return;
                }
            }
        };
        Self { jobs: Some(jobs), done, thread: Some(std::thread::spawn(work)) }
    }

    /// Hands a block over.
    pub fn submit(&mut self, groups: Vec<Group>) -> Result<(), ExportError> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(groups).is_ok());
        if sent { Ok(()) } else { Err(ExportError::Died) }
    }

    /// The next block that is done; none while none is.
    pub fn try_next(&mut self) -> Option<Block> {
        self.done.try_recv().ok()
    }

    /// Waits for the next block; none after the last.
    pub fn next(&mut self) -> Result<Option<Block>, ExportError> {
        self.jobs = None;
        if let Ok(block) = self.done.recv() {
            return Ok(Some(block));
        }
        let died = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if died { Err(ExportError::Died) } else { Ok(None) }
    }
}

fn compare(
    bootstrap: &mut Bootstrap,
    groups: &[Group],
    baseline: usize,
) -> Vec<(usize, usize, Compared, Compared)> {
    let of = |ours: bool| {
        let side =
            groups.iter().enumerate().filter(move |(_, group)| (group.at.strategy == baseline) == ours);
        side.collect::<Vec<_>>()
    };
    let (baselines, others) = (of(true), of(false));
    let mut found = Vec::with_capacity(baselines.len() * others.len());
    for (place, group) in &others {
        for (base_place, base) in &baselines {
            // The distance of head tuning is of directions, that of full fine-tuning of weights: two quantities.
            let loo = match group.strategy.config.setting == base.strategy.config.setting {
                true => Compared::of(bootstrap, group.seeds(), base.seeds(), |seed| seed.loo),
                false => Compared::default(),
            };
            let score = Compared::of(bootstrap, group.seeds(), base.seeds(), |seed| seed.score);
            found.push((*place, *base_place, score, loo));
        }
    }
    found
}
