//! The way from the entry code to the kernel's `entry_point!`.
//!
//! [`start`] runs once, on the boot stack and the entry code's tables: it parses what the loader
//! left, checks the image's place, makes the final page tables and the `BootInfo`, and jumps.
//! What it decides is decided by pure functions elsewhere; here is what touches the machine.

use core::fmt::Write;

use bootloader_api::config::Mapping;
use bootloader_api::info::{FrameBuffer, MemoryRegion, MemoryRegionKind, Optional};
use bootloader_api::{BootInfo, BootloaderConfig};
use spin::{Mutex, MutexGuard, Once};

use crate::arena::Arena;
use crate::bytes::IdentityMemory;
use crate::cpu::{self, PhysicalTables};
use crate::error::BootError;
use crate::handoff::{Handoff, RangeKind};
use crate::image::{Image, check_placement};
use crate::levels::Levels;
use crate::paging::{self, DEFAULT_PHYSICAL_OFFSET, FRAMEBUFFER_WINDOW, Plan};
use crate::regions::{BOOT_REGIONS, FIRMWARE_REGIONS, Regions};
use crate::serial::{self, EXIT_BOOT_ERROR, Serial};
use crate::warning::Warning;
use crate::{disjoint, framebuffer, multiboot2, pvh, wishes};

/// `boot`'s numbers for the protocols in the entry code; 0 is a wrong magic number.
const PVH: u32 = 1;
const MULTIBOOT2: u32 = 2;
/// The entry code's number for `memory_map = firmware`.
const FIRMWARE_FORM: u64 = 1;

const REGIONS: usize = FIRMWARE_REGIONS.saturating_add(BOOT_REGIONS);
const DISJOINT_REGIONS: usize = disjoint::capacity(REGIONS);
/// All zero, so that the array needs no place in the file.
const NO_REGION: MemoryRegion = MemoryRegion {
    start: 0,
    end: 0,
    kind: MemoryRegionKind::Usable,
};

// Locked once and for good: the guards are leaked.
static STATE: Mutex<Handoff> = Mutex::new(Handoff::new());
static FIRMWARE_MAP: Mutex<[MemoryRegion; REGIONS]> = Mutex::new([NO_REGION; REGIONS]);
static DISJOINT_MAP: Mutex<[MemoryRegion; DISJOINT_REGIONS]> =
    Mutex::new([NO_REGION; DISJOINT_REGIONS]);
static BOOT_INFO: Mutex<Option<BootInfo>> = Mutex::new(None);
static HANDOFF: Once<&'static Handoff> = Once::new();

/// Takes what a mutex guards, for good.
fn take<T>(mutex: &'static Mutex<T>) -> Result<&'static mut T, BootError> {
    let guard = mutex.try_lock().ok_or(BootError::Reentered)?;
    Ok(MutexGuard::leak(guard))
}

/// Returns what the loader told; `None` in a kernel that `boot` did not start.
#[must_use]
pub fn handoff() -> Option<&'static Handoff> {
    HANDOFF.get().copied()
}

/// All that is needed to leave.
#[derive(Debug)]
struct Launch {
    root: u64,
    stack_top: u64,
    entry: u64,
    boot_info: &'static mut BootInfo,
}

/// Starts the kernel; called by the entry code of [`entry!`](crate::entry!) only.
///
/// # Safety
///
/// 1. The CPU is in 64-bit mode, on the boot stack, interrupts off, on tables that map the first
///    4 GiB at 0 and the image at its linked address.
/// 2. `image` points to the entry code's table, which describes this image.
/// 3. It is the first call.
#[doc(hidden)]
pub unsafe extern "C" fn start(protocol: u32, info: u32, image: &'static Image) -> ! {
    // SAFETY: the kernel does not run yet, so nobody else drives COM1.
    let mut serial = unsafe { Serial::new() };

    // SAFETY: the contract of this function.
    let launch = unsafe { prepare(protocol, info, image) };
    match launch {
        Ok(launch) => {
            print_warnings(&mut serial);
            // SAFETY: the tables map the image, the stack and the `BootInfo` where they are now.
            unsafe {
                cpu::leave(
                    launch.root,
                    launch.stack_top,
                    launch.entry,
                    launch.boot_info,
                )
            }
        }
        Err(error) => {
            let _ = writeln!(serial, "boot: error: {error}");
            serial::exit(EXIT_BOOT_ERROR)
        }
    }
}

