//! What CPUs have copies of.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::kspace::percpu::PerCpuMemory;
use crate::kspace::percpu::front::{Front, Gauges};
use crate::platform::{NodeId, Platform};
use crate::sync::{OwnerCell, PerCpu};

impl<P: Platform> Builder<'_, P> {
    /// What there are copies of for each CPU: nothing yet.
    pub(super) fn percpu(&mut self) -> Result<PerCpuMemory, BringUpError> {
        let cell = |_| OwnerCell::new(Front::new(), Gauges::default());
        let fronts = self.by_cpu(NodeId(0), cell)?;
        Ok(PerCpuMemory::new(fronts.len(), PerCpu::new(fronts)))
    }
}
