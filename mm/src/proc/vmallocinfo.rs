//! `/proc/vmallocinfo`: every area of kernel addresses.
#![forbid(unsafe_code)]

use core::fmt;

use crate::kspace::{AreaInfo, AreaKind, AreaState};
use crate::platform::Platform;
use crate::system::Memory;

/// `/proc/vmallocinfo` as Linux 6.1 prints it, in the order of addresses: the addresses and their number, guard page
/// included; who asked for the area, by the line in the source; pages; what it is; and on which nodes its pages lie.
/// Areas that wait for a purge are told, those that lie ready for a CPU are not. Context: task.
///
/// # Errors
/// `out`'s own.
pub fn vmallocinfo<P: Platform>(memory: &Memory<P>, out: &mut dyn fmt::Write) -> fmt::Result {
    let mut written = Ok(());
    memory.for_each_area(|area| {
        if written.is_ok() {
            written = line(out, area);
        }
    });
    written
}

fn line(out: &mut dyn fmt::Write, area: &AreaInfo) -> fmt::Result {
    let (start, end) = (area.range.start().as_u64(), area.range.end().as_u64());
    let size = area.range.size();
    match (area.state, area.kind) {
        (AreaState::Unused | AreaState::Cached, _) => return Ok(()),
        (AreaState::Lazy, _) => {
            return writeln!(out, "{start:#018x}-{end:#018x} {size:7} unpurged vm_area");
        }
        (AreaState::Busy, AreaKind::VmMapRam) => {
            return writeln!(out, "{start:#018x}-{end:#018x} {size:7} vm_map_ram");
        }
        (AreaState::Busy, _) => write!(out, "{start:#018x}-{end:#018x} {size:7}")?,
    }
    if let Some(place) = area.place {
        write!(out, " {}:{}", place.file(), place.line())?;
    }
    match area.kind {
        AreaKind::Ioremap => write!(out, " phys={:#018x}", area.device.as_u64())?,
        _ => write!(out, " pages={}", area.pages)?,
    }
    write!(out, " {}", area.kind.name())?;
    for (node, pages) in area.pages_by_node.iter().enumerate() {
        if *pages > 0 {
            write!(out, " N{node}={pages}")?;
        }
    }
    out.write_char('\n')
}