fn print_warnings(serial: &mut Serial) {
    let Some(handoff) = handoff() else {
        return;
    };
    for warning in handoff.warnings() {
        // A line that cannot be sent has no better place to go.
        let _ = writeln!(serial, "boot: warning: {warning}");
    }
    let lost = handoff.warnings_lost();
    if lost > 0 {
        let _ = writeln!(serial, "boot: warning: and {lost} more");
    }
}

/// Does everything up to the jump.
///
/// # Safety
///
/// As [`start`].
unsafe fn prepare(protocol: u32, info: u32, image: &'static Image) -> Result<Launch, BootError> {
    let handoff = take(&STATE)?;
    let storage = take(&FIRMWARE_MAP)?;
    let mut regions = Regions::new(storage, FIRMWARE_REGIONS);

    // SAFETY: the entry code's tables map the first 4 GiB at 0 (1); nothing is written to what
    // the loader left, since the tables' memory is picked around it.
    let memory = unsafe { IdentityMemory::new() };
    match protocol {
        PVH => pvh::parse(&memory, info.into(), handoff, &mut regions)?,
        MULTIBOOT2 => multiboot2::parse(&memory, info.into(), handoff, &mut regions)?,
        _ => return Err(BootError::UnknownProtocol),
    }
    let config = read_config(image)?;
    let place = image.physical();
    check_placement(place, &regions)?;
    handoff.check_module(&regions);
    handoff.reserve(
        RangeKind::KernelImage,
        place.0,
        place.1.saturating_sub(place.0),
    );
    for (kind, start, end) in image.of_boot() {
        handoff.reserve(kind, start, end.saturating_sub(start));
    }

    let levels = Levels::choose(handoff.command_line(), cpu::has_five_levels());
    if levels == Levels::Five {
        // SAFETY: (1) they are in use until `leave`; (2) `image` is the entry code's table (2); (3) CPUID says so.
        unsafe { cpu::use_five_levels(image.use_five_levels) };
    }

    // SAFETY: as above: the identity map is there (1).
    let launch = unsafe { build(handoff, regions, (image, levels), &config) }?;
    wishes::check(&config, handoff);
    HANDOFF.call_once(|| handoff);
    Ok(launch)
}

fn read_config(image: &Image) -> Result<BootloaderConfig, BootError> {
    let config = BootloaderConfig::deserialize(image.config_bytes()).map_err(BootError::Config)?;
    let reserved = image.stack_top.saturating_sub(image.stack_bottom);
    if config.kernel_stack_size > reserved {
        return Err(BootError::Stack {
            asked: config.kernel_stack_size,
            reserved,
        });
    }
    Ok(config)
}

/// Makes the page tables and the `BootInfo`.
///
/// # Safety
///
/// The first 4 GiB are mapped at 0.
unsafe fn build(
    handoff: &mut Handoff,
    regions: Regions<'static>,
    (image, levels): (&'static Image, Levels),
    config: &BootloaderConfig,
) -> Result<Launch, BootError> {
    let screen = handoff
        .framebuffer()
        .map(|raw| (raw, framebuffer::describe(&raw)));
    if let Some((_, None)) = screen {
        handoff.warn(Warning::FramebufferIgnored);
    }
    let screen = screen.and_then(|(raw, info)| Some((raw, info?)));
    let window =
        screen.and_then(|(raw, info)| Some((raw.address, u64::try_from(info.byte_len).ok()?)));
    if let Some((start, length)) = window {
        handoff.reserve(RangeKind::Framebuffer, start, length);
    }

    let offset = match config.mappings.physical_memory {
        Some(Mapping::FixedAddress(offset)) => offset,
        _ => DEFAULT_PHYSICAL_OFFSET,
    };
    let bits = cpu::physical_bits();
    warn_about(&regions, bits, handoff);
    let plan = Plan {
        regions: &regions,
        image,
        levels,
        offset,
        physical_end: 1_u64.checked_shl(bits).unwrap_or(u64::MAX),
        largest: cpu::largest_page(),
        framebuffer: window,
    };

    let arena = Arena::new(&regions, handoff.reserved_ranges(), image.physical());
    // SAFETY: the arena gives pages of RAM below 4 GiB that nobody uses, mapped at 0.
    let mut tables = unsafe { PhysicalTables::new(arena) };
    let root = paging::build(&mut tables, &plan)?;
    let pieces = tables.into_pieces();
    for (start, end) in pieces.as_slice() {
        handoff.reserve(RangeKind::PageTables, *start, end.saturating_sub(*start));
    }
    let map = memory_map(regions, handoff, image.map_form)?;

    let boot_info = take(&BOOT_INFO)?.insert(BootInfo::new(map.into()));
    fill(boot_info, handoff, image, offset);
    if let Some((_, info)) = screen {
        // SAFETY: the window maps exactly this framebuffer, and nobody else uses it.
        boot_info.framebuffer =
            Optional::Some(unsafe { FrameBuffer::new(FRAMEBUFFER_WINDOW, info) });
    }
    Ok(Launch {
        root,
        stack_top: image.stack_top,
        entry: image.entry,
        boot_info,
    })
}

fn warn_about(regions: &Regions<'_>, bits: u32, handoff: &mut Handoff) {
    if regions.lost() > 0 {
        handoff.warn(Warning::RegionsLost {
            given: regions.given(),
            kept: FIRMWARE_REGIONS,
        });
    }
    let end = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    for region in regions.as_slice() {
        let is_usable = region.kind == MemoryRegionKind::Usable;
        let is_beyond = region.end > end && region.start < region.end;
        if is_usable && is_beyond {
            let region = *region;
            handoff.warn(Warning::RegionBeyondCpu { region, bits });
        }
    }
}

/// Returns the map in the form that the kernel chose in `entry!`.
fn memory_map(
    mut regions: Regions<'static>,
    handoff: &Handoff,
    form: u64,
) -> Result<&'static mut [MemoryRegion], BootError> {
    if form == FIRMWARE_FORM {
        append_own(&mut regions, handoff);
        return Ok(regions.into_slice());
    }
    let storage = take(&DISJOINT_MAP)?;
    Ok(disjoint::fill(&regions, handoff.reserved_ranges(), storage))
}

