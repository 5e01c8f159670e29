//! Whether the machine has room for a dataset. Asked before one is drawn, because an allocation that fails in the middle
//! would end the process, and one that the kernel promised and cannot keep would have it killed.

use std::fs;

use evenkeel_common::trial::SyntheticConfig;

use super::DataError;

/// Where a container's limit is found: cgroup v2, then v1.
const CONTAINER_LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Bytes of memory of this machine or container, where that can be known.
fn memory() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
        line.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let limit = CONTAINER_LIMITS.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    total.into_iter().chain(limit).min()
}

/// Bytes of the inputs of both sets.
fn bytes(config: &SyntheticConfig) -> u64 {
    4 * u64::from(config.features) * (u64::from(config.samples) + u64::from(config.test_samples))
}

/// Whether both sets of a synthetic dataset can be held.
///
/// # Errors
/// When they need more than the machine has, or more than this process may have.
pub fn check(config: &SyntheticConfig) -> Result<(), DataError> {
    let needed = bytes(config);
    let holds = memory().is_none_or(|memory| needed <= memory) && {
        let mut probe: Vec<u8> = Vec::new();
        usize::try_from(needed).is_ok_and(|needed| probe.try_reserve_exact(needed).is_ok())
    };
    if holds {
        return Ok(());
    }
    let SyntheticConfig { samples, test_samples, features, .. } = config;
    Err(DataError::TooLarge(format!(
        "{samples} + {test_samples} samples of {features} features take {:.1} GB, more than this worker can have",
        needed as f64 / 1e9
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_machine_is_known() {
        assert!(memory().is_some_and(|bytes| (1 << 28..1 << 48).contains(&bytes)), "{:?}", memory());
    }
}
