//! Doing what was put off: a little wherever a CPU is quiescent, and all of it from a thread or for a
//! request that would fail otherwise.
#![forbid(unsafe_code)]

use super::{BLOCKS, Backlog, CALLS, Call, Due, Waiting};
use crate::addr::Pfn;
use crate::frame::Frame;
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform};
use crate::sync::{Line, Pin};
use crate::system::{Core, Memory};

/// What is done of what may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kinds {
    All,
    /// Without calls: those of others do not come in the midst of a request.
    Blocks,
}

impl<P: Platform> Memory<P> {
    /// Has a block freed as soon as somebody may wait for locks. Context: any, NMI included.
    ///
    /// # Errors
    /// The block, if its record or this CPU is unknown.
    pub(crate) fn free_later(&self, core: &Core, block: Exclusive) -> Result<(), Exclusive> {
        core.note_free(&self.platform, block.frames());
        let pin = Pin::new(&self.platform);
        core.put_off(pin.cpu(), block, |backlog| &backlog.freed)
    }

    /// Has a block freed when a grace period is over that begins after this. Context: any, NMI
    /// included.
    ///
    /// # Errors
    /// As [`Self::free_later`].
    pub(in crate::system) fn free_after_grace(
        &self,
        core: &Core,
        block: Exclusive,
    ) -> Result<(), Exclusive> {
        core.note_free(&self.platform, block.frames());
        let pin = Pin::new(&self.platform);
        core.put_off(pin.cpu(), block, |backlog| &backlog.unlinked)
    }

    /// Puts a call in this CPU's line. `false` where there is no room, or the code that was
    /// interrupted is at it. Context: any but NMI.
    pub(in crate::system) fn call_later(&self, core: &Core, call: Call) -> bool {
        let pin = Pin::new(&self.platform);
        let pushed = core.at_own(&pin, |waiting, backlog| {
            let line = core.backlogs.turns.line();
            let pushed = waiting.push(call, line);
            if pushed {
                backlog.queued.begin(line);
            }
            pushed
        });
        pushed.unwrap_or(false)
    }

    /// Frees what was freed on any CPU where nobody could wait: all of it if the caller may wait.
    /// Context: any but NMI.
    pub(in crate::system) fn free_deferred(&self, core: &Core, may_wait: bool) {
        for backlog in core.backlogs.cells.shared() {
            while self.free_stacks(core, backlog, BLOCKS) >= BLOCKS && may_wait {
                self.platform.reschedule();
            }
        }
    }

    /// As [`Self::free_deferred`], some of this CPU's: what an operation does that goes beyond the
    /// lists.
    #[inline]
    pub(in crate::system) fn free_deferred_here(&self, core: &Core) {
        let pin = Pin::new(&self.platform);
        if let Some(backlog) = core.backlogs.of(pin.cpu())
            && !backlog.freed.iter().all(crate::frame::FrameStack::is_empty)
        {
            let _ = self.free_stacks(core, backlog, backlog.portion());
        }
    }

    /// Frees up to `most` blocks that wait for nothing. Answers how many there were.
    #[cold]
    fn free_stacks(&self, core: &Core, backlog: &Backlog, most: u32) -> u32 {
        let mut freed: u32 = 0;
        for line in Line::BOTH {
            let stack = line.of(&backlog.freed);
            let mut next = stack.take();
            while let Some(pfn) = next {
                if freed == most {
                    stack.put_back(pfn, |pfn| core.frames.frame(pfn));
                    return freed;
                }
                // Read before the block is somebody else's.
                next = core.frames.frame(pfn).and_then(Frame::below);
                self.do_now(core, backlog, Due::Block(pfn, line));
                freed = freed.saturating_add(1);
            }
        }
        freed
    }

    fn do_now(&self, core: &Core, backlog: &Backlog, due: Due) {
        let line = match due {
            Due::Block(pfn, line) => {
                self.free_put_off(core, pfn);
                line
            }
            Due::Call(call, line) => {
                (call.run)(call.data);
                line
            }
        };
        backlog.queued.end(line);
    }

    /// Frees a block that was put off.
    fn free_put_off(&self, core: &Core, pfn: Pfn) {
        match core.frames.uncache_found::<P>(pfn) {
            Ok((block, zone)) => {
                if let Some(zone) = core.zone(zone) {
                    zone.note_deferred(block.frames().frames().wrapping_neg());
                }
                // Tables that died, and waited for those who may wait for their locks.
                if let Some(frame) = core.frames.frame(pfn) {
                    frame.end_table_lock();
                }
                let named = core.frames.frame(pfn).and_then(Frame::take_named_objects);
                if let Some(count) = named {
                    self.free_named(&block, count);
                }
                self.release(block);
            }
            Err(corruption) => self.platform.corruption(&corruption),
        }
    }

    /// Does a part of what may be done of this CPU's: nothing, if the code that was interrupted is at
    /// it. Answers whether there may be more. Context: any but NMI.
    pub(in crate::system) fn do_deferred_here(&self, core: &Core, pin: &Pin<'_, P>) -> bool {
        self.do_here(core, pin, Kinds::All) > 0
    }