/// Adds what `boot` occupies as regions of its own kind.
fn append_own(regions: &mut Regions<'_>, handoff: &Handoff) {
    for range in handoff.reserved_ranges() {
        let is_ours = matches!(range.kind, RangeKind::KernelImage | RangeKind::PageTables);
        // There is room for twice as many as there can be.
        let _ = is_ours && regions.push_boot(range.start, range.end);
    }
}

fn fill(boot_info: &mut BootInfo, handoff: &Handoff, image: &Image, offset: u64) {
    let (start, end) = image.physical();
    boot_info.physical_memory_offset = Optional::Some(offset);
    boot_info.rsdp_addr = handoff.rsdp().into();
    if let Some(module) = handoff.module() {
        boot_info.ramdisk_addr = offset.checked_add(module.start).into();
        boot_info.ramdisk_len = module.end.saturating_sub(module.start);
    }
    boot_info.kernel_addr = start;
    boot_info.kernel_len = end.saturating_sub(start);
    boot_info.kernel_image_offset = image.all.0;
    boot_info.kernel_stack_bottom = image.stack_bottom;
    boot_info.kernel_stack_len = image.stack_top.saturating_sub(image.stack_bottom);
}

#[cfg(test)]
mod tests {
    use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

    use super::{NO_REGION, append_own, warn_about};
    use crate::handoff::{Handoff, RangeKind};
    use crate::regions::Regions;
    use crate::warning::Warning;

    #[test]
    fn memory_that_the_cpu_cannot_reach_is_warned_about() {
        let mut storage = [NO_REGION; 4];
        let mut regions = Regions::new(&mut storage, 3);
        let mut handoff = Handoff::new();
        regions.push_bios(0, 1 << 36, 1);
        regions.push_bios(1 << 40, 1 << 30, 2);
        warn_about(&regions, 36, &mut handoff);
        assert_eq!(handoff.warnings(), []);

        regions.push_bios((1 << 36) - 1, 2, 1);
        regions.push_bios(0, 0, 1);
        warn_about(&regions, 36, &mut handoff);
        let region = MemoryRegion {
            start: (1 << 36) - 1,
            end: (1 << 36) + 1,
            kind: MemoryRegionKind::Usable,
        };
        let lost = Warning::RegionsLost {
            given: 4,
            kept: crate::FIRMWARE_REGIONS,
        };
        let beyond = Warning::RegionBeyondCpu { region, bits: 36 };
        assert_eq!(handoff.warnings(), [lost, beyond]);
    }

    #[test]
    fn image_and_tables_become_regions_of_their_own() {
        let mut storage = [NO_REGION; 4];
        let mut regions = Regions::new(&mut storage, 1);
        let mut handoff = Handoff::new();
        handoff.reserve(RangeKind::Module, 0x1000, 0x1000);
        handoff.reserve(RangeKind::KernelImage, 0x2000, 0x1000);
        handoff.reserve(RangeKind::PageTables, 0x5000, 0x1000);
        append_own(&mut regions, &handoff);
        let starts = regions.as_slice().iter().map(|region| region.start);
        assert!(starts.eq([0x2000, 0x5000]));
    }
}
