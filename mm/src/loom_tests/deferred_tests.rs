//! M5: blocks that NMIs put off, against a CPU that frees some of them and puts the rest back, and against
//! whoever waits until all are freed.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::addr::{Order, Pfn};
use crate::frame::{CachedWord, Frame, FrameStack, Word, ZoneId};
use crate::platform::NodeId;
use crate::sync::{Line, Turns, UnderWay};

const HOME: ZoneId = ZoneId {
    node: NodeId(0),
    zone: 1,
};

/// A CPU's blocks that wait, as `Backlog` has them, and the blocks.
struct Backlog {
    turns: Turns,
    queued: UnderWay,
    stacks: [FrameStack; 2],
    frames: Vec<Frame>,
    /// How often each was freed: loom's cells, so that two who free one, or one who does not see what the
    /// other left there, fail the model.
    freed: Vec<UnsafeCell<u32>>,
}

impl Backlog {
    fn new(blocks: usize) -> Arc<Self> {
        let frames = (0..blocks).map(|_| {
            let frame = Frame::default();
            frame.publish(CachedWord::of(Word::unique(HOME, Order::ZERO, 0)).word());
            frame
        });
        Arc::new(Self {
            turns: Turns::new(),
            queued: UnderWay::new(),
            stacks: [FrameStack::new(), FrameStack::new()],
            frames: frames.collect(),
            freed: (0..blocks).map(|_| UnsafeCell::new(0)).collect(),
        })
    }

    fn touch(&self, block: usize) {
        // SAFETY: loom fails the model if anybody else is at it.
        self.freed[block].with_mut(|freed| unsafe { *freed += 1 });
    }

    fn touched(&self, block: usize) -> u32 {
        // SAFETY: as above.
        self.freed[block].with(|freed| unsafe { *freed })
    }

    fn frame(&self, pfn: Pfn) -> Option<&Frame> {
        self.frames.get(usize::try_from(pfn.as_u64()).ok()?)
    }

    /// As `Core::put_off`: by an NMI.
    fn put_off(&self, block: usize) {
        self.touch(block);
        let line = self.turns.line();
        self.queued.begin(line);
        let pfn = Pfn::new(block as u64);
        let _ = line.of(&self.stacks).push(pfn, &self.frames[block]);
    }

    /// As `Memory::free_stacks`.
    fn free_some(&self, most: u32) -> u32 {
        let mut count = 0;
        for line in Line::BOTH {
            let stack = line.of(&self.stacks);
            let mut next = stack.take();
            while let Some(pfn) = next {
                if count == most {
                    stack.put_back(pfn, |pfn| self.frame(pfn));
                    return count;
                }
                next = self.frame(pfn).and_then(Frame::below);
                self.touch(usize::try_from(pfn.as_u64()).unwrap());
                self.queued.end(line);
                count += 1;
            }
        }
        count
    }

    /// Each was put off once and freed once.
    fn is_all_freed(&self) -> bool {
        (0..self.freed.len()).all(|block| self.touched(block) == 2)
    }
}

/// M5: an NMI puts a block off while two CPUs free what waits, one of them a little at a time.
#[test]
fn blocks_that_are_put_back_are_freed_once_whatever_nmis_push() {
    explore(3, || {
        let backlog = Backlog::new(3);
        backlog.put_off(0);
        backlog.put_off(1);
        let nmi = {
            let backlog = Arc::clone(&backlog);
            thread::spawn(move || backlog.put_off(2))
        };
        let other = {
            let backlog = Arc::clone(&backlog);
            thread::spawn(move || backlog.free_some(9))
        };
        let mut freed = backlog.free_some(1);
        nmi.join().unwrap();
        freed += other.join().unwrap();
        freed += backlog.free_some(9);
        assert_eq!(freed, 3);
        assert_eq!(backlog.queued.count(), 0);
        assert!(backlog.is_all_freed());
    });
}

/// M5: whoever finds both lines empty, one after the other, sees that what was put off before is freed, and
/// may use it; an NMI that comes meanwhile takes nothing away from that.
#[test]
fn who_waits_for_what_is_put_off_finds_it_freed() {
    explore(3, || {
        let backlog = Backlog::new(2);
        backlog.put_off(0);
        let nmi = {
            let backlog = Arc::clone(&backlog);
            thread::spawn(move || backlog.put_off(1))
        };
        let cpu = {
            let backlog = Arc::clone(&backlog);
            thread::spawn(move || backlog.free_some(9))
        };
        let wait = backlog.turns.wait().unwrap();
        let is_empty = [wait.turn(), wait.turn()].map(|line| backlog.queued.is_empty(line));
        drop(wait);
        if is_empty == [true, true] {
            assert_eq!(backlog.touched(0), 2);
            backlog.touch(0);
        }
        nmi.join().unwrap();
        let freed = cpu.join().unwrap();
        assert_eq!(freed + backlog.free_some(9), 2);
        assert!(backlog.touched(0) >= 2 && backlog.touched(1) == 2);
    });
}
