//! An address is no frame number.
//~ E0308

use mm::addr::PhysAddr;
use mm::frame::FrameTable;

pub fn look(table: &FrameTable, addr: PhysAddr) -> bool {
    table.frame(addr).is_some()
}
