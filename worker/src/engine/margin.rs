//! The exact hard margin of a training set: Wolfe's minimum-norm-point algorithm, in f64.
//!
//! The maximal margin of a linear separator through the origin is the distance of the origin to a convex hull (the dual
//! of the hard-margin problem; Bennett & Bredensteiner, *Duality and Geometry in SVM Classifiers*, ICML 2000):
//!
//! - two classes: the hull of `{s_i·x_i}`, s_i = ±1; γ is the geometric margin, `min_i s_i⟨w, x_i⟩/‖w‖`;
//! - C > 2 classes (Crammer & Singer 2001): the hull of `{e_{y_i}⊗x_i − e_c⊗x_i : c ≠ y_i}` in R^{C·d}; γ is
//!   `min_{i,c} ⟨w_{y_i} − w_c, x_i⟩/‖W‖_F`. These vectors are never formed.
//!
//! The point of least norm is itself the direction of the maximal-margin separator. With a bias, the inputs have a
//! constant feature 1, and the margin is that of the lifted points.

use super::matrix::dot64;

/// A separator is accepted when `1 − (γ found for it)/(bound from the dual)` is at most this.
pub const ACCEPTED_GAP: f64 = 1e-7;
/// The iteration stops when that gap is at most this.
const WANTED_GAP: f64 = 1e-11;
/// Below this share of the largest norm, a margin cannot be told from zero.
pub const ZERO_MARGIN: f64 = 1e-7;
/// Operations after which the solver gives up: about 10 s on one core.
const OPERATION_LIMIT: f64 = 1e10;

/// What is known of the hard margin of a training set.
#[derive(Clone, Debug, PartialEq)]
pub enum HardMargin {
    /// γ with its separator.
    Separable {
        /// γ.
        margin: f64,
        /// The separator's direction, of norm 1: [d] for two classes, [C, d] row-major for more.
        direction: Vec<f64>,
        /// Greatest dual variable of a sample in the hard-margin problem `min ½‖w‖², margins ≥ 1`, with more than two classes
        /// the sum of its variables over the other classes. The soft-margin problem with the regulariser λ has the same
        /// solution from λ = 1/(n·α_max) downwards, as its dual variables are bounded by 1/(λn).
        dual_max: f64,
        /// Samples with a dual variable that is not zero in the solution found. Without any other sample it stays the solution.
        support: u32,
        /// B, the greatest norm of a sample.
        norm: f64,
    },
    /// The origin lies in the hull: no linear head separates the training set, or only with a margin below
    /// [`ZERO_MARGIN`] of the largest norm.
    NotSeparable,
    /// The solver did not reach its tolerance.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Solves for the hard margin of n points of d features (row-major) with classes below `classes`.
#[must_use]
pub fn hard_margin(x: &[f64], y: &[u32], d: usize, classes: usize) -> HardMargin {
    let points = Points { x, y, d, classes };
    let scale = (0..y.len()).map(|i| dot64(points.row(i), points.row(i))).fold(0.0, f64::max).sqrt();
    if y.is_empty() || !scale.is_finite() {
        return HardMargin::Unknown { reason: "the training set is empty or not finite".to_owned() };
    }
    // A vector of more than two classes is √2 times as long as its input.
    let length = if classes == 2 { scale } else { scale * std::f64::consts::SQRT_2 };
    if scale == 0.0 {
        return HardMargin::NotSeparable;
    }
    Wolfe::new(points, length).solve(scale)
}

/// One vector of the hull: a sample, and the class it is told from (unused for two classes).
#[derive(Clone, Copy, PartialEq)]
struct Vertex {
    sample: usize,
    other: u32,
}

#[derive(Clone, Copy)]
struct Points<'a> {
    x: &'a [f64],
    y: &'a [u32],
    d: usize,
    classes: usize,
}

