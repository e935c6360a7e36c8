//! From the boot loader's map to a page allocator.
#![expect(
    unsafe_code,
    reason = "claims the machine's RAM for the memory core, once"
)]

use super::firmware::Firmware;
use super::{
    MEMORY, address_space, cma, events, frame_table, nodes, page_tables, pagealloc, vmalloc,
};
use crate::arch::exit::Status;
use crate::arch::{self, cpu, image, smp};
use crate::{boot_info, panic, params};
use alloc::vec;
use alloc::vec::Vec;
use bootloader_api::BootInfo;
use core::fmt;
use mm::addr::{PfnRange, PhysAddr, PhysRange};
use mm::config::PAGE_SIZE;
use mm::mem::{EarlyRam, RamClaim};
use mm::memblock::params::Params;
use mm::memblock::setup::{LowMemory, SetupError, SetupPolicy, add_firmware_map};
use mm::memblock::{Floor, GrowError, Memblock, Request};
use mm::platform::{CpuId, Platform};
use mm::system::{BringUpError, Options, Summary};
use mm::zone::plan::{CoreWish, NodePlan, Plan, PlanError};
use spin::Once;

/// What of the boot stays interesting.
#[derive(Debug)]
pub(super) struct BootMap {
    pub(super) firmware: Firmware,
    pub(super) params: Params,
    /// RAM as the zones were built from it.
    pub(super) ram: Vec<PhysRange>,
    /// Ticks of the clock from the kernel's entry until all memory was ready.
    pub(super) ready_tsc: u64,
}

static BOOT_MAP: Once<BootMap> = Once::new();

/// The map that memory was built from, once it is up.
pub(super) fn boot_map() -> Option<&'static BootMap> {
    BOOT_MAP.get()
}

/// Why there is no memory.
enum Failure {
    NoPhysicalMap,
    Setup(SetupError),
    Reserve(GrowError),
    Plan(PlanError),
    Tables(frame_table::PrepareError),
    BringUp(BringUpError),
    Space(address_space::SpaceError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPhysicalMap => f.write_str("the boot loader did not map physical memory"),
            Self::Setup(error) => error.fmt(f),
            Self::Reserve(error) => error.fmt(f),
            Self::Plan(error) => write!(f, "no zones: {error}"),
            Self::Tables(error) => error.fmt(f),
            Self::BringUp(error) => error.fmt(f),
            Self::Space(error) => write!(f, "no page tables: {error}"),
        }
    }
}

/// Brings memory up, with Linux's boot lines, or ends the kernel with the reason.
pub(crate) fn bring_up() {
    let Some(info) = boot_info() else {
        panic::fatal(
            Status::BadBootData,
            format_args!("there is no boot information"),
        );
    };
    if let Err(failure) = try_bring_up(info) {
        panic::fatal(Status::BadBootData, format_args!("memory: {failure}"));
    }
    publish();
    events::begin();
}

fn try_bring_up(info: &'static BootInfo) -> Result<(), Failure> {
    let platform = MEMORY.platform();
    let firmware = Firmware::read(info);
    let offset = info.physical_memory_offset.as_ref().copied();
    let offset = offset.ok_or(Failure::NoPhysicalMap)?;
    let (phys_bits, _) = cpu::address_bits();
    let usable = firmware.usable(phys_bits);
    // What the firmware calls usable and what the boot loader made of it may differ.
    let mapped: Vec<PhysRange> = usable
        .flat_map(|range| arch::mapped_runs(offset, range))
        .collect();
    platform.set_direct_map(offset, mapped.clone());
    let params = Params::parse(params::without_commands(), |refused| {
        log::warn!("kernel parameter ignored: {refused}");
    });

    // SAFETY: (1) what is not mapped is removed before the first allocation, or refused by the
    // direct map; (2) what the boot loader and the kernel use is reserved below, before the first
    // allocation; (3) this runs once, before anything else could claim; (4) none of the three is
    // called; (5) there is one machine; (6) the boot loader's map stays.
    let claim = unsafe { RamClaim::new() };
    let mut memblock = Memblock::new(claim);
    for (range, name) in &firmware.taken {
        log::debug!("reserved: {range} {name}");
        memblock
            .reserve(platform, *range)
            .map_err(Failure::Reserve)?;
    }
    memblock.allow_growth();
    add_map(&mut memblock, &firmware, &params)?;
    remove_unmapped(&mut memblock, &mapped)?;

    match take_low_page(&mut memblock, &firmware) {
        Some(page) => smp::keep_low_page(page),
        None => log::warn!("no usable page below 640 KiB: other CPUs cannot start"),
    }

    let known = nodes::assign(&mut memblock, &params);
    let mut plans = vec![NodePlan::EMPTY; known.count];
    let plan = Plan::compute(&memblock, CoreWish::from(&params), &mut plans);
    let plan = plan.map_err(Failure::Plan)?;
    let plan = plan.with_distances(known.distances());
    plan.lines(&memblock, &mut |line| log::info!("{line}"));
    frame_table::prepare(platform, &mut memblock).map_err(Failure::Tables)?;
    let ram = memblock
        .memory()
        .iter()
        .map(|region| region.range)
        .collect();

    let summary = MEMORY
        .bring_up(memblock, &plan, options(&params))
        .map_err(Failure::BringUp)?;
    let boot_cpu = arch::local::boot_cpu();
    arch::anchor::set(boot_cpu, MEMORY.anchor(CpuId(boot_cpu.id())));
    cma::log(&params, &summary);
    pagealloc::watch(&summary);
    address_space::install().map_err(Failure::Space)?;
    vmalloc::init();
    nodes::log_orders();
    let ready_tsc = arch::time::tsc();
    BOOT_MAP.call_once(|| BootMap {
        firmware,
        params,
        ram,
        ready_tsc,
    });
    log_summary(info, &summary);
    page_tables::check_at_boot();
    Ok(())
}

