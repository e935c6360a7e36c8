//! Objects that wait for a grace period (Linux: `kvfree_call_rcu`).
//!
//! Readers may still look at them, so nothing can be written there: their addresses stand in a page
//! that waits as any other block does, and they are freed when it is. A CPU fills one page at a time. It begins to
//! wait when it is full, or when the CPU looks for what else begins to wait.
#![forbid(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use super::{Backlog, Waiting};
use crate::addr::{Order, VirtAddr};
use crate::buddy::{Gfp, Request, Told};
use crate::config::PAGE_SHIFT;
use crate::frame::CachedWord;
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::slab::BadFree;
use crate::sync::{Line, Pin};
use crate::system::{Core, Memory};

/// Addresses in a page, at most: what is freed at one time.
const OBJECTS: u16 = 128;
const BYTES: usize = 8;
/// In a name: it is an area's.
const AREA: u64 = 1 << 63;

/// The area that a name is, by where it starts; `None` if it is an object's physical address.
pub(crate) const fn named_area(name: u64) -> Option<VirtAddr> {
    if name & AREA == 0 {
        return None;
    }
    Some(VirtAddr::new(name << PAGE_SHIFT))
}

/// Why an object is not freed after a grace period. Nothing was changed: it is the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeferError {
    /// It is none that can be freed.
    Bad(BadFree),
    /// There is no page to note its address on, and the caller may not wait for a grace period.
    OutOfMemory,
}

impl fmt::Display for DeferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("no page to note what waits"),
        }
    }
}

impl core::error::Error for DeferError {}

/// A page that is being filled.
///
/// # Invariants
/// Its first `count` words name what was given up: see [`Memory::note_object`], [`Memory::note_area`].
#[derive(Debug)]
pub(crate) struct Named {
    page: Exclusive,
    count: u16,
    /// Whom its backlog counts it for.
    line: Line,
}

impl Named {
    /// Notes one more name. `false` if the page is full, or out of reach.
    fn push<P: Platform>(&mut self, platform: &P, name: u64) -> bool {
        let at = usize::from(self.count).wrapping_mul(BYTES);
        let bytes = self.page.bytes_mut(platform);
        let place = bytes.and_then(|bytes| bytes.get_mut(at..at.wrapping_add(BYTES)));
        let Some(place) = place.filter(|_| self.count < OBJECTS) else {
            return false;
        };
        place.copy_from_slice(&name.to_le_bytes());
        self.count = self.count.wrapping_add(1);
        true
    }
}

/// Where an object that is given up can be freed.
#[derive(Clone, Copy, Debug)]
enum Noted {
    Done,
    NeedsPage,
}

impl Waiting {
    /// Has the objects named so far wait for a grace period.
    pub(super) fn seal(&mut self, backlog: &Backlog, core: &Core) {
        let Some(Named { page, count, line }) = self.named.take() else {
            return;
        };
        let pfn = page.frames().first();
        let Some(frame) = core.frames.frame(pfn) else {
            return;
        };
        let cached = CachedWord::of(frame.word());
        if let Some(zone) = core.zone(frame.word().zone_id()) {
            zone.note_deferred(1);
        }
        if core.frames.cache(page, cached).is_ok() {
            frame.set_named_objects(count);
            let _ = line.of(&backlog.unlinked).push(pfn, frame);
        }
    }

    /// Notes a name on the page that is being filled, or on `spare`.
    fn note<P: Platform>(
        &mut self,
        (platform, core, backlog): (&P, &Core, &Backlog),
        name: u64,
        spare: &mut Option<Exclusive>,
    ) -> Noted {
        if let Some(named) = &mut self.named
            && named.push(platform, name)
        {
            return Noted::Done;
        }
        self.seal(backlog, core);
        let Some(page) = spare.take() else {
            return Noted::NeedsPage;
        };
        let line = core.backlogs.turns.line();
        let count = 0;
        let mut named = Named { page, count, line };
        if !named.push(platform, name) {
            *spare = Some(named.page);
            return Noted::NeedsPage;
        }
        // Something is put off from now on, so that whoever waits for that has it sealed.
        backlog.queued.begin(line);
        self.named = Some(named);
        Noted::Done
    }
}

impl<P: Platform> Memory<P> {
    /// Frees an object that its owner gave up when a grace period is over that begins after this. Context: any but
    /// NMI.
    ///
    /// # Errors
    /// [`DeferError::OutOfMemory`].
    pub(crate) fn note_object(&self, core: &Core, object: NonNull<u8>) -> Result<(), DeferError> {
        let at = self.physical(object);
        let at = at.ok_or(DeferError::Bad(BadFree::NotASlab))?;
        self.note_name(core, at.as_u64())
    }

    /// The same for an area that starts at an address: bit 63, which no physical address has, and the page's number.
    ///
    /// # Errors
    /// [`DeferError::OutOfMemory`].
    pub(crate) fn note_area(&self, core: &Core, start: VirtAddr) -> Result<(), DeferError> {
        self.note_name(core, AREA | start.as_u64() >> PAGE_SHIFT)
    }

    fn note_name(&self, core: &Core, name: u64) -> Result<(), DeferError> {
        let mut spare = None;
        for _ in 0..2 {
            let pin = Pin::new(&self.platform);
            let noted = core.at_own(&pin, |waiting, backlog| {
                waiting.note((&self.platform, core, backlog), name, &mut spare)
            });
            drop(pin);
            match noted {
                Some(Noted::Done) => {
                    if let Some(page) = spare {
                        self.release(page);
                    }
                    self.platform.wake_grace();
                    return Ok(());
                }
                Some(Noted::NeedsPage) if spare.is_none() => spare = self.page_for_names(),
                // The code that was interrupted is at it.
                Some(Noted::NeedsPage) | None => break,
            }
        }
        self.note_alone(core, name, spare)
    }

    /// Has one object wait with a page of its own.
    #[cold]
    fn note_alone(
        &self,
        core: &Core,
        name: u64,
        spare: Option<Exclusive>,
    ) -> Result<(), DeferError> {
        let page = spare.or_else(|| self.page_for_names());
        let page = page.ok_or(DeferError::OutOfMemory)?;
        let line = core.backlogs.turns.line();
        let count = 0;
        let mut named = Named { page, count, line };
        let is_noted = named.push(&self.platform, name);
        let Named { page, count, .. } = named;
        let frame = core.frames.frame(page.frames().first());
        let Some(frame) = frame.filter(|_| is_noted) else {
            self.release(page);
            return Err(DeferError::OutOfMemory);
        };
        frame.set_named_objects(count);
        self.free_block_after_grace(core, page);
        Ok(())
    }

    fn page_for_names(&self) -> Option<Exclusive> {
        let request = Request::new(Gfp::NOWAIT, Order::ZERO).ok()?;
        self.alloc_request(&request, &mut Told(&self.platform)).ok()
    }
}
