//! Frees and calls that are put off.
//!
//! Each CPU has two stacks of blocks that any context may push to: those that were freed where
//! nobody may wait for a lock ([`Backlog::freed`]), which go back at the next opportunity; and
//! those that readers may still see ([`Backlog::unlinked`]). The CPU gathers the latter, begins a
//! grace period for all of them, and frees them when it is over. Blocks that wait are marked
//! [`Cached`](crate::frame::FrameState::Cached), as on any list of a CPU: a second free is found out.
#![forbid(unsafe_code)]

use super::{Core, Memory};
use crate::addr::Pfn;
use crate::frame::{CachedWord, Frame, FrameStack};
use crate::mem::Exclusive;
use crate::platform::Platform;
use crate::report::{Check, Corruption};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::grace::{Cookie, Grace};
use crate::sync::{PerCpu, Pin};
use crate::zone::{Node, Zone};

/// Calls that wait on a CPU, at most.
const CALLS: usize = 32;
/// Blocks freed at one time.
const BLOCKS: usize = 32;

/// A function to be called with a word when a grace period is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) run: fn(u64),
    pub(super) data: u64,
}

/// What everybody may reach of a CPU's.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    freed: FrameStack,
    unlinked: FrameStack,
    /// Blocks and calls that have not been seen to.
    queued: AtomicU32,
}

/// What the CPU alone reaches, or whoever acts for it.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Blocks that wait for one grace period.
    first: Option<Pfn>,
    cookie: Cookie,
    /// Oldest first: from `next` on, `count` of them.
    calls: [Option<(Cookie, Call)>; CALLS],
    next: usize,
    count: usize,
}

/// What may be done now.
struct Ready {
    blocks: [Option<Pfn>; BLOCKS],
    calls: [Option<Call>; CALLS],
}

/// Backlogs of all CPUs.
pub(crate) type Backlogs = PerCpu<Waiting, Backlog>;

impl Backlog {
    fn add(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0
    }
}

impl Waiting {
    /// Nothing waits.
    pub(super) fn new() -> Self {
        Self {
            first: None,
            cookie: Cookie::default(),
            calls: [None; CALLS],
            next: 0,
            count: 0,
        }
    }

    /// Puts a call in line. `false` if there is no room.
    fn push(&mut self, cookie: Cookie, call: Call) -> bool {
        if self.count == CALLS {
            return false;
        }
        let place = self.next.wrapping_add(self.count) & (CALLS - 1);
        self.calls[place] = Some((cookie, call));
        self.count = self.count.wrapping_add(1);
        true
    }

    /// The oldest call, if its grace period is over.
    fn pop(&mut self, grace: &Grace) -> Option<Call> {
        let place = &mut self.calls[self.next & (CALLS - 1)];
        let (_, call) = place.take_if(|(cookie, _)| grace.is_over(*cookie))?;
        self.next = self.next.wrapping_add(1) & (CALLS - 1);
        self.count = self.count.wrapping_sub(1);
        Some(call)
    }

    /// Moves what may be done now to `ready`, and begins a grace period for what has come since the
    /// last one.
    fn advance(&mut self, backlog: &Backlog, core: &Core, ready: &mut Ready) {
        if self.first.is_none() {
            self.first = backlog.unlinked.take();
            if self.first.is_some() {
                // After the blocks were taken: all of them are out of their readers' reach by then.
                self.cookie = core.grace.start();
            }
        }
        if self.first.is_some() && core.grace.is_over(self.cookie) {
            for place in &mut ready.blocks {
                let Some(pfn) = self.first else { break };
                *place = Some(pfn);
                self.first = core.frames.frame(pfn).and_then(Frame::below);
            }
        }
        for place in &mut ready.calls {
            *place = self.pop(&core.grace);
        }
    }
}

impl Ready {
    const fn nothing() -> Self {
        Self {
            blocks: [None; BLOCKS],
            calls: [None; CALLS],
        }
    }
}

impl<P: Platform> Memory<P> {
    /// Has a block freed as soon as somebody may wait for locks. Context: any, NMI included.
    ///
    /// # Errors
    /// The block, if its record or this CPU is unknown.
    pub(crate) fn free_later(&self, core: &Core, block: Exclusive) -> Result<(), Exclusive> {
        let pin = Pin::new(&self.platform);
        let backlog = core.backlogs.cell(pin.cpu());
        core.put_off(
            block,
            backlog.map(|cell| (cell.shared(), &cell.shared().freed)),
        )
    }

    /// Has a block freed when a grace period is over that begins after this. Context: any, NMI
    /// included.
    ///
    /// # Errors
    /// As [`Self::free_later`].
    pub(super) fn free_after_grace(&self, core: &Core, block: Exclusive) -> Result<(), Exclusive> {
        let pin = Pin::new(&self.platform);
        let backlog = core.backlogs.cell(pin.cpu());
        core.put_off(
            block,
            backlog.map(|cell| (cell.shared(), &cell.shared().unlinked)),
        )
    }

    /// Puts a call in this CPU's line. `false` where there is no room, or the code that was
    /// interrupted is at it. Context: any but NMI.
    pub(super) fn call_later(&self, core: &Core, call: Call) -> bool {
        let pin = Pin::new(&self.platform);
        let Some(mut own) = core.backlogs.enter(&pin) else {
            return false;
        };
        let (waiting, backlog) = own.parts();
        let pushed = waiting.push(core.grace.start(), call);
        if pushed {
            backlog.add();
        }
        let _ = own.leave();
        pushed
    }

