use proptest::prelude::*;

use super::*;

fn close(found: f64, expected: f64, relative: f64) {
    let bound = relative * expected.abs().max(1e-300);
    assert!((found - expected).abs() <= bound, "found {found}, expected {expected}");
}

const SCORES: [f64; 7] = [0.91, 0.88, 0.93, 0.52, 0.9, 0.89, 0.94];

#[test]
fn a_summary_agrees_with_numpy_and_scipy() {
    let sample: Sample = SCORES.into_iter().collect();
    let summary = sample.summary().expect("summary");
    // numpy 2.4, scipy 1.17: a.mean(), a.std(ddof=1), stats.sem(a), stats.t.interval(0.95, 6, a.mean(), sem),
    // numpy.quantile(a, q), stats.iqr(a), stats.variation(a, ddof=1)
    close(summary.mean, 0.852857142857143, 1e-15);
    close(summary.sd.expect("sd"), 0.14829186151126494, 1e-14);
    close(summary.se.expect("se"), 0.05604905528766256, 1e-14);
    let (low, high) = summary.ci95.expect("interval");
    close(low, 0.7157100452282813, 1e-13);
    close(high, 0.9900042404860047, 1e-13);
    assert_eq!((summary.min, summary.max, summary.median), (0.52, 0.94, 0.9));
    close(summary.q1, 0.885, 1e-15);
    close(summary.q3, 0.92, 1e-15);
    close(summary.iqr(), 0.035, 1e-13);
    close(sample.quantile(0.1).expect("quantile"), 0.736, 1e-15);
    close(summary.cv.expect("cv"), 0.17387655453582154, 1e-14);
    // numpy.var(a, ddof=1) / numpy.var([1, 2, 4, 8], ddof=1)
    let other: Sample = [1.0, 2.0, 4.0, 8.0].into_iter().collect();
    close(variance_ratio(&sample, &other).expect("ratio"), 0.002294658385093167, 1e-14);
}

#[test]
fn quantiles_of_student_t_agree_with_scipy() {
    // scipy.stats.t.ppf(p, df)
    for (p, degrees, expected, relative) in [
        (0.975, 1.0, 12.706204736174694, 1e-13),
        (0.975, 2.0, 4.302652729749462, 1e-13),
        (0.975, 4.0, 2.7764451051977934, 1e-13),
        (0.975, 9.0, 2.262157162798205, 1e-13),
        (0.975, 19.0, 2.0930240544083087, 1e-13),
        (0.975, 100.0, 1.9839715185235518, 1e-12),
        (0.975, 1000.0, 1.9623390808264083, 1e-11),
        (0.975, 1e6, 1.959966356814107, 1e-8),
        (0.995, 3.0, 5.840909309733355, 1e-13),
        (0.6, 7.0, 0.2631668613520229, 1e-13),
        (0.05, 5.0, -2.015048373333024, 1e-13),
        (0.9999, 2.5, 34.867969321116306, 1e-11),
    ] {
        close(student_t_quantile(p, degrees), expected, relative);
    }
    close(student::t_975(4), 2.7764451051977934, 1e-13);
    close(student::t_975(1000), 1.9623390808264083, 1e-11);
    assert!(student_t_quantile(1.0, 3.0).is_nan() && student_t_quantile(0.9, 0.0).is_nan());
}

#[test]
fn probabilities_of_student_t_agree_with_scipy() {
    // scipy.stats.t.cdf(t, df)
    for (t, degrees, expected) in [
        (0.0, 3.0, 0.5),
        (1.0, 1.0, 0.75),
        (-2.5, 6.0, 0.02326411614208365),
        (0.1, 30.0, 0.5394951941048645),
        (40.0, 2.0, 0.9996877926639076),
        (3.0, 1e5, 0.9986497695579677),
        (-1e-3, 4.0, 0.499625000078125),
    ] {
        close(student_t_cdf(t, degrees), expected, 1e-11);
    }
}

