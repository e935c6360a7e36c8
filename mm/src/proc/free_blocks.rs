//! `/proc/buddyinfo` and `/proc/pagetypeinfo`: free blocks by order, and by migrate type.
//!
//! Zones without memory are left out, as in Linux. Where Linux gives up counting a free list at
//! 100,000 blocks and prints `>100000`, the number here is exact: it is maintained, not counted.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::{ZoneName, free_blocks, nodes};
use crate::addr::Order;
use crate::buddy::MigrateType;
use crate::config::{PAGEBLOCK_FRAMES, PAGEBLOCK_ORDER};
use crate::platform::Platform;
use crate::system::Memory;
use crate::zone::{Node, Zone, ZoneSnapshot};

/// Prints `/proc/buddyinfo`: one line a zone, one column an order. Nothing before memory is up.
/// Context: any but NMI.
///
/// # Errors
/// Those of `out`.
pub fn buddyinfo<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    for zone in nodes(memory).flat_map(populated) {
        let numbers = zone.snapshot(memory.platform());
        write_blocks(out, &zone.into(), &numbers)?;
    }
    Ok(())
}

/// Prints `/proc/pagetypeinfo`: free blocks by migrate type and order, then how many pageblocks
/// each type has. One such text for each node. Nothing before memory is up. Context: any but NMI.
///
/// # Errors
/// Those of `out`.
pub fn pagetypeinfo<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    for node in nodes(memory) {
        write_types_heading(out)?;
        for zone in populated(node) {
            write_types(out, &zone.into(), &zone.snapshot(memory.platform()))?;
        }
        write_pageblocks_heading(out)?;
        for zone in populated(node) {
            write_pageblocks(out, &zone.into(), &zone.snapshot(memory.platform()))?;
        }
    }
    Ok(())
}

fn populated(node: &Node) -> impl Iterator<Item = &Zone> {
    node.zones().iter().filter(|zone| zone.is_populated())
}

fn write_blocks(out: &mut dyn Write, name: &ZoneName, numbers: &ZoneSnapshot) -> fmt::Result {
    write!(out, "{name} ")?;
    for order in Order::all() {
        write!(out, "{:>6} ", free_blocks(numbers, order))?;
    }
    out.write_char('\n')
}

fn write_types_heading(out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "Page block order: {PAGEBLOCK_ORDER}")?;
    writeln!(out, "Pages per block:  {PAGEBLOCK_FRAMES}")?;
    out.write_char('\n')?;
    let heading = "Free pages count per migrate type at order";
    write!(out, "{heading:<43} ")?;
    for order in Order::all() {
        write!(out, "{:>6} ", order.as_u8())?;
    }
    out.write_char('\n')
}

fn write_types(out: &mut dyn Write, name: &ZoneName, numbers: &ZoneSnapshot) -> fmt::Result {
    let ZoneName { node, kind } = name;
    for (migrate, counts) in MigrateType::ALL.iter().zip(&numbers.blocks) {
        let migrate = migrate.name();
        // Not `name`: here alone the node's number has a width.
        write!(out, "Node {node:>4}, zone {kind:>8}, type {migrate:>12} ")?;
        for count in counts {
            write!(out, "{count:>6} ")?;
        }
        out.write_char('\n')?;
    }
    Ok(())
}

fn write_pageblocks_heading(out: &mut dyn Write) -> fmt::Result {
    let heading = "Number of blocks type ";
    write!(out, "\n{heading:<23}")?;
    for migrate in MigrateType::ALL {
        write!(out, "{:>12} ", migrate.name())?;
    }
    out.write_char('\n')
}

fn write_pageblocks(out: &mut dyn Write, name: &ZoneName, numbers: &ZoneSnapshot) -> fmt::Result {
    write!(out, "{name} ")?;
    for count in &numbers.pageblocks {
        write!(out, "{count:>12} ")?;
    }
    out.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::NodeId;
    use crate::zone::ZoneKind;

    const DMA32: ZoneName = ZoneName {
        node: NodeId(0),
        kind: ZoneKind::Dma32,
    };

    /// A zone of a machine that ran Linux 6.18, whose own text is below.
    fn numbers() -> ZoneSnapshot {
        let mut numbers = ZoneSnapshot::default();
        numbers.blocks[MigrateType::Movable.index()] = [1, 1, 4, 2, 5, 4, 3, 3, 4, 2, 752];
        numbers.pageblocks[MigrateType::Movable.index()] = 1528;
        numbers
    }

    fn text(print: impl FnOnce(&mut dyn Write) -> fmt::Result) -> String {
        let mut text = String::new();
        print(&mut text).unwrap();
        text
    }

    #[test]
    fn a_line_of_buddyinfo_is_what_linux_prints_for_the_same_zone() {
        assert_eq!(
            text(|out| write_blocks(out, &DMA32, &numbers())),
            "Node 0, zone    DMA32      1      1      4      2      5      4      3      3      \
             4      2    752 \n"
        );
    }

    #[test]
    fn the_free_half_of_pagetypeinfo_is_what_linux_prints_for_the_same_zone() {
        let lines = text(|out| {
            write_types_heading(out)?;
            write_types(out, &DMA32, &numbers())
        });
        let expected = "\
Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 
Node    0, zone    DMA32, type    Unmovable      0      0      0      0      0      0      0      0      0      0      0 
Node    0, zone    DMA32, type      Movable      1      1      4      2      5      4      3      3      4      2    752 
Node    0, zone    DMA32, type  Reclaimable      0      0      0      0      0      0      0      0      0      0      0 
Node    0, zone    DMA32, type   HighAtomic      0      0      0      0      0      0      0      0      0      0      0 
Node    0, zone    DMA32, type          CMA      0      0      0      0      0      0      0      0      0      0      0 
Node    0, zone    DMA32, type      Isolate      0      0      0      0      0      0      0      0      0      0      0 
";
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_pageblock_half_of_pagetypeinfo_is_what_linux_prints_for_the_same_zone() {
        let lines = text(|out| {
            write_pageblocks_heading(out)?;
            write_pageblocks(out, &DMA32, &numbers())
        });
        let expected = "
Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate 
Node 0, zone    DMA32            0         1528            0            0            0            0 
";
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_type_has_its_own_row_and_column() {
        for (place, migrate) in MigrateType::ALL.into_iter().enumerate() {
            let mut numbers = ZoneSnapshot::default();
            numbers.blocks[migrate.index()][7] = 123_456;
            numbers.pageblocks[migrate.index()] = 77;

            let rows = text(|out| write_types(out, &DMA32, &numbers));
            let row = rows.lines().nth(place).unwrap();
            let words: Vec<_> = row.split_whitespace().collect();
            assert_eq!((words[5], words[13]), (migrate.name(), "123456"));
            assert_eq!(rows.matches("123456").count(), 1);

            let row = text(|out| write_pageblocks(out, &DMA32, &numbers));
            let words: Vec<_> = row.split_whitespace().collect();
            assert_eq!(words[4 + place], "77");
            let row = text(|out| write_blocks(out, &DMA32, &numbers));
            assert!(row.contains(" 123456 "));
        }
    }
}
