//! The memory core in this kernel: the machine as `mm` sees it, and the way from the boot
//! loader's map to pages.

use core::arch::x86_64::__cpuid;
use core::fmt;
use core::ptr::NonNull;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::addr::{DirectMap, PhysAddr, PhysRange, VirtAddr};
use mm::mem::RamClaim;
use mm::memblock::firmware::{EfiAttributes, FirmwareKind, FirmwareRegion};
use mm::memblock::params::Params;
use mm::memblock::setup::{LowMemory, SetupPolicy, add_firmware_map};
use mm::memblock::{INLINE_REGIONS, Memblock};
use mm::platform::{CpuId, IrqState, Platform};
use mm::report::Corruption;
use mm::sync::Once;
use mm::system::{Memory, Options, Summary};
use mm::zone::plan::{CoreWish, NodePlan, Plan};
use x86_64::instructions::interrupts;

use crate::console::{Status, exit, say};

/// The machine under `mm`.
pub(crate) struct Machine {
    direct_map: Once<DirectMap>,
}

/// All memory of this machine.
pub(crate) static MEMORY: Memory<Machine> = Memory::new(Machine {
    direct_map: Once::new(),
});

// SAFETY: (1, 2) `direct_map` is filled once, with RAM that the boot loader mapped for good; who
// may use which part of it is the claim's affair, below; (3) `cli` masks interrupts, and nothing
// moves a task; (4, 8, 9) there is one CPU, which does one thing after the other; (5, 6, 7) the
// defaults promise nothing.
unsafe impl Platform for Machine {
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.direct_map.get()?.phys_to_virt(range)
    }

    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.direct_map.get()?.virt_to_phys(addr)
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(0)
    }

    fn irq_save(&self) -> IrqState {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        IrqState::new(were_on.into())
    }

    fn irq_restore(&self, state: IrqState) {
        if state.flags() != 0 {
            interrupts::enable();
        }
    }

    fn corruption(&self, report: &Corruption) {
        say!("memory corruption: {report}");
    }
}

/// From the boot loader's map to a page allocator. To be called once.
pub(crate) fn bring_up(info: &BootInfo) -> Summary {
    let platform = MEMORY.platform();
    // The regions are disjoint: one that finds no place here is merely not used.
    let mut map = [FirmwareRegion::default(); 256];
    for (entry, region) in map.iter_mut().zip(info.memory_regions.iter()) {
        *entry = firmware_region(region);
    }
    let map = &map[..info.memory_regions.len().min(map.len())];

    // SAFETY: (1) only what the loader calls RAM is added, all of which it mapped; (2) what is in
    // use is reserved right here, before the first allocation; (3) `tell_direct_map` stops a
    // second run before it allocates; (4) none of the three is called; (5) there is one machine;
    // (6) nothing is ever unmapped.
    let mut memblock = Memblock::new(unsafe { RamClaim::new() });
    for region in info.memory_regions.iter() {
        if region.kind == MemoryRegionKind::Bootloader {
            or_stop(memblock.reserve(platform, firmware_region(region).range()));
        }
    }
    let policy = SetupPolicy {
        phys_bits: phys_bits(),
        low_memory: LowMemory::Reserve,
        params: &Params::default(),
    };
    or_stop(add_firmware_map(
        &mut memblock,
        platform,
        map,
        &policy,
        &mut |line| say!("{line}"),
    ));

    tell_direct_map(info, &memblock);
    memblock.allow_growth();
    let mut nodes = [NodePlan::EMPTY; 1];
    let plan = or_stop(Plan::compute(&memblock, CoreWish::default(), &mut nodes));
    plan.lines(&memblock, &mut |line| say!("{line}"));
    let options = Options::for_profile(Machine::PROFILE);
    or_stop(MEMORY.bring_up(memblock, &plan, options))
}

/// Tells the platform which RAM there is. Until memblock may grow, nobody asks.
fn tell_direct_map(info: &BootInfo, memblock: &Memblock) {
    static RAM: Once<[PhysRange; INLINE_REGIONS]> = Once::new();

    let mut ram = [PhysRange::EMPTY; INLINE_REGIONS];
    for (slot, region) in ram.iter_mut().zip(memblock.memory()) {
        *slot = region.range;
    }
    let offset = info.physical_memory_offset.as_ref().copied();
    let base = VirtAddr::new(or_stop(offset.ok_or("physical memory is not mapped")));
    let ram = or_stop(RAM.set(ram).map_err(|_| "called twice"));
    let direct_map = &MEMORY.platform().direct_map;
    or_stop(
        direct_map
            .set(DirectMap::new(base, ram))
            .map_err(|_| "called twice"),
    );
}

/// A region as firmware would tell it. What the loader uses is RAM too; it is reserved apart.
fn firmware_region(region: &MemoryRegion) -> FirmwareRegion {
    let kind = match region.kind {
        MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => FirmwareKind::Usable,
        MemoryRegionKind::UnknownBios(number) => FirmwareKind::from_e820(number),
        MemoryRegionKind::UnknownUefi(number) => {
            FirmwareKind::from_efi(number, EfiAttributes::empty())
        }
        _ => FirmwareKind::Reserved,
    };
    FirmwareRegion {
        start: region.start,
        size: region.end.saturating_sub(region.start),
        kind: kind.as_e820(),
    }
}

/// Bits of a physical address (SDM vol. 2A, CPUID, leaf 8000_0008h).
fn phys_bits() -> u32 {
    if __cpuid(0x8000_0000).eax < 0x8000_0008 {
        return 36;
    }
    __cpuid(0x8000_0008).eax & 0xff
}

/// A kernel without memory can only say why.
fn or_stop<T, E: fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        say!("memory: {error}");
        exit(Status::Failed)
    })
}