/// Writes down for viewers on the host where everything is.
fn publish() {
    match MEMORY.publish() {
        Ok(first) => log::debug!("inspect: first page at {first:?}"),
        Err(error) => log::warn!("inspect: nothing for viewers: {error}"),
    }
}

fn options(params: &Params) -> Options {
    let options = Options {
        cma_bytes: params.cma.unwrap_or(0),
        ..Options::for_profile(super::KernelPlatform::PROFILE)
    };
    options.with_command_line(params::without_commands(), |word| {
        // Of other words the kernel knows itself which values there are, and has said so.
        if params::parse(word).all(|param| param.refusal().is_none()) {
            log::warn!("kernel parameter ignored: `{word}` has no such value");
        }
    })
}

/// Takes out of memory what the boot loader did not map, such as RAM that only the command line
/// knows of.
fn remove_unmapped(memblock: &mut Memblock, mapped: &[PhysRange]) -> Result<(), Failure> {
    let mut missing: Vec<PhysRange> = memblock
        .memory()
        .iter()
        .map(|region| region.range)
        .collect();
    for run in mapped {
        let cut = |range: PhysRange| {
            let below = PhysRange::new(range.start(), run.start().min(range.end()));
            let above = PhysRange::new(run.end().max(range.start()), range.end());
            [below, above]
                .into_iter()
                .flatten()
                .filter(|part| !part.is_empty())
        };
        missing = missing.into_iter().flat_map(cut).collect();
    }
    for range in missing {
        log::warn!("{range} is not mapped: left out");
        memblock
            .remove(MEMORY.platform(), range)
            .map_err(Failure::Reserve)?;
    }
    Ok(())
}

fn add_map(memblock: &mut Memblock, firmware: &Firmware, params: &Params) -> Result<(), Failure> {
    let (phys_bits, _) = cpu::address_bits();
    let policy = SetupPolicy {
        phys_bits,
        low_memory: LowMemory::Reserve,
        params,
    };
    let platform = MEMORY.platform();
    add_firmware_map(
        memblock,
        platform,
        &firmware.entries,
        &policy,
        &mut |line| {
            log::info!("{line}");
        },
    )
    .map_err(Failure::Setup)
}

/// Takes the page that other CPUs start in: the highest one between 64 KiB and 640 KiB that the
/// firmware calls usable and nothing lies in. It was reserved with the rest of the first MiB.
fn take_low_page(memblock: &mut Memblock, firmware: &Firmware) -> Option<EarlyRam> {
    let platform = MEMORY.platform();
    let window = PhysRange::new(PhysAddr::new(0x1_0000), PhysAddr::new(0xa_0000))?;
    let usable = memblock.frames(None).map(|ram| ram.frames.addrs());
    let pages: Vec<PhysRange> = usable
        .map(|ram| ram.intersect(window).whole_frames())
        .flat_map(|frames| frames.iter())
        .map(|pfn| PfnRange::from_count(pfn, 1).unwrap_or_default().addrs())
        .collect();
    let is_unused = |page: &&PhysRange| {
        !firmware
            .taken
            .iter()
            .any(|(range, _)| range.overlaps(**page))
    };
    let page = *pages.iter().rev().find(is_unused)?;

    memblock.free(platform, page).ok()?;
    let request = Request::bytes(PAGE_SIZE)
        .align(PAGE_SIZE)
        .floor(Floor::Required(page.start()))
        .ceiling(page.end());
    memblock.alloc_raw(platform, &request).ok()
}

/// As Linux: `Memory: 480000K/523768K available (…)`.
fn log_summary(info: &BootInfo, summary: &Summary) {
    let kib = |frames: u64| frames.saturating_mul(4);
    let [code, rodata, data, bss] = image::parts(info).map(|part| part.range.size() >> 10);
    let (managed, present) = (MEMORY.managed_frames(), summary.present);
    log::info!(
        "Memory: {}K/{}K available ({code}K kernel code, {data}K rwdata, {rodata}K rodata, {bss}K bss, {}K reserved)",
        kib(MEMORY.free_frames()),
        kib(present),
        kib(present.saturating_sub(managed)),
    );
    if summary.misplaced_cpus > 0 {
        let cpus = summary.misplaced_cpus;
        log::warn!("NUMA: {cpus} CPUs are on nodes that do not exist; they count as node 0's");
    }
    let profile = super::KernelPlatform::PROFILE.name();
    log::info!(
        "mm: profile {profile}, {} bytes of records for {} frames",
        summary.record_bytes,
        summary.recorded
    );
}
