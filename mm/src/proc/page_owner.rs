//! `page_owner`: which line of the source allocated each block that is in use.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::buddy::MigrateType;
use crate::frame::FrameState;
use crate::platform::Platform;
use crate::system::Memory;

/// Prints every block in use with the place in the source that allocated it, lowest first (Linux:
/// `/sys/kernel/debug/page_owner`). Nothing where origins are not kept (`page_owner=on`). What Linux
/// prints of the task and the stack is not known here. Context: task; takes time in proportion to
/// memory.
///
/// # Errors
/// Those of `out`.
pub fn page_owner<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    let Some(frames) = memory.frames().filter(|_| memory.keeps_origins()) else {
        return Ok(());
    };
    for (pfn, frame) in frames.blocks() {
        let word = frame.word();
        if !word.state().is_some_and(FrameState::is_live) {
            continue;
        }
        let (order, kind) = (word.order(), MigrateType::from_bits(word.mobility()));
        writeln!(out, "Page allocated via order {order}")?;
        writeln!(out, "PFN {pfn} type {}", kind.name())?;
        match memory.origin(pfn) {
            Some(place) => writeln!(out, " {place}\n")?,
            None => out.write_str(" before origins were kept\n\n")?,
        }
    }
    Ok(())
}
