//! `/proc` files of memory, printed by the core in Linux's formats.

use super::MEMORY;
use super::bring_up::boot_map;
use crate::arch::{cpu, image};
use crate::{boot_info, proc_file};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use mm::proc::{self, Resource};

proc_file!("/proc/buddyinfo", |out| proc::buddyinfo(&MEMORY, out));
proc_file!("/proc/pagetypeinfo", |out| proc::pagetypeinfo(&MEMORY, out));
proc_file!("/proc/zoneinfo", |out| proc::zoneinfo(&MEMORY, out));
proc_file!("/proc/meminfo", |out| proc::meminfo(&MEMORY, out));
proc_file!("/proc/vmstat", |out| proc::vmstat(&MEMORY, out));
proc_file!("/proc/slabinfo", |out| proc::slabinfo(&MEMORY, out));
proc_file!("/proc/page_owner", |out| proc::page_owner(&MEMORY, out));
proc_file!("/proc/iomem", iomem);

/// The firmware's map after the command line's changes, with the kernel's image in it.
fn iomem(out: &mut dyn Write) -> fmt::Result {
    let (Some(map), Some(info)) = (boot_map(), boot_info()) else {
        return Ok(());
    };
    let (phys_bits, _) = cpu::address_bits();
    let edited = map.firmware.map(phys_bits).edited(&map.params);
    let parts: Vec<Resource<'static>> = image::parts(info)
        .map(|part| Resource::new(part.range, part.name))
        .into();
    proc::iomem(
        proc::with_inner(proc::firmware_resources(edited), &parts),
        out,
    )
}
