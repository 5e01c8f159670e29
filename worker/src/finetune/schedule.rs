//! Step sizes over the steps of one fine-tuning run.

use evenkeel_common::spec::Schedule;

/// The step size of a step, counted from 0: base·step/warmup_steps during the warm-up (so the first step of a run that
/// warms up has rate 0, as in Hugging Face's transformers), and after it, with r the share of the steps after the warm-up
/// that are done, base (constant), base·(1 − r) (linear) or base·(1 + cos πr)/2 (cosine): transformers'
/// `get_{constant,linear,cosine}_schedule_with_warmup`.
///
/// From `total` on, linear is 0; cosine is not cut there and would rise again, also as in transformers.
#[must_use]
pub fn rate(schedule: Schedule, base: f64, step: u64, warmup_steps: u64, total: u64) -> f64 {
    if step < warmup_steps {
        return base * (step as f64 / warmup_steps as f64);
    }
    let length = total.saturating_sub(warmup_steps).max(1) as f64;
    let factor = match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => total.saturating_sub(step) as f64 / length,
        Schedule::Cosine => {
            let done = (step - warmup_steps) as f64 / length;
            // From `libm`, so that the bits do not depend on the machine's C library.
            (0.5 * (1.0 + libm::cos(std::f64::consts::PI * done))).max(0.0)
        }
    };
    base * factor
}