impl Points<'_> {
    fn row(&self, i: usize) -> &[f64] {
        &self.x[i * self.d..][..self.d]
    }

    /// Numbers of a separator.
    fn dims(&self) -> usize {
        if self.classes == 2 { self.d } else { self.d * self.classes }
    }

    fn sign(&self, i: usize) -> f64 {
        if self.y[i] == 1 { 1.0 } else { -1.0 }
    }

    /// Inner product of two vertices.
    fn inner(&self, a: Vertex, b: Vertex) -> f64 {
        let product = dot64(self.row(a.sample), self.row(b.sample));
        let factor = if self.classes == 2 {
            self.sign(a.sample) * self.sign(b.sample)
        } else {
            let (ya, yb) = (self.y[a.sample], self.y[b.sample]);
            let same = |p: u32, q: u32| f64::from(u8::from(p == q));
            same(ya, yb) - same(ya, b.other) - same(a.other, yb) + same(a.other, b.other)
        };
        factor * product
    }

    /// Adds `weight` times a vertex to `w`.
    fn add(&self, vertex: Vertex, weight: f64, w: &mut [f64]) {
        let row = self.row(vertex.sample);
        let mut axpy = |at: usize, factor: f64| {
            w[at * self.d..][..self.d].iter_mut().zip(row).for_each(|(w, x)| *w += factor * x);
        };
        if self.classes == 2 {
            axpy(0, weight * self.sign(vertex.sample));
        } else {
            axpy(self.y[vertex.sample] as usize, weight);
            axpy(vertex.other as usize, -weight);
        }
    }

    /// The vertex with the least product with `w`, and that product: the worst margin times ‖w‖.
    fn lowest(&self, w: &[f64]) -> (Vertex, f64) {
        let mut best = (Vertex { sample: 0, other: 0 }, f64::INFINITY);
        let mut logits = vec![0.0; self.classes];
        for i in 0..self.y.len() {
            let row = self.row(i);
            if self.classes == 2 {
                let product = self.sign(i) * dot64(row, w);
                if product < best.1 {
                    best = (Vertex { sample: i, other: 1 - self.y[i].min(1) }, product);
                }
                continue;
            }
            for (logit, w) in logits.iter_mut().zip(w.chunks_exact(self.d)) {
                *logit = dot64(row, w);
            }
            let own = logits[self.y[i] as usize];
            for (class, logit) in logits.iter().enumerate() {
                if class != self.y[i] as usize && own - logit < best.1 {
                    best = (Vertex { sample: i, other: class as u32 }, own - logit);
                }
            }
        }
        best
    }
}

/// Wolfe's algorithm (P. Wolfe, *Finding the nearest point in a polytope*, Mathematical Programming 11, 1976), with the
/// Cholesky factor of `11ᵀ + PᵀP` over the active vertices P (their vectors divided by `scale`).
struct Wolfe<'a> {
    points: Points<'a>,
    scale: f64,
    active: Vec<Vertex>,
    weights: Vec<f64>,
    factor: Cholesky,
    operations: f64,
}

impl<'a> Wolfe<'a> {
    fn new(points: Points<'a>, scale: f64) -> Self {
        Self {
            points,
            scale,
            active: Vec::new(),
            weights: Vec::new(),
            factor: Cholesky::default(),
            operations: 0.0,
        }
    }

    fn solve(mut self, norm: f64) -> HardMargin {
        let Some(start) = self.shortest() else {
            return HardMargin::Unknown { reason: "there is only one class".to_owned() };
        };
        self.push(start);
        self.weights = vec![1.0];
        let pass = 2.0
            * self.points.x.len() as f64
            * if self.points.classes == 2 { 1.0 } else { self.points.classes as f64 };
        loop {
            let w = self.point();
            let square = dot64(&w, &w);
            if square.sqrt() <= ZERO_MARGIN * self.scale {
                return HardMargin::NotSeparable;
            }
            let (lowest, product) = self.points.lowest(&w);
            // ⟨w, p⟩ ≥ product for all vertices: w separates with margin product/‖w‖, and none has more than ‖w‖.
            let gap = 1.0 - product / square;
            let stalled = self.active.contains(&lowest);
            self.operations += pass;
            if gap <= WANTED_GAP || (stalled && gap <= ACCEPTED_GAP) {
                return self.separable(&w, square, product, norm);
            }
            let reason = if stalled {
                Some("rounding")
            } else if self.operations > OPERATION_LIMIT {
                Some("the limit of operations")
            } else if !self.push(lowest) {
                Some("nearly dependent points")
            } else {
                None
            };
            if let Some(what) = reason {
                // Nearly dependent points and a short w: the hull reaches the origin as far as f64 can tell.
                if gap <= ACCEPTED_GAP {
                    return self.separable(&w, square, product, norm);
                }
                let reason = format!("{what} stopped the hard-margin solver at a relative gap of {gap:.1e}");
                return HardMargin::Unknown { reason };
            }
            self.weights.push(0.0);
            self.descend();
        }
    }