#[test]
fn a_slope_agrees_with_scipy() {
    let n = [25.0, 50.0, 100.0, 200.0, 400.0f64];
    let distance = [0.059, 0.031, 0.0105, 0.0041, 0.0013f64];
    let points: Vec<_> = n.iter().zip(distance).map(|(n, d)| (n.ln(), d.ln())).collect();
    let line = ols(&points).expect("line");
    // scipy.stats.linregress(x, y); interval: slope ± stats.t.ppf(0.975, 3)·stderr
    close(line.slope, -1.3926835252872378, 1e-12);
    close(line.intercept, 1.8130395989338624, 1e-12);
    close(line.r_squared.expect("r²"), 0.9923818351150288, 1e-12);
    let (low, high) = line.slope_ci95.expect("interval");
    close(low, -1.616885109326741, 1e-12);
    close(high, -1.1684819412477347, 1e-12);

    assert_eq!(ols(&[(1.0, 2.0)]), None);
    assert_eq!(ols(&[(1.0, 2.0), (1.0, 3.0)]), None);
    assert_eq!(ols(&[(1.0, 2.0), (2.0, f64::NAN)]), None);
    let two = ols(&[(0.0, 1.0), (2.0, 5.0)]).expect("line");
    assert_eq!((two.slope, two.intercept, two.slope_ci95), (2.0, 1.0, None));
}

#[test]
fn few_values_give_what_they_can() {
    assert_eq!(Sample::default().summary(), None);
    let one: Sample = [2.0].into_iter().collect();
    let summary = one.summary().expect("summary");
    assert_eq!(
        (summary.mean, summary.median, summary.sd, summary.ci95, summary.cv),
        (2.0, 2.0, None, None, None)
    );
    let constant: Sample = [0.1; 10].into_iter().collect();
    assert_eq!(constant.summary().expect("summary").sd, Some(0.0));
    assert_eq!(variance_ratio(&one, &constant), None);
    let huge: Sample = [f64::MAX, f64::MAX].into_iter().collect();
    assert_eq!(huge.summary().expect("summary").mean, f64::MAX);
    let odd: Sample = [f64::NAN, 1.0, f64::INFINITY].into_iter().collect();
    assert_eq!((odd.count(), odd.skipped()), (1, 2));
    assert_eq!((quantile(&[], 0.5), quantile(&[1.0], 1.1)), (None, None));
}

#[test]
fn a_run_no_better_than_the_majority_class_has_failed() {
    let mut runs = FailedRuns::default();
    runs.push(Some(0.6), Some(0.6));
    runs.push(Some(0.7), Some(0.6));
    runs.push(Some(f64::NAN), Some(0.6));
    runs.push(None, Some(0.6));
    runs.push_diverged();
    assert_eq!((runs.failed, runs.of, runs.rate()), (3, 4, Some(0.75)));
    assert_eq!(FailedRuns::default().rate(), None);
}

#[test]
fn ranks_know_ties_infinities_and_what_is_no_number() {
    assert_eq!(mid_ranks(&[0.0, f64::INFINITY, -0.0, f64::NEG_INFINITY]), [2.5, 4.0, 2.5, 1.0]);
    let ranks = mid_ranks(&[2.0, f64::NAN, 1.0]);
    assert_eq!((ranks[0], ranks[2]), (2.0, 1.0));
    assert!(ranks[1].is_nan() && mid_ranks(&[]).is_empty());
}

#[test]
fn a_perfect_correlation_is_certain_and_without_variation_there_is_none() {
    let found =
        spearman(&[(1.0, 9.0), (2.0, 7.0), (3.0, 5.0), (4.0, 1.0), (5.0, -2.0)]).expect("a correlation");
    assert_eq!((found.rho, found.p, found.count), (-1.0, 0.0, 5));
    assert_eq!(spearman(&[(1.0, 9.0), (2.0, 7.0)]), None);
    assert_eq!(spearman(&[(1.0, 9.0), (2.0, 9.0), (3.0, 9.0)]), None);
    assert_eq!(spearman(&[(1.0, 9.0), (2.0, 7.0), (3.0, f64::NAN)]), None);
    let infinite = spearman(&[(1.0, 9.0), (2.0, 7.0), (3.0, f64::NEG_INFINITY)]).expect("a correlation");
    assert_eq!(infinite.rho, -1.0);
}

#[test]
fn strategies_are_compared_over_two_blocks_or_more_that_are_whole_and_not_all_ties() {
    let found = friedman(&[vec![1.0, 2.0, 3.0], vec![10.0, 20.0, 30.0]]).expect("a test");
    assert_eq!((found.statistic, found.ranks, found.blocks), (4.0, vec![1.0, 2.0, 3.0], 2));
    // Two degrees of freedom: P(X > x) = exp(−x/2).
    close(found.p, (-2.0f64).exp(), 1e-14);
    let tie = friedman(&[vec![1.0, 1.0], vec![0.0, 3.0]]).expect("a test");
    assert_eq!((tie.statistic, tie.ranks), (1.0, vec![1.25, 1.75]));
    for blocks in [
        vec![],
        vec![vec![1.0, 2.0, 3.0]],
        vec![vec![1.0], vec![2.0]],
        vec![vec![1.0, 2.0], vec![1.0]],
        vec![vec![1.0, 2.0], vec![1.0, f64::NAN]],
        vec![vec![1.0, 1.0], vec![2.0, 2.0]],
    ] {
        assert_eq!(friedman(&blocks), None, "{blocks:?}");
    }
}

