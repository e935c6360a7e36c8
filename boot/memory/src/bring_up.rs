//! From the boot loader's map to pages, objects and areas.

use core::arch::x86_64::__cpuid;
use core::fmt;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::addr::{DirectMap, PhysRange, VirtAddr};
use mm::mem::RamClaim;
use mm::memblock::params::Params;
use mm::memblock::setup::{LowMemory, SetupPolicy, add_firmware_map};
use mm::memblock::{INLINE_REGIONS, Memblock};
use mm::platform::Platform;
use mm::system::{Memory, Options, Summary};
use mm::zone::plan::{CoreWish, NodePlan, Plan};

use crate::address_space;
use crate::error::Error;
use crate::one_cpu::OneCpu;
use crate::regions::{firmware_map, firmware_region};

/// Areas that have their records from the start: as many at a time take no memory but their own.
const AREAS: u32 = 32;

/// Brings memory up: afterwards there are pages, `kmalloc`, `vmalloc` and `ioremap`, and a
/// [`KernelHeap`](mm::adapters::KernelHeap) has all of it. The boot loader's mappings stay as they are, but for what its highest
/// entries, of 512 GiB, forbid by themselves: that is allowed then. (`boot` forbids in lower ones.)
///
/// `command_line` has the parameters of Linux that `mm` knows (`mem=64M`, `init_on_alloc=0`, …), or nothing. `log` gets
/// Linux's boot lines: which RAM there is, and what was put right.
///
/// Context: boot, once, on a stack of 112 KiB (384 KiB in a build that is not optimised): `boot` makes one that is larger; for
/// another loader, the kernel's `BootloaderConfig` has to ask for more than the usual 80 KiB.
///
/// # Errors
/// [`Error`]. What was begun is not undone: a kernel without memory can only say why.
///
/// # Safety
///
/// 1. `info` is what the boot loader handed over: its map tells the truth, and at `physical_memory_offset` all RAM in
///    it is mapped, to be written to, for good.
/// 2. Nobody uses RAM that the map calls usable, but what the library hands out, and no other `Memory` does that.
/// 3. CR3 leads to the boot loader's page tables, which lie in RAM that the map calls the loader's; nobody changes these tables, or the
///    CPU's use of them, any more.
/// 4. One CPU runs, with all of [`Platform`]'s promises: no threads that are preempted.
pub unsafe fn bring_up(
    memory: &'static Memory<OneCpu>,
    info: &BootInfo,
    command_line: &str,
    log: &mut dyn FnMut(fmt::Arguments<'_>),
) -> Result<Summary, Error> {
    let platform = memory.platform();
    let offset = info.physical_memory_offset.as_ref().copied();
    let base = VirtAddr::new(offset.ok_or(Error::NoPhysicalMap)?);
    let params = Params::parse(command_line, |refused| {
        log(format_args!("parameter ignored: {refused}"));
    });

    // SAFETY: (1) only what the loader calls RAM is added, all of which it mapped (1); (2) what is in use is reserved
    // right here, before the first allocation (2); (3) `tell_direct_map` stops a second run before it allocates; (4) none
    // of the three is called; (5) there is one machine; (6) nothing of the boot loader's is unmapped.
    let mut memblock = Memblock::new(unsafe { RamClaim::new() });
    let policy = SetupPolicy {
        phys_bits: phys_bits(),
        low_memory: LowMemory::Reserve,
        params: &params,
    };
    add_regions(&mut memblock, platform, &info.memory_regions, &policy, log)?;

    tell_direct_map(platform, base, &memblock)?;
    memblock.allow_growth();
    let mut nodes = [NodePlan::EMPTY; 1];
    let plan = Plan::compute(&memblock, CoreWish::from(&params), &mut nodes)?;
    plan.lines(&memblock, &mut |line| log(format_args!("{line}")));
    let options = Options::for_profile(OneCpu::PROFILE);
    let options = options.with_command_line(command_line, |word| {
        log(format_args!("parameter ignored: {word}"));
    });
    let summary = memory.bring_up(memblock, &plan, options)?;
    // SAFETY: the caller's word (3, 4).
    unsafe { address_space::take_over(memory) }?;
    memory.vmalloc_init()?;
    memory.vmalloc_reserve(AREAS)?;
    Ok(summary)
}

/// Frames that nobody has: what is put off is done, and what the library has at hand is given back first. Page tables count, as
/// those of areas stay for the next ones. What is less at the end than it was at the start, and then as often as one tries, was not
/// given back by somebody. Context: task; nobody else uses memory meanwhile.
#[must_use]
pub fn settled_frames(memory: &Memory<OneCpu>) -> u64 {
    // Where nothing is put off, there is nothing to wait for.
    let _ = memory.grace().barrier();
    memory.vmalloc_purge();
    memory.shrink_caches();
    memory.drain_all_pages();
    memory
        .free_frames()
        .saturating_add(memory.page_table_frames())
}

/// Adds the boot loader's map: what it uses is RAM, and reserved.
fn add_regions(
    memblock: &mut Memblock,
    platform: &OneCpu,
    regions: &[MemoryRegion],
    policy: &SetupPolicy<'_>,
    log: &mut dyn FnMut(fmt::Arguments<'_>),
) -> Result<(), Error> {
    for region in regions {
        if region.kind == MemoryRegionKind::Bootloader {
            memblock.reserve(platform, firmware_region(region).range())?;
        }
    }
    let (map, entries) = firmware_map(regions);
    let map = map.get(..entries).unwrap_or_default();
    add_firmware_map(memblock, platform, map, policy, &mut |line| {
        log(format_args!("{line}"));
    })?;
    Ok(())
}

/// Tells the platform which RAM there is. Until memblock may grow, nobody asks.
fn tell_direct_map(
    platform: &'static OneCpu,
    base: VirtAddr,
    memblock: &Memblock,
) -> Result<(), Error> {
    let mut ram = [PhysRange::EMPTY; INLINE_REGIONS];
    for (slot, region) in ram.iter_mut().zip(memblock.memory()) {
        *slot = region.range;
    }
    let ram = platform.ram.set(ram).map_err(|_| Error::Again)?;
    let map = DirectMap::new(base, ram);
    platform.direct_map.set(map).map_err(|_| Error::Again)?;
    Ok(())
}

/// Bits of a physical address (SDM vol. 2A, CPUID, leaf 8000_0008h).
fn phys_bits() -> u32 {
    if __cpuid(0x8000_0000).eax < 0x8000_0008 {
        return 36;
    }
    __cpuid(0x8000_0008).eax & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::boxed::Box;

    #[test]
    fn a_loader_that_maps_no_memory_is_told_so() {
        static MEMORY: Memory<OneCpu> = OneCpu::memory(|_| ());
        let regions: &mut [MemoryRegion] = Box::leak(Box::new([MemoryRegion::empty(); 1]));
        let info = BootInfo::new(regions.into());
        // SAFETY: it ends before it believes anything.
        let outcome = unsafe { bring_up(&MEMORY, &info, "", &mut |_| ()) };
        assert!(matches!(outcome, Err(Error::NoPhysicalMap)));
        assert!(!MEMORY.is_up());
    }
    /// As the crate `bootloader` 0.11 makes it (`LegacyFrameAllocator::construct_memory_map`): pages that it took are one region from
    /// the start of the RAM that they are in, the kernel's file is another, which ends inside of a page, and other types stay.
    #[test]
    fn a_map_of_the_official_loader_is_read() {
        const NEXT_FREE: u64 = 0x0123_4000;
        const FILE: (u64, u64) = (0x0200_0000, 0x0234_5678);
        let region = |start, end, kind| MemoryRegion { start, end, kind };
        let map = [
            region(0x0, 0x9_fc00, MemoryRegionKind::Bootloader),
            region(0x9_fc00, 0xa_0000, MemoryRegionKind::UnknownBios(2)),
            region(0xf_0000, 0x10_0000, MemoryRegionKind::UnknownBios(2)),
            region(0x10_0000, NEXT_FREE, MemoryRegionKind::Bootloader),
            region(NEXT_FREE, FILE.0, MemoryRegionKind::Usable),
            region(FILE.0, FILE.1, MemoryRegionKind::Bootloader),
            region(FILE.1, 0x07fe_0000, MemoryRegionKind::Usable),
            region(0x07fe_0000, 0x0800_0000, MemoryRegionKind::UnknownBios(2)),
            region(0x1_0000_0000, 0x1_4000_0000, MemoryRegionKind::Usable),
        ];
        static MEMORY: Memory<OneCpu> = OneCpu::memory(|_| ());
        let params = Params::parse("", |_| ());
        let policy = SetupPolicy {
            phys_bits: 40,
            low_memory: LowMemory::Reserve,
            params: &params,
        };
        // SAFETY: nothing is allocated from it, and no byte is touched.
        let mut memblock = Memblock::new(unsafe { RamClaim::new() });
        let platform = MEMORY.platform();
        add_regions(&mut memblock, platform, &map, &policy, &mut |_| ()).unwrap();
        let free: std::vec::Vec<_> = memblock
            .free_ranges()
            .map(|range| (range.range.start().as_u64(), range.range.end().as_u64()))
            .collect();
        // To the byte: who hands pages out takes whole ones, so that the file's last page is nobody's.
        let above = (0x1_0000_0000, 0x1_4000_0000);
        assert_eq!(free, [(NEXT_FREE, FILE.0), (FILE.1, 0x07fe_0000), above]);
        let ram: u64 = memblock.memory().iter().map(|part| part.range.size()).sum();
        assert_eq!(
            ram,
            0x9_f000 - 0x1000 + 0x07fe_0000 - 0x10_0000 + 0x4000_0000
        );
    }
}
