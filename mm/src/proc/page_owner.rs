//! `page_owner`: which line of the source allocated each block that is in use.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::addr::Pfn;
use crate::buddy::MigrateType;
use crate::config::SECTION_FRAMES;
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
    let mut next: u64 = 0;
    while next < frames.limit().as_u64() {
        let pfn = Pfn::new(next);
        let Some(frame) = frames.frame(pfn) else {
            // No memory in this section.
            next = pfn
                .section()
                .saturating_add(1)
                .saturating_mul(SECTION_FRAMES);
            continue;
        };
        let word = frame.word();
        let starts_block = word.state().is_some_and(FrameState::starts_block);
        let step = if starts_block {
            word.order().frames()
        } else {
            1
        };
        next = next.saturating_add(step);
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
