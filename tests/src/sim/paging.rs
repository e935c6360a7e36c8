//! The CPUs' memory management units: registers, TLBs, and interrupts that ask for a flush.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::addr::{PhysAddr, VirtAddr, VirtRange};
use mm::platform::{CpuId, TlbFeatures, TlbFlush, TlbStep};

use super::Ram;
use super::mmu::{Access, Fault, Registers};
use super::tlb::{Generations, Invpcid, Tlb};

/// One CPU's.
#[derive(Debug, Default)]
struct Unit {
    /// Nothing as long as paging is off.
    state: Mutex<Option<(Registers, Tlb)>>,
    /// Somebody wants it to flush.
    is_kicked: AtomicBool,
}

/// Those of a machine.
#[derive(Debug)]
pub(super) struct Paging {
    pub(super) generations: Generations,
    units: Vec<Unit>,
    kicks: AtomicU64,
}

impl Paging {
    /// Of a machine with so many CPUs, and frames below `limit`.
    pub(super) fn new(cpus: u32, limit: u64) -> Self {
        Self {
            generations: Generations::new(limit),
            units: (0..cpus).map(|_| Unit::default()).collect(),
            kicks: AtomicU64::new(0),
        }
    }

    fn unit(&self, cpu: CpuId) -> &Unit {
        &self.units[cpu.0 as usize]
    }

    pub(super) fn switch_on(&self, registers: Registers, permanent: VirtRange) {
        self.generations.set_permanent(permanent);
        for unit in &self.units {
            *unit.state.lock().unwrap() = Some((registers, Tlb::default()));
        }
    }

    pub(super) fn is_on(&self) -> bool {
        let is_on = |unit: &Unit| unit.state.lock().unwrap().is_some();
        self.units.iter().any(is_on)
    }

    pub(super) fn touch(
        &self,
        ram: &Ram,
        cpu: CpuId,
        addr: VirtAddr,
        access: Access,
    ) -> Result<PhysAddr, Fault> {
        let mut state = self.unit(cpu).state.lock().unwrap();
        let (registers, tlb) = state.as_mut().expect("paging is on");
        tlb.access((ram, &self.generations), registers, addr, access)
    }

    pub(super) fn with<R>(
        &self,
        cpu: CpuId,
        body: impl FnOnce(&mut Registers, &mut Tlb) -> R,
    ) -> R {
        let mut state = self.unit(cpu).state.lock().unwrap();
        let (registers, tlb) = state.as_mut().expect("paging is on");
        body(registers, tlb)
    }

    /// What a CPU has for forgetting; nothing as long as paging is off.
    pub(super) fn features(&self, cpu: CpuId) -> TlbFeatures {
        let state = self.unit(cpu).state.lock().unwrap();
        let features = state
            .as_ref()
            .map(|(registers, _)| registers.tlb_features());
        features.unwrap_or_default()
    }

    /// Forgets translations as a kernel does, step by step.
    pub(super) fn flush(&self, cpu: CpuId, what: TlbFlush) {
        let mut state = self.unit(cpu).state.lock().unwrap();
        let Some((registers, tlb)) = state.as_mut() else {
            return;
        };
        for step in registers.tlb_features().steps(what) {
            match step {
                TlbStep::Page(page) => tlb.invlpg(registers, page),
                TlbStep::Everything => tlb.invpcid(registers, Invpcid::AllWithGlobals),
                TlbStep::TogglePge => {
                    let was = registers.pge;
                    tlb.set_pge(registers, !was);
                    tlb.set_pge(registers, was);
                }
                TlbStep::ReloadCr3 => tlb.load_cr3(registers, registers.cr3),
            }
        }
    }

    pub(super) fn kick(&self, cpu: CpuId) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
        self.unit(cpu).is_kicked.store(true, Ordering::Release);
    }

    pub(super) fn is_kicked(&self, cpu: CpuId) -> bool {
        self.unit(cpu).is_kicked.swap(false, Ordering::Acquire)
    }

    pub(super) fn kicks(&self) -> u64 {
        self.kicks.load(Ordering::Relaxed)
    }

    /// O8, of all CPUs.
    pub(super) fn check(&self, ram: &Ram) -> Result<(), String> {
        for (cpu, unit) in self.units.iter().enumerate() {
            let state = unit.state.lock().unwrap();
            let Some((registers, tlb)) = state.as_ref() else {
                continue;
            };
            let checked = tlb.check((ram, &self.generations), registers);
            checked.map_err(|error| format!("CPU {cpu}: {error}"))?;
        }
        Ok(())
    }
}