    /// Frees what was freed on any CPU where nobody could wait. Context: any but NMI.
    pub(super) fn free_deferred(&self, core: &Core) {
        for backlog in core.backlogs.shared() {
            self.free_stack(core, backlog);
        }
    }

    /// As [`Self::free_deferred`], for this CPU: what an operation does that goes beyond the lists.
    #[inline]
    pub(super) fn free_deferred_here(&self, core: &Core) {
        let pin = Pin::new(&self.platform);
        if let Some(cell) = core.backlogs.cell(pin.cpu())
            && !cell.shared().freed.is_empty()
        {
            self.free_stack(core, cell.shared());
        }
    }

    #[cold]
    fn free_stack(&self, core: &Core, backlog: &Backlog) {
        let mut next = backlog.freed.take();
        while let Some(pfn) = next {
            // Read before the block is somebody else's.
            next = core.frames.frame(pfn).and_then(Frame::below);
            self.free_put_off(core, pfn);
            backlog.done();
        }
    }

    /// Frees a block that was put off.
    fn free_put_off(&self, core: &Core, pfn: Pfn) {
        match core.frames.uncache_found::<P>(pfn) {
            Ok((block, zone)) => {
                if let Some(zone) = core.zone(zone) {
                    zone.note_deferred(block.frames().frames().wrapping_neg());
                }
                self.release(block);
            }
            Err(corruption) => self.platform.corruption(&corruption),
        }
    }

    /// Does what may be done of this CPU's: nothing, if the code that was interrupted is at it.
    /// Context: any but NMI.
    pub(super) fn do_deferred_here(&self, core: &Core, pin: &Pin<'_, P>) {
        let cell = core.backlogs.cell(pin.cpu());
        let Some(cell) = cell.filter(|cell| !cell.shared().is_idle()) else {
            return;
        };
        self.free_stack(core, cell.shared());
        let mut ready = Ready::nothing();
        if let Some(mut own) = core.backlogs.enter(pin) {
            let (waiting, backlog) = own.parts();
            waiting.advance(backlog, core, &mut ready);
            let _ = own.leave();
        }
        self.finish(core, cell.shared(), ready);
    }

    /// Does what may be done for CPUs that are away, and reminds the others of what they have.
    /// Context: as [`Self::do_deferred_here`], with interrupts on.
    pub(super) fn do_deferred_elsewhere(&self, core: &Core) {
        let here = Pin::new(&self.platform).cpu();
        for (cpu, backlog) in core.cpus.presence.cpus().zip(core.backlogs.shared()) {
            if cpu == here || backlog.is_idle() {
                continue;
            }
            self.free_stack(core, backlog);
            let mut ready = Ready::nothing();
            let irq = self.platform.irq_save();
            let seized = core.cpus.presence.seize(cpu);
            if let Some(seized) = &seized {
                let advance = |waiting: &mut Waiting, backlog: &Backlog| {
                    waiting.advance(backlog, core, &mut ready);
                };
                core.backlogs.with_seized(seized, advance);
            }
            let was_away = seized.is_some();
            drop(seized);
            self.platform.irq_restore(irq);
            self.finish(core, backlog, ready);
            if !was_away && !backlog.is_idle() {
                self.platform.resched_cpu(cpu);
            }
        }
    }

    fn finish(&self, core: &Core, backlog: &Backlog, ready: Ready) {
        for pfn in ready.blocks.into_iter().flatten() {
            self.free_put_off(core, pfn);
            backlog.done();
        }
        for call in ready.calls.into_iter().flatten() {
            (call.run)(call.data);
            backlog.done();
        }
    }
}

impl Core {
    /// Marks a block as one that waits, and pushes it.
    fn put_off(
        &self,
        block: Exclusive,
        stack: Option<(&Backlog, &FrameStack)>,
    ) -> Result<(), Exclusive> {
        let pfn = block.frames().first();
        let (Some((backlog, stack)), Some(frame)) = (stack, self.frames.frame(pfn)) else {
            return Err(block);
        };
        let Some(zone) = self.zone(frame.word().zone_id()) else {
            return Err(block);
        };
        let frames = block.frames().frames();
        let cached = CachedWord::of(frame.word());
        let _ = self.frames.cache(block, cached)?;
        // Counted before it can be taken off again.
        zone.note_deferred(frames);
        backlog.add();
        let _ = stack.push(pfn, frame);
        Ok(())
    }

    /// Blocks and calls that are put off, on all CPUs.
    pub(super) fn deferred(&self) -> u64 {
        let queued = self.backlogs.shared().map(|backlog| &backlog.queued);
        let counts = queued.map(|queued| u64::from(queued.load(Ordering::Relaxed)));
        counts.fold(0, u64::saturating_add)
    }

    /// Frames that are put off, in all zones.
    pub(super) fn deferred_frames(&self) -> u64 {
        let zones = self.nodes.iter().flat_map(Node::zones);
        zones.map(Zone::deferred_frames).fold(0, u64::wrapping_add)
    }

    /// Checks that frames are counted as put off only where something is. Context: nothing else
    /// runs.
    pub(super) fn validate_deferred(&self) -> Result<(), Corruption> {
        let recorded = self.deferred_frames();
        let counted = self.deferred();
        // Calls have no frames, but no block is without.
        if recorded != 0 && counted == 0 {
            return Err(Corruption::Miscount {
                check: Check::DeferredFrames,
                recorded,
                counted,
            });
        }
        Ok(())
    }
}
