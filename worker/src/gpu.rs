//! What the driver of a GPU says of it, by NVIDIA's management library; nothing where there is none.

use std::env;
use std::fmt;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use crate::device::Device;

/// A GPU that can be asked how it is.
pub struct Gpu {
    nvml: Nvml,
    name: Name,
}

/// How the driver finds it. `CUDA_VISIBLE_DEVICES` hides and renumbers GPUs for CUDA, but not for the driver.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Index(u32),
    Uuid(String),
}

/// How it is; what its driver does not say is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Health {
    /// Share of the last second or so in which something ran on it, from 0 to 1.
    pub utilization: Option<f64>,
    /// Memory in use, of all processes, in bytes.
    pub memory_used: Option<f64>,
    /// Memory that there is, in bytes.
    pub memory_total: Option<f64>,
    /// In degrees Celsius.
    pub temperature: Option<f64>,
    /// In watts.
    pub power: Option<f64>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.name).finish()
    }
}

impl Gpu {
    /// The GPU of a device; none on a CPU, or where the driver does not answer.
    #[must_use]
    pub fn open(device: Device) -> Option<Self> {
        let Device::Cuda(index) = device else { return None };
        let visible = env::var("CUDA_VISIBLE_DEVICES").ok();
        let name = Name::of(index, visible.as_deref())?;
        let nvml = Nvml::init();
        let opened = nvml.and_then(|nvml| {
            let gpu = Self { nvml, name };
            gpu.device().map(drop)?;
            Ok(gpu)
        });
        opened
            .inspect_err(|error| tracing::warn!(%error, "no metrics of the gpu: its driver does not answer"))
            .ok()
    }

    fn device(&self) -> Result<NvmlDevice<'_>, NvmlError> {
        match &self.name {
            Name::Index(index) => self.nvml.device_by_index(*index),
            Name::Uuid(uuid) => self.nvml.device_by_uuid(uuid.as_str()),
        }
    }

    /// How it is now.
    #[must_use]
    pub fn health(&self) -> Health {
        let Ok(device) = self.device() else { return Health::default() };
        let memory = device.memory_info().ok();
        Health {
            utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used: memory.as_ref().map(|memory| memory.used as f64),
            memory_total: memory.as_ref().map(|memory| memory.total as f64),
            temperature: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            power: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        }
    }
}

impl Name {
    /// Of the GPU that CUDA counts as this one, among those that are visible to it.
    fn of(index: usize, visible: Option<&str>) -> Option<Self> {
        let Some(visible) = visible.filter(|list| !list.trim().is_empty()) else {
            return u32::try_from(index).ok().map(Self::Index);
        };
        let name = visible.split(',').nth(index)?.trim();
        match name.parse() {
            Ok(index) => Some(Self::Index(index)),
            Err(_) => name.starts_with("GPU-").then(|| Self::Uuid(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_asked_for_the_gpu_that_cuda_uses() {
        assert_eq!(Name::of(1, None), Some(Name::Index(1)));
        assert_eq!(Name::of(1, Some("")), Some(Name::Index(1)));
        assert_eq!(Name::of(0, Some("3")), Some(Name::Index(3)));
        assert_eq!(Name::of(1, Some("3, 5")), Some(Name::Index(5)));
        assert_eq!(Name::of(0, Some("GPU-8932f937")), Some(Name::Uuid("GPU-8932f937".to_owned())));
        assert_eq!(Name::of(2, Some("3,5")), None);
        assert_eq!(Name::of(0, Some("MIG-1")), None, "a part of a GPU has no health of its own");
    }

    #[test]
    fn a_cpu_has_none() {
        assert!(Gpu::open(Device::Cpu).is_none());
    }
}