    /// What is known once `w`, of norm √`square`, is optimal: ŵ = w/γ² = Σ (weight/γ²)·vertex.
    fn separable(&self, w: &[f64], square: f64, product: f64, norm: f64) -> HardMargin {
        let length = square.sqrt();
        let mut shares: Vec<(usize, f64)> =
            self.active.iter().map(|vertex| vertex.sample).zip(self.weights.iter().copied()).collect();
        shares.sort_unstable_by_key(|(sample, _)| *sample);
        let of_samples: Vec<f64> =
            shares.chunk_by(|a, b| a.0 == b.0).map(|all| all.iter().map(|(_, w)| w).sum()).collect();
        let dual_max = of_samples.iter().copied().fold(0.0, f64::max) / square;
        let support = of_samples.len() as u32;
        let direction = w.iter().map(|v| v / length).collect();
        HardMargin::Separable { margin: product / length, direction, dual_max, support, norm }
    }

    /// The minor cycles: moves to the point of least norm in the affine hull of the active vertices, dropping those
    /// whose weights would become negative on the way.
    fn descend(&mut self) {
        loop {
            let target = self.factor.affine_weights();
            let k = target.len() as f64;
            self.operations += 2.0 * k * k;
            const POSITIVE: f64 = 1e-14;
            if target.iter().all(|weight| *weight > POSITIVE) {
                self.weights = target;
                return;
            }
            let mut step = 1.0f64;
            for (now, then) in self.weights.iter().zip(&target) {
                if *then <= POSITIVE && now - then > 0.0 {
                    step = step.min(now / (now - then));
                }
            }
            for (now, then) in self.weights.iter_mut().zip(&target) {
                *now += step * (then - *now);
            }
            // At least one weight is zero now; rounding may hide it, so the least one always goes.
            let least = (0..self.weights.len()).min_by(|a, b| self.weights[*a].total_cmp(&self.weights[*b]));
            for at in (0..self.weights.len()).rev() {
                if (self.weights[at] <= POSITIVE || Some(at) == least) && self.weights.len() > 1 {
                    self.weights.remove(at);
                    self.active.remove(at);
                    self.factor.remove(at);
                    self.operations += 3.0 * k * k;
                }
            }
            let sum: f64 = self.weights.iter().sum();
            self.weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }

    /// The vertex nearest to the origin.
    fn shortest(&self) -> Option<Vertex> {
        let first = *self.points.y.first()?;
        if self.points.y.iter().all(|class| *class == first) && self.points.classes > 2 {
            return None;
        }
        (0..self.points.y.len())
            .min_by(|a, b| {
                let square = |i: usize| dot64(self.points.row(i), self.points.row(i));
                square(*a).total_cmp(&square(*b))
            })
            .map(|sample| Vertex { sample, other: if self.points.y[sample] == 0 { 1 } else { 0 } })
    }

    /// The current point, Σ weight·vertex.
    fn point(&self) -> Vec<f64> {
        let mut w = vec![0.0; self.points.dims()];
        for (vertex, weight) in self.active.iter().zip(&self.weights) {
            self.points.add(*vertex, *weight, &mut w);
        }
        w
    }

    /// Makes a vertex active; false if it lies in the affine hull of those that are, up to rounding.
    fn push(&mut self, vertex: Vertex) -> bool {
        let norm = self.scale * self.scale;
        let inner: Vec<f64> =
            self.active.iter().map(|other| 1.0 + self.points.inner(*other, vertex) / norm).collect();
        self.operations += (self.active.len() * (2 * self.points.d + self.active.len())) as f64;
        let own = 1.0 + self.points.inner(vertex, vertex) / norm;
        let independent = self.factor.push(inner, own);
        if independent {
            self.active.push(vertex);
        }
        independent
    }
}

/// An upper triangular R with RᵀR = A, column by column, kept up as rows and columns of A come and go.
#[derive(Default)]
struct Cholesky {
    columns: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Appends a row and column to A: its products with the earlier ones, and its own square. False, with nothing done,
    /// when A would become singular.
    fn push(&mut self, mut column: Vec<f64>, own: f64) -> bool {
        for j in 0..column.len() {
            let r = &self.columns[j];
            column[j] = (column[j] - dot64(&r[..j], &column[..j])) / r[j];
        }
        let rest = own - dot64(&column, &column);
        if rest <= 1e-13 * own {
            return false;
        }
        column.push(rest.sqrt());
        self.columns.push(column);
        true
    }

    /// Drops a row and column of A, restoring the triangle by Givens rotations.
    fn remove(&mut self, at: usize) {
        self.columns.remove(at);
        for k in at..self.columns.len() {
            let (a, b) = (self.columns[k][k], self.columns[k][k + 1]);
            let norm = a.hypot(b);
            let (cos, sin) = (a / norm, b / norm);
            for column in &mut self.columns[k..] {
                let (upper, lower) = (column[k], column[k + 1]);
                column[k] = cos * upper + sin * lower;
                column[k + 1] = cos * lower - sin * upper;
            }
            self.columns[k].truncate(k + 1);
        }
    }

