//! Commands that show the machine: `cpuinfo`, `registers`, `cmdline`, `bootinfo`.

use super::{CommandError, CommandResult, no_arguments};
use crate::arch::{cpu, local, registers, time};
use crate::memory::{MEMORY, frames_in_slabs};
use crate::{boot_info, command, heap, kprintln, params};
use alloc::string::String;
use bootloader_api::info::{MemoryRegionKind, Optional};
use core::fmt;

command! { "cpuinfo", "", "what CPU this is", cpuinfo }
command! { "registers", "", "control registers, flags and stack of this CPU", show_registers }
command! { "cmdline", "", "the kernel command line and the parameters it knows", cmdline }
command! { "bootinfo", "", "what the boot loader handed over", bootinfo }
command! { "heap", "", "how much of the early heap is still in use, and what caches have", show_heap }

fn cpuinfo(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let (physical, virtual_bits) = cpu::address_bits();
    kprintln!("cpu      {}", local::current_id());
    kprintln!("vendor   {}", cpu::vendor());
    if let Some(name) = cpu::model_name() {
        kprintln!("model    {name}");
    }
    kprintln!("virtual  {}", if cpu::is_virtual() { "yes" } else { "no" });
    kprintln!("address  {physical} bits physical, {virtual_bits} bits virtual");
    let levels = MEMORY.kernel_space().map(|space| space.tables.levels());
    kprintln!("paging   {} levels", levels.unwrap_or_default());
    kprintln!("tsc      {} Hz", time::rate().unwrap_or(0));
    Ok(())
}

fn show_registers(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let c = registers::control();
    kprintln!("cr0 {:016x}  cr3 {:016x}  cr4 {:016x}", c.cr0, c.cr3, c.cr4);
    kprintln!("cr2 {:016x}  efer {:x}", c.cr2, c.efer);
    kprintln!(
        "rsp {:016x}  rbp {:016x}  rflags {:x}",
        registers::stack_pointer(),
        registers::frame_pointer(),
        registers::flags()
    );
    for (name, stack) in local::current().stacks() {
        kprintln!("stack {:#018x}..{:#018x} {name}", stack.bottom, stack.top);
    }
    Ok(())
}

fn cmdline(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    kprintln!("{}", params::line());
    for known in crate::registry::sorted(params::known(), |known| known.name) {
        let equals = if known.takes.is_empty() { "" } else { "=" };
        kprintln!("  {}{equals}{}", known.name, known.takes);
        kprintln!("      {}", known.help);
    }
    Ok(())
}

fn show_heap(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let early = heap::give_back_early().map_err(CommandError::failed)?;
    kprintln!(
        "early heap  {} of {} bytes used, {} given back",
        early.used_bytes,
        early.size_bytes,
        early.returned_bytes
    );
    let (mut objects, mut bytes) = (0_u64, 0_u64);
    MEMORY.for_each_cache(|_, cache| {
        let active = cache.active_objects;
        objects = objects.saturating_add(active);
        bytes = bytes.saturating_add(active.saturating_mul(cache.object_size));
    });
    let pages = frames_in_slabs();
    kprintln!("caches      {objects} objects of {bytes} bytes, in {pages} pages");
    Ok(())
}

/// A region's kind as the firmware named it.
struct Kind(MemoryRegionKind);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MemoryRegionKind::Usable => f.write_str("usable"),
            MemoryRegionKind::Bootloader => f.write_str("boot loader"),
            MemoryRegionKind::UnknownUefi(kind) => write!(f, "UEFI type {kind}"),
            MemoryRegionKind::UnknownBios(kind) => write!(f, "E820 type {kind}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A value that may be missing.
struct Maybe(Option<u64>);

impl fmt::Display for Maybe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:#018x}"),
            None => f.write_str("none"),
        }
    }
}

fn value(optional: &Optional<u64>) -> Maybe {
    Maybe(optional.as_ref().copied())
}

fn bootinfo(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let info = boot_info().ok_or_else(|| CommandError::failed("there is no boot information"))?;
    for region in info.memory_regions.iter() {
        kprintln!(
            "region {:#018x}..{:#018x} {}",
            region.start,
            region.end,
            Kind(region.kind)
        );
    }
    kprintln!(
        "physical memory mapped at {}",
        value(&info.physical_memory_offset)
    );
    kprintln!("rsdp      {}", value(&info.rsdp_addr));
    kprintln!(
        "ramdisk   {}, {} bytes",
        value(&info.ramdisk_addr),
        info.ramdisk_len
    );
    kprintln!(
        "kernel    {:#018x}, {} bytes, linked at {:#018x}",
        info.kernel_addr,
        info.kernel_len,
        info.kernel_image_offset
    );
    if let Some(handoff) = boot::handoff() {
        match handoff.protocol() {
            Some(protocol) => kprintln!("protocol  {protocol}"),
            None => kprintln!("protocol  unknown"),
        }
    }
    for range in boot::reserved_ranges() {
        kprintln!(
            "reserve   {:#018x}..{:#018x} {}",
            range.start,
            range.end,
            range.kind.name()
        );
    }
    match info.framebuffer.as_ref() {
        Some(framebuffer) => {
            let f = framebuffer.info();
            kprintln!("framebuffer {}x{}, {:?}", f.width, f.height, f.pixel_format);
        }
        None => kprintln!("framebuffer none"),
    }
    Ok(())
}
