//! Which device a worker computes on.

use std::fmt;
use std::sync::Once;

use crate::engine::EngineError;

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// One core of the CPU.
    Cpu,
    /// A GPU, by its number.
    Cuda(usize),
}

/// A device that was asked for and is none, or is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not the name of a device.
    #[error("found device `{0}`; allowed: auto, cpu, cuda, cuda:N")]
    Unknown(String),
    /// A GPU that is not there.
    #[error("device {wanted} is not there: libtorch sees {found} GPUs")]
    Missing {
        /// What was asked for.
        wanted: Device,
        /// How many there are.
        found: i64,
    },
}

impl Device {
    /// From its name: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one and else the CPU.
    ///
    /// # Errors
    /// When it is no device, or is not there.
    pub fn parse(name: &str) -> Result<Self, DeviceError> {
        prepare();
        let device = match name {
            "cpu" => return Ok(Self::Cpu),
            "auto" if gpus() == 0 => return Ok(Self::Cpu),
            "auto" | "cuda" => Self::Cuda(0),
            _ => match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => Self::Cuda(number),
                None => return Err(DeviceError::Unknown(name.to_owned())),
            },
        };
        match device {
            Self::Cuda(number) if number as i64 >= gpus() => {
                Err(DeviceError::Missing { wanted: device, found: gpus() })
            }
            device => Ok(device),
        }
    }

    /// Whether it is the CPU.
    #[must_use]
    pub fn is_cpu(self) -> bool {
        self == Self::Cpu
    }

    /// As libtorch names it.
    #[must_use]
    pub fn tch_device(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(number) => tch::Device::Cuda(number),
        }
    }

    /// What it is, for results: `cpu: AMD EPYC …`, with the instructions the engine's kernels use (bits may differ between
    /// CPU families), or the GPU's number and name.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Cpu => {
                let kernels = match crate::engine::kernel::instructions() {
                    crate::engine::kernel::Instructions::Avx512 => ", avx512",
                    crate::engine::kernel::Instructions::Avx2 => ", avx2",
                    crate::engine::kernel::Instructions::Baseline => "",
                };
                format!("cpu: {}{kernels}", cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()))
            }
            Self::Cuda(number) => match gpu_model(number) {
                Some(model) => format!("cuda:{number}: {model}"),
                None => format!("cuda:{number}"),
            },
        }
    }

    /// Makes sure that it is there and set up.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(self) -> Result<(), EngineError> {
        prepare();
        match self {
            Self::Cuda(number) if number as i64 >= gpus() => {
                Err(EngineError::Device(DeviceError::Missing { wanted: self, found: gpus() }.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Makes CUDA known to libtorch where it is there, once a process, and keeps libtorch to one thread. One process with one
/// thread a core does more than one process with many threads (measured: 2 × 1,370 against 1,960 trials/s on two cores).
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        open_cuda();
        tch::set_num_interop_threads(1);
    });
    // Of the calling thread, so each engine's thread says it for itself.
    tch::set_num_threads(1);
}

fn gpus() -> i64 {
    prepare();
    tch::Cuda::device_count()
}

/// Opens `libtorch_cuda.so` beside the libtorch that is loaded, or wherever the loader finds it. libtorch registers its
/// CUDA half when that library is loaded; a binary that was linked on a machine without it does not do so by itself.
#[cfg(target_os = "linux")]
fn open_cuda() {
    use std::ffi::{CString, c_char, c_int, c_void};
    unsafe extern "C" {
        fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    }
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;
    let beside = loaded_from("libtorch_cpu.so").map(|path| path.with_file_name("libtorch_cuda.so"));
    let Some(path) = beside.filter(|path| path.exists()) else { return };
    let Some(name) = path.to_str().and_then(|path| CString::new(path).ok()) else { return };
    // SAFETY: a null-terminated path and valid flags. The library's initialisers are libtorch's own; it is never closed.
    let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    if handle.is_null() {
        tracing::warn!(path = %path.display(), "libtorch_cuda.so could not be opened: no GPU will be used");
    }
}

#[cfg(not(target_os = "linux"))]
fn open_cuda() {}

/// Where a library of this process was loaded from.
#[cfg(target_os = "linux")]
fn loaded_from(library: &str) -> Option<std::path::PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}"));
    path.map(std::path::PathBuf::from).find(|path| path.file_name().is_some_and(|name| name == library))
}

/// Model of the CPU.
fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

/// Model of a GPU, from the driver's files: libtorch's C interface does not tell.
fn gpu_model(number: usize) -> Option<String> {
    let mut folders: Vec<_> =
        std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?.flatten().map(|e| e.path()).collect();
    folders.sort();
    let info = std::fs::read_to_string(folders.get(number)?.join("information")).ok()?;
    let line = info.lines().find(|line| line.starts_with("Model:"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_others_refused() {
        assert_eq!(Device::parse("cpu"), Ok(Device::Cpu));
        assert!(Device::parse("auto").is_ok());
        assert!(matches!(Device::parse("gpu"), Err(DeviceError::Unknown(_))));
        assert!(matches!(Device::parse("cuda:x"), Err(DeviceError::Unknown(_))));
        assert!(matches!(Device::parse("cuda:4000"), Err(DeviceError::Missing { .. })));
        assert!(Device::Cpu.describe().starts_with("cpu: "));
    }
}