    /// Solves A·u = 1 and scales u to sum 1: the weights of the point of least norm in the affine hull.
    fn affine_weights(&self) -> Vec<f64> {
        let k = self.columns.len();
        let mut u = vec![1.0; k];
        for j in 0..k {
            let r = &self.columns[j];
            u[j] = (u[j] - dot64(&r[..j], &u[..j])) / r[j];
        }
        for j in (0..k).rev() {
            let r = &self.columns[j];
            u[j] /= r[j];
            let value = u[j];
            u[..j].iter_mut().zip(r).for_each(|(u, r)| *u -= value * r);
        }
        let sum: f64 = u.iter().sum();
        u.iter_mut().for_each(|value| *value /= sum);
        u
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margin_of(found: &HardMargin) -> f64 {
        match found {
            HardMargin::Separable { margin, .. } => *margin,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_points_have_the_margin_of_their_bisector() {
        // With the constant feature: w = (2, 0, 0)/… by symmetry, margin 1 in the first feature.
        let x = [1.0, 5.0, 1.0, -1.0, 5.0, 1.0];
        let found = hard_margin(&x, &[1, 0], 3, 2);
        assert!((margin_of(&found) - 1.0).abs() < 1e-12);
        let HardMargin::Separable { direction, dual_max, norm, .. } = found else { unreachable!() };
        assert!((direction[0] - 1.0).abs() < 1e-12 && direction[1].abs() < 1e-12);
        // ŵ = (1, 0, 0) = ½·(1, 5, 1) + ½·(1, −5, −1).
        assert!((dual_max - 0.5).abs() < 1e-12 && (norm - 27f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn dual_variables_of_orthogonal_points_are_their_inverse_squares() {
        // Points a_i·e_i: ŵ = Σ ±e_i/a_i = Σ (1/a_i²)·(±a_i·e_i).
        let sizes = [2.0, 0.5, 4.0, 1.0];
        let mut x = vec![0.0; 16];
        sizes.iter().enumerate().for_each(|(i, a)| x[5 * i] = *a);
        let HardMargin::Separable { dual_max, support, norm, .. } = hard_margin(&x, &[1, 0, 0, 1], 4, 2)
        else {
            panic!("not separable")
        };
        assert!((dual_max - 4.0).abs() < 1e-9 && norm == 4.0, "{dual_max}, {norm}");
        assert_eq!(support, 4);
        // A point far from the boundary supports nothing.
        x.extend([9.0, 9.0, 9.0, 9.0]);
        let far = hard_margin(&x, &[1, 1, 1, 1, 1], 4, 2);
        assert!(matches!(far, HardMargin::Separable { support: 4, .. }), "{far:?}");
        x.truncate(16);
        // Three classes: ‖ŵ‖² = Σ α and 1/γ² are one number, so no sample has more than it.
        let HardMargin::Separable { dual_max, margin, .. } = hard_margin(&x, &[0, 1, 2, 1], 4, 3) else {
            panic!("not separable")
        };
        assert!(dual_max > 0.0 && dual_max < 1.0 / (margin * margin), "{dual_max}, {margin}");
    }

    #[test]
    fn two_classes_as_many_differ_by_the_square_root_of_two() {
        // Crammer–Singer with W = (−w/2, w/2) has ‖W‖_F = ‖w‖/√2.
        let x = [1.0, 0.3, 2.0, -0.2, -1.0, 0.4, -1.5, 0.1];
        let y = [1, 1, 0, 0];
        let two = margin_of(&hard_margin(&x, &y, 2, 2));
        let three = margin_of(&hard_margin(&x, &y, 2, 3));
        // The third class has no sample, but each sample is told from it as well.
        assert!(three <= two * std::f64::consts::SQRT_2 + 1e-12);
        assert!(three > 0.0);
    }

    #[test]
    fn opposite_points_of_one_class_are_not_separable() {
        assert_eq!(hard_margin(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0], &[1, 1, 0], 2, 2), HardMargin::NotSeparable);
        assert_eq!(hard_margin(&[0.0, 0.0], &[1, 0], 1, 2), HardMargin::NotSeparable);
    }

    #[test]
    fn duplicates_do_not_disturb() {
        let once = [1.0, 0.3, 2.0, -0.2, -1.0, 0.4, -1.5, 0.1];
        let twice: Vec<f64> = once.iter().chain(&once).copied().collect();
        let a = margin_of(&hard_margin(&once, &[1, 1, 0, 0], 2, 2));
        let b = margin_of(&hard_margin(&twice, &[1, 1, 0, 0, 1, 1, 0, 0], 2, 2));
        assert!((a - b).abs() < 1e-12);
    }
}