    /// Answers how much was done.
    fn do_here(&self, core: &Core, pin: &Pin<'_, P>, kinds: Kinds) -> u32 {
        let backlog = core.backlogs.of(pin.cpu());
        let Some(backlog) = backlog.filter(|backlog| !backlog.is_idle()) else {
            return 0;
        };
        let most = backlog.portion();
        let mut done = self.free_stacks(core, backlog, most);
        let due = |waiting: &mut Waiting, backlog: &Backlog| waiting.due(backlog, core, kinds);
        for _ in 0..core.at_once(most, kinds) {
            let Some(due) = core.at_own(pin, due).flatten() else {
                break;
            };
            self.do_now(core, backlog, due);
            done = done.saturating_add(1);
        }
        done
    }

    /// Does what may be done for CPUs that are away, and reminds the others of what they have.
    /// Context: as [`Self::do_deferred_here`], with interrupts on.
    pub(in crate::system) fn do_deferred_elsewhere(&self, core: &Core, may_wait: bool) {
        let _ = self.do_elsewhere(core, Kinds::All, may_wait);
    }

    fn do_elsewhere(&self, core: &Core, kinds: Kinds, may_wait: bool) -> u32 {
        let here = Pin::new(&self.platform).cpu();
        let mut done: u32 = 0;
        for (cpu, backlog) in core.cpus.presence.cpus().zip(core.backlogs.cells.shared()) {
            if cpu == here || backlog.is_idle() {
                continue;
            }
            loop {
                let most = backlog.portion();
                let before = done;
                done = done.saturating_add(self.free_stacks(core, backlog, most));
                for _ in 0..core.at_once(most, kinds) {
                    let Some(due) = self.due_of(core, cpu, kinds) else {
                        break;
                    };
                    self.do_now(core, backlog, due);
                    done = done.saturating_add(1);
                }
                if !may_wait || done == before {
                    break;
                }
                self.platform.reschedule();
            }
            if core.cpus.presence.is_present(cpu) && !backlog.is_idle() {
                self.platform.resched_cpu(cpu);
            }
        }
        done
    }

    /// What may be done for a CPU, if it is away.
    fn due_of(&self, core: &Core, cpu: CpuId, kinds: Kinds) -> Option<Due> {
        let irq = self.platform.irq_save();
        let mut due = None;
        if let Some(seized) = core.cpus.presence.seize(cpu) {
            core.backlogs
                .cells
                .with_seized(&seized, |waiting, backlog| {
                    due = waiting.due(backlog, core, kinds);
                });
        }
        self.platform.irq_restore(irq);
        due
    }

    /// Looks for memory that is put off, for a request that finds no other: it passes a quiescent state
    /// if it may wait, frees what no reader sees any more, and has CPUs that are late reminded. Answers
    /// whether any came back. Context: any but NMI.
    #[cold]
    pub(in crate::system) fn recover_deferred(&self, core: &Core, may_wait: bool) -> bool {
        let pin = Pin::new(&self.platform);
        let gather = |waiting: &mut Waiting, backlog: &Backlog| waiting.gather(backlog, core);
        let _ = core.at_own(&pin, gather);
        if core.deferred_frames() == 0 {
            return false;
        }
        if !may_wait {
            let cookie = core.grace.start();
            let _ = core.grace.poll(&self.platform, &core.cpus.presence, cookie);
            return self.do_here(core, &pin, Kinds::Blocks) > 0;
        }
        // Ignored if the caller is a reader.
        let _ = core.grace.quiescent(&pin);
        drop(pin);
        self.grace().remind();
        let mut done = self.do_elsewhere(core, Kinds::Blocks, true);
        loop {
            let more = self.do_here(core, &Pin::new(&self.platform), Kinds::Blocks);
            if more == 0 {
                return done > 0;
            }
            done = done.saturating_add(more);
            self.platform.reschedule();
        }
    }

    /// As [`Self::recover_deferred`], and waits as long as the platform waits. Context: task.
    #[cold]
    pub(in crate::system) fn wait_for_deferred(&self, core: &Core) -> bool {
        let mut rounds: u32 = 0;
        while core.deferred_frames() > 0 {
            if self.recover_deferred(core, true) {
                return true;
            }
            // Calls that free memory are their business who makes them.
            let _ = self.platform.wake_grace();
            if !self.platform.relax(rounds) {
                return false;
            }
            self.platform.reschedule();
            rounds = rounds.saturating_add(1);
        }
        false
    }
}

impl Waiting {
    /// Something that may be done now; begins a grace period for what cannot.
    fn due(&mut self, backlog: &Backlog, core: &Core, kinds: Kinds) -> Option<Due> {
        self.gather(backlog, core);
        let call = match kinds {
            Kinds::All => self.due_call(&core.grace),
            Kinds::Blocks => None,
        };
        call.or_else(|| self.due_block(core))
    }
}

impl Core {
    /// Does something with what this CPU has, unless the code that was interrupted is at it.
    pub(super) fn at_own<P: Platform, T>(
        &self,
        pin: &Pin<'_, P>,
        body: impl FnOnce(&mut Waiting, &Backlog) -> T,
    ) -> Option<T> {
        let mut own = self.backlogs.cells.enter(pin)?;
        let (waiting, backlog) = own.parts();
        let answer = body(waiting, backlog);
        let _ = own.leave();
        Some(answer)
    }

    /// How much is done at once where so many blocks are: calls have a limit of their own.
    fn at_once(&self, blocks: u32, kinds: Kinds) -> u32 {
        match kinds {
            Kinds::All => blocks.saturating_add(u32::try_from(CALLS).unwrap_or(u32::MAX)),
            Kinds::Blocks => blocks,
        }
    }
}