fn bits(sample: &Sample) -> Vec<u64> {
    let Some(s) = sample.summary() else { return Vec::new() };
    let (low, high) = s.ci95.unwrap_or_default();
    [s.mean, s.sd.unwrap_or(0.0), low, high, s.min, s.q1, s.median, s.q3, s.max, s.cv.unwrap_or(0.0)]
        .iter()
        .map(|value| value.to_bits())
        .chain([s.count, sample.skipped()])
        .collect()
}

/// Merges the parts pairwise in an order that `choices` decides: any tree can come out.
fn merge_in_some_tree(mut parts: Vec<Sample>, choices: &[usize]) -> Sample {
    let mut choices = choices.iter().cycle();
    while parts.len() > 1 {
        let at = |choice: Option<&usize>, len: usize| choice.copied().unwrap_or(0) % len;
        let part = parts.swap_remove(at(choices.next(), parts.len()));
        let into = at(choices.next(), parts.len());
        parts[into].merge(&part);
    }
    parts.pop().unwrap_or_default()
}

proptest! {
    #[test]
    fn any_order_and_any_tree_of_merges_gives_the_same_bits(
        values in prop::collection::vec(prop_oneof![-1e3..1e3f64, -1e-9..1e-9f64, Just(0.0), Just(-0.0), Just(f64::NAN)], 0..60),
        shuffled in prop::collection::vec(any::<u32>(), 60),
        cuts in prop::collection::vec(1usize..8, 60),
        choices in prop::collection::vec(any::<usize>(), 1..40),
    ) {
        let direct: Sample = values.iter().copied().collect();
        let mut keyed: Vec<(u32, f64)> = shuffled.iter().copied().zip(values.iter().copied()).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let mut rest: Vec<f64> = keyed.into_iter().map(|(_, value)| value).collect();
        let mut parts = Vec::new();
        for cut in cuts {
            let tail = rest.split_off(cut.min(rest.len()));
            parts.push(std::mem::replace(&mut rest, tail).into_iter().collect());
        }
        let merged = merge_in_some_tree(parts, &choices);
        prop_assert_eq!(bits(&merged), bits(&direct));
        prop_assert_eq!(merged, direct);
    }

    #[test]
    fn a_line_does_not_depend_on_the_order_of_points(points in prop::collection::vec((-10.0..10.0f64, -10.0..10.0f64), 2..30)) {
        let mut reversed = points.clone();
        reversed.reverse();
        prop_assert_eq!(ols(&points), ols(&reversed));
    }

    #[test]
    fn rank_statistics_do_not_depend_on_the_order_of_pairs_or_blocks(
        points in prop::collection::vec((-3..3i32, -10.0..10.0f64), 3..30),
        blocks in prop::collection::vec(prop::collection::vec(0..4i32, 5), 2..20),
    ) {
        let points: Vec<(f64, f64)> = points.into_iter().map(|(x, y)| (f64::from(x), y)).collect();
        let mut blocks: Vec<Vec<f64>> = blocks.into_iter().map(|b| b.into_iter().map(f64::from).collect()).collect();
        let reversed: Vec<(f64, f64)> = points.iter().rev().copied().collect();
        prop_assert_eq!(spearman(&points), spearman(&reversed));
        let found = friedman(&blocks);
        blocks.reverse();
        prop_assert_eq!(friedman(&blocks), found);
    }

    #[test]
    fn the_mean_and_quartiles_lie_between_the_ends(values in prop::collection::vec(-1e6..1e6f64, 1..50)) {
        let s = values.into_iter().collect::<Sample>().summary().expect("summary");
        prop_assert!(s.min <= s.q1 && s.q1 <= s.median && s.median <= s.q3 && s.q3 <= s.max);
        prop_assert!(s.mean >= s.min - 1e-9 && s.mean <= s.max + 1e-9);
    }

    #[test]
    fn quantile_and_probability_undo_each_other(p in 0.01..0.99f64, degrees in 1.0..200.0f64) {
        prop_assert!((student_t_cdf(student_t_quantile(p, degrees), degrees) - p).abs() < 1e-12);
    }
}
