//! Frees and calls that are put off.
//!
//! Each CPU has stacks of blocks that any context may push to: those that were freed where nobody may
//! wait for a lock ([`Backlog::freed`]), which go back at the next opportunity; and those that readers
//! may still see ([`Backlog::unlinked`]). The CPU gathers the latter, begins a grace period for all of
//! them, and frees them when it is over (`collect`). Blocks that wait are marked
//! [`Cached`](crate::frame::FrameState::Cached), as on any list of a CPU: a second free is found out.
//!
//! Everything is put off on one of two [lines](Line), so that whoever waits for what there is does not
//! wait for what comes later.
#![forbid(unsafe_code)]

mod collect;
mod objects;

pub use objects::DeferError;
pub(crate) use objects::Named;
pub(crate) use objects::named_area;

use super::Core;
use crate::addr::Pfn;
use crate::frame::{CachedWord, Frame, FrameStack};
use crate::mem::Exclusive;
use crate::platform::CpuId;
use crate::report::{Check, Corruption};
use crate::sync::grace::{Cookie, Grace};
use crate::sync::{Line, PerCpu, Turns, UnderWay};
use crate::zone::{Node, Zone};

/// Calls that wait on a CPU, at most.
pub(super) const CALLS: usize = 32;
/// Blocks freed at one time where nobody may sleep, …
const BLOCKS: u32 = 32;
/// … or this part of those that wait if that is more, so that they do not pile up however fast they
/// come (Linux: `rcu_divisor`, 7 bits).
const PART: u32 = 128;

/// A function to be called with a word when a grace period is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) run: fn(u64),
    pub(super) data: u64,
}

/// What everybody may reach of a CPU's: by line.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    freed: [FrameStack; 2],
    unlinked: [FrameStack; 2],
    /// Blocks and calls that have not been seen to.
    queued: UnderWay,
}

/// A call in line.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    /// None until the next grace period begins.
    cookie: Option<Cookie>,
    call: Call,
    line: Line,
}

/// What the CPU alone reaches, or whoever acts for it.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Blocks that wait for one grace period, of one line.
    batch: Option<(Pfn, Line)>,
    cookie: Cookie,
    /// Oldest first: from `next` on, `count` of them.
    calls: [Option<Waiter>; CALLS],
    next: usize,
    count: usize,
    /// Objects that no grace period has begun for.
    named: Option<Named>,
}

/// Something whose time has come.
enum Due {
    Block(Pfn, Line),
    Call(Call, Line),
}

/// Backlogs of all CPUs.
#[derive(Debug)]
pub(crate) struct Backlogs {
    cells: PerCpu<Waiting, Backlog>,
    pub(super) turns: Turns,
}

impl Backlogs {
    pub(super) fn new(cells: PerCpu<Waiting, Backlog>) -> Self {
        Self {
            cells,
            turns: Turns::new(),
        }
    }

    fn of(&self, cpu: CpuId) -> Option<&Backlog> {
        self.cells.cell(cpu).map(|cell| cell.shared())
    }

    /// Whether everything is done that was put off on a line; what that did is visible then.
    pub(super) fn are_empty(&self, line: Line) -> bool {
        let mut backlogs = self.cells.shared();
        backlogs.all(|backlog| backlog.queued.is_empty(line))
    }
}

impl Backlog {
    fn is_idle(&self) -> bool {
        self.queued.count() == 0
    }

    /// How many blocks are freed at one time.
    fn portion(&self) -> u32 {
        self.queued.count().div_euclid(PART).max(BLOCKS)
    }
}

impl Waiting {
    /// Nothing waits.
    pub(super) fn new() -> Self {
        Self {
            batch: None,
            cookie: Cookie::default(),
            calls: [None; CALLS],
            next: 0,
            count: 0,
            named: None,
        }
    }

    /// Puts a call in line. `false` if there is no room.
    fn push(&mut self, call: Call, line: Line) -> bool {
        if self.count == CALLS {
            return false;
        }
        let place = self.next.wrapping_add(self.count) & (CALLS - 1);
        self.calls[place] = Some(Waiter {
            cookie: None,
            call,
            line,
        });
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Begins a grace period for what has come since the last one.
    fn gather(&mut self, backlog: &Backlog, core: &Core) {
        let mut new = None;
        if self.batch.is_none() {
            self.seal(backlog, core);
            let now = core.backlogs.turns.line();
            // First the one that somebody may wait for.
            let lines = [now.other(), now].into_iter();
            let mut taken =
                lines.filter_map(|line| Some((line.of(&backlog.unlinked).take()?, line)));
            self.batch = taken.next();
            if self.batch.is_some() {
                // After the blocks were taken: all of them are out of their readers' reach by then.
                self.cookie = core.grace.start();
                new = Some(self.cookie);
            }
        }
        if self.count == 0 {
            return;
        }
        let calls = self.calls.iter_mut().flatten();
        for waiter in calls.filter(|waiter| waiter.cookie.is_none()) {
            let cookie = *new.get_or_insert_with(|| core.grace.start());
            waiter.cookie = Some(cookie);
        }
    }

    /// The oldest call, if its grace period is over.
    fn due_call(&mut self, grace: &Grace) -> Option<Due> {
        let place = &mut self.calls[self.next & (CALLS - 1)];
        let is_over =
            |waiter: &mut Waiter| waiter.cookie.is_some_and(|cookie| grace.is_over(cookie));
        let Waiter { call, line, .. } = place.take_if(is_over)?;
        self.next = self.next.wrapping_add(1) & (CALLS - 1);
        self.count = self.count.wrapping_sub(1);
        Some(Due::Call(call, line))
    }

    /// A block, if the grace period of its batch is over.
    fn due_block(&mut self, core: &Core) -> Option<Due> {
        let (pfn, line) = self.batch.filter(|_| core.grace.is_over(self.cookie))?;
        let next = core.frames.frame(pfn).and_then(Frame::below);
        self.batch = next.map(|next| (next, line));
        Some(Due::Block(pfn, line))
    }
}

impl Core {
    /// Marks a block as one that waits on a CPU, and pushes it to one of its stacks.
    fn put_off(
        &self,
        cpu: CpuId,
        block: Exclusive,
        stacks: impl Fn(&Backlog) -> &[FrameStack; 2],
    ) -> Result<(), Exclusive> {
        let pfn = block.frames().first();
        let (Some(backlog), Some(frame)) = (self.backlogs.of(cpu), self.frames.frame(pfn)) else {
            return Err(block);
        };
        let Some(zone) = self.zone(frame.word().zone_id()) else {
            return Err(block);
        };
        let frames = block.frames().frames();
        let cached = CachedWord::of(frame.word());
        let _ = self.frames.cache(block, cached)?;
        let line = self.backlogs.turns.line();
        // Counted before it can be taken off again.
        zone.note_deferred(frames);
        backlog.queued.begin(line);
        let _ = line.of(stacks(backlog)).push(pfn, frame);
        Ok(())
    }

    /// Blocks and calls that are put off, on all CPUs.
    pub(super) fn deferred(&self) -> u64 {
        let backlogs = self.backlogs.cells.shared();
        let counts = backlogs.map(|backlog| u64::from(backlog.queued.count()));
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
