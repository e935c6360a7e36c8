//! M1, M2, M5: the state word, speculative references, and the stack that NMIs push to.

use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::addr::{Order, Pfn};
use crate::frame::{CachedWord, Frame, FrameStack, FrameState, Kind, Word, ZoneId};
use crate::platform::NodeId;
use crate::sync::{Dropped, RefCount};

const HOME: ZoneId = ZoneId {
    node: NodeId(0),
    zone: 1,
};

fn unique() -> Word {
    Word::unique(HOME, Order::ZERO, 0)
}

fn shared() -> Word {
    unique().with_state(FrameState::Shared)
}

fn slab() -> Word {
    unique().for_kind(Kind::Slab)
}

fn free() -> Word {
    Word::free(HOME, Order::ZERO)
}

/// A page: its record, and what stands in it. The cell is loom's: two who use it at a time are found out.
struct Page {
    frame: Frame,
    bytes: loom::cell::UnsafeCell<u64>,
}

impl Page {
    fn new(word: Word) -> Arc<Self> {
        let page = Self {
            frame: Frame::default(),
            bytes: loom::cell::UnsafeCell::new(0),
        };
        page.frame.publish(word);
        Arc::new(page)
    }

    fn write(&self, value: u64) {
        // SAFETY: loom fails the model if anybody else is at it.
        self.bytes.with_mut(|bytes| unsafe { *bytes = value });
    }

    fn read(&self) -> u64 {
        // SAFETY: as above.
        self.bytes.with(|bytes| unsafe { *bytes })
    }
}

/// Drops a reference; the last one makes the page free, and writes to it as its next owner would.
fn put(page: &Page) {
    match page.frame.put(shared(), unique()) {
        Dropped::Shared => {}
        Dropped::Last => {
            page.write(0);
            page.frame.publish(free());
        }
        Dropped::Saturated => panic!("a reference too many was dropped"),
    }
}

/// M1: a page becomes an owner's, is shared, and loses its last reference, while somebody who knows its
/// number looks at it. The reference is had only of a shared page, and keeps it.
#[test]
fn a_page_is_allocated_shared_and_freed_while_another_tries_to_get_it() {
    explore(3, || {
        let page = Page::new(free());
        let other = Arc::clone(&page);
        let reader = thread::spawn(move || {
            if other.frame.try_get() {
                assert_eq!(other.read(), 7, "a reference before the page was shared");
                put(&other);
            }
        });
        page.frame.exchange(free(), unique()).unwrap();
        page.write(7);
        page.frame.share(unique(), shared());
        put(&page);
        reader.join().unwrap();
        assert_eq!(page.frame.word(), free());
        assert_eq!(page.read(), 0);
    });
}

/// M1: two allocations that are offered the same page do not both get it.
#[test]
fn only_one_gets_a_page_that_is_free() {
    explore(3, || {
        let page = Page::new(free());
        let other = Arc::clone(&page);
        let take = |page: &Page| {
            let got = page.frame.exchange(free(), unique()).is_ok();
            if got {
                page.write(1);
            }
            got
        };
        let theirs = thread::spawn(move || take(&other));
        let mine = take(&page);
        assert!(mine != theirs.join().unwrap());
    });
}

/// M2: two speculative references against the last drop: whoever is last frees, and nobody reads after.
#[test]
fn a_speculative_reference_keeps_the_page_or_is_refused() {
    explore(3, || {
        let page = Page::new(unique());
        page.write(7);
        page.frame.share(unique(), shared());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let page = Arc::clone(&page);
                thread::spawn(move || {
                    if page.frame.try_get() {
                        assert_eq!(page.read(), 7);
                        put(&page);
                    }
                })
            })
            .collect();
        put(&page);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(page.frame.word(), free());
    });
}

/// M2: the page is freed and shared anew while somebody still knows it from before: the reference that is
/// had then is one to the new life.
#[test]
fn a_reference_to_a_page_that_lives_again_sees_its_new_life() {
    explore(3, || {
        let page = Page::new(unique());
        page.write(7);
        page.frame.share(unique(), shared());
        let other = Arc::clone(&page);
        let reader = thread::spawn(move || {
            if other.frame.try_get() {
                assert!(other.frame.word_acquire().is(FrameState::Shared));
                let found = other.read();
                assert!(found == 7 || found == 8, "{found} is nobody's");
                put(&other);
            }
        });
        if page.frame.put(shared(), unique()) == Dropped::Last {
            page.write(8);
            page.frame.share(unique(), shared());
            put(&page);
        }
        reader.join().unwrap();
        assert_eq!(page.frame.word(), free());
    });
}

/// M2: the page loses its last reference and becomes a slab, whose record has something else where the count was,
/// while somebody still knows it from before: there is nothing to refer to then, and the record stays as it is.
#[test]
fn a_page_that_becomes_a_slab_is_not_referenced() {
    explore(3, || {
        let note = RefCount::note(5);
        let page = Page::new(unique());
        page.frame.share(unique(), shared());
        let other = Arc::clone(&page);
        let reader = thread::spawn(move || {
            if other.frame.try_get() {
                assert!(other.frame.word_acquire().is(FrameState::Shared));
                put(&other);
            }
        });
        if page.frame.put(shared(), unique()) == Dropped::Last {
            page.frame.publish(slab());
            page.frame.refs().set_note(note);
            reader.join().unwrap();
            assert_eq!((page.frame.word(), page.frame.refs().get()), (slab(), note));
        } else {
            reader.join().unwrap();
        }
    });
}

/// M5: blocks are pushed from two contexts while a third takes all: each comes off once, and what was
/// written before the push is seen.
#[test]
fn blocks_pushed_by_nmis_come_off_once() {
    explore(3, || {
        let stack = Arc::new(FrameStack::new());
        let cached = CachedWord::of(unique()).word();
        let pages: Arc<[Arc<Page>; 2]> = Arc::new([Page::new(cached), Page::new(cached)]);
        let push = |stack: &FrameStack, pages: &[Arc<Page>; 2], number: usize| {
            pages[number].write(9);
            stack.push(Pfn::new(number as u64), &pages[number].frame)
        };
        let theirs = {
            let (stack, pages) = (Arc::clone(&stack), Arc::clone(&pages));
            thread::spawn(move || push(&stack, &pages, 1))
        };
        let take = |stack: &FrameStack, pages: &[Arc<Page>; 2]| {
            let mut taken = [0_u32; 2];
            let mut next = stack.take();
            while let Some(pfn) = next {
                let number = pfn.as_u64() as usize;
                taken[number] += 1;
                next = pages[number].frame.below();
                assert_eq!(pages[number].read(), 9);
                pages[number].write(0);
            }
            taken
        };
        let taker = {
            let (stack, pages) = (Arc::clone(&stack), Arc::clone(&pages));
            thread::spawn(move || take(&stack, &pages))
        };
        let _ = push(&stack, &pages, 0);
        theirs.join().unwrap();
        let early = taker.join().unwrap();
        let late = take(&stack, &pages);
        assert_eq!([early[0] + late[0], early[1] + late[1]], [1, 1]);
        assert!(stack.is_empty());
    });
}
