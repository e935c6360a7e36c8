//! R32: tables are unmapped and freed while others walk through them. One host thread is all CPUs: at any call of the platform
//! that a walker makes, in the midst of its walk, another CPU may take the mapping away, a third one look whether tables may be
//! freed and use what is free for something else, and the walker's own CPU take an interrupt. Nobody reads a table that was
//! freed: what is found there is what stood there, or nothing.

use std::cell::{Cell, RefCell};

use mm::addr::{Order, PfnRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::pagetable::{Attributes, Entry, Level, PageSize, PageTable, Step};
use mm::sync::shootdown::Lazy;
use mm::system::{Block, Memory};
use mm_tests::for_four_configs;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Machine, SimConfig, SimPlatform};

const MIB: u64 = 1 << 20;
const AT: u64 = 0xffff_c900_4020_3000;
const PAGES: u64 = 3;
/// Another mapping, so that whoever looks for the next page goes on.
const BEHIND: u64 = AT + (3 << 30);

for_four_configs! {
    walkers_read_no_table_that_was_freed,
}

type Pages<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

/// What others do, one after the other; the walker may come to its end at any time.
#[derive(Clone, Copy)]
enum Does {
    /// The second CPU takes the mapping away.
    Unmap,
    /// The walker's CPU takes an interrupt, which ends as handlers of the kernel's do.
    Interrupt,
    /// The third one frees what may be freed, …
    Free,
    /// … and uses what is free then.
    Use,
}

const SCRIPT: [Does; 10] = {
    use Does::{Free, Interrupt, Unmap, Use};
    [
        Unmap, Interrupt, Free, Interrupt, Free, Use, Interrupt, Free, Interrupt, Use,
    ]
};

struct Others<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    tables: PageTable,
    /// Points of the walk before they begin.
    begins_in: Cell<u64>,
    /// How much of the script is done, and how much of it comes at one point.
    done: Cell<usize>,
    pace: Cell<usize>,
    /// What was free is somebody's.
    used: RefCell<Vec<Pages<'m, C>>>,
}

impl<C: SimConfig> Others<'_, C> {
    fn range() -> VirtRange {
        VirtRange::from_size(VirtAddr::new(AT), PAGES * 4096).unwrap()
    }

    fn unmap(&self) {
        // SAFETY: nobody uses the addresses.
        let receipt = unsafe {
            self.machine
                .unmap_pages(&self.tables, Self::range(), |_, _| ())
        };
        receipt.unwrap().complete();
    }

    fn point(&self) {
        if self.begins_in.get() > 0 {
            self.begins_in.set(self.begins_in.get() - 1);
            return;
        }
        for _ in 0..self.pace.get() {
            let Some(does) = SCRIPT.get(self.done.get()) else {
                return;
            };
            self.done.set(self.done.get() + 1);
            match does {
                Does::Interrupt => {
                    let _ = self.machine.grace().quiescent();
                }
                Does::Unmap => {
                    let _second = self.machine.cpu(1);
                    self.unmap();
                }
                Does::Free => {
                    let _third = self.machine.cpu(2);
                    let _ = self.machine.grace().tend();
                }
                Does::Use => {
                    let _third = self.machine.cpu(2);
                    self.use_what_is_free();
                }
            }
        }
    }

    /// Writes to whatever is free.
    fn use_what_is_free(&self) {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        for _ in 0..12 {
            let mut page = Block::alloc(&**self.machine, gfp, Order::ZERO).unwrap();
            page.bytes_mut().fill(0xee);
            self.used.borrow_mut().push(page);
        }
    }
}

/// Whether a walk found what it can have found: of `before`, or nothing from some table on.
fn is_fine(before: &[Step], walk: &[Step]) -> bool {
    let same = before.iter().zip(walk).take_while(|(a, b)| a == b).count();
    match walk.get(same) {
        None => walk.len() == before.len(),
        // The first that is not as it was is clear, and the last.
        Some(step) => {
            let place = before[same];
            let is_there = (step.table, step.index) == (place.table, place.index);
            is_there && step.entry == Entry::NONE && walk.len() == same + 1
        }
    }
}

/// So many schedules on one machine. Answers how many walkers found a part.
fn schedules<C: SimConfig>(count: u64, random: &mut Random) -> u64 {
    let machine = Machine::<C>::new().ram(0, 32 * MIB).cpus(3).boot();
    let others = Others {
        machine: &machine,
        tables: machine.new_page_table(Level::P4D).unwrap(),
        begins_in: Cell::new(0),
        done: Cell::new(0),
        pace: Cell::new(0),
        used: RefCell::default(),
    };
    let tables = others.tables;
    let map = |at, pages| {
        let frames = PfnRange::from_count(mm::addr::Pfn::new((at / 4096) & 0xfff), pages).unwrap();
        let row = (VirtAddr::new(at), frames);
        // SAFETY: nobody runs through these tables; also below.
        unsafe { machine.map_pages(&tables, row, Attributes::KERNEL, PageSize::Size4K) }.unwrap();
    };
    map(BEHIND, 1);
    let mut parts = 0;
    for _ in 0..count {
        map(AT, PAGES);
        let at = VirtAddr::new(AT + random.below(PAGES) * 4096);
        let before: Vec<_> = machine.walk(&tables, at).steps().collect();
        assert_eq!(before.len(), 4);
        let next = machine.next_span(&tables, at);
        let behind = machine.next_span(&tables, VirtAddr::new(BEHIND));
        others.begins_in.set(random.below(9));
        others.done.set(0);
        others.pace.set(1 + random.below_index(SCRIPT.len()));
        let looks = random.below(3);
        let point = || others.point();
        let look = || match looks {
            0 => {
                let found = machine.next_span(&tables, at);
                // A part of it, or what is behind.
                let is_part = found.zip(next).is_some_and(|(found, next)| {
                    found.first == next.first && next.range.covers(found.range)
                });
                assert!(is_part || found == behind, "{found:?}");
            }
            _ => {
                let found: Vec<_> = machine.walk(&tables, at).steps().collect();
                assert!(is_fine(&before, &found), "{found:?}, not of {before:?}");
                parts += u64::from(found != before);
            }
        };
        // It is not waited for where translations are flushed: it has served that.
        machine.idle(Lazy::Offline, || {
            let _ = machine.hardware().with_nmis(point, look);
        });
        others.unmap();
        machine.grace().barrier().unwrap();
        others.used.borrow_mut().clear();
        assert_eq!(machine.walk(&tables, at).leaf(), None);
    }
    // SAFETY: nobody else knows them.
    unsafe { machine.destroy_page_table(tables) };
    machine.grace().barrier().unwrap();
    drop(others);
    machine.finish();
    parts
}

fn walkers_read_no_table_that_was_freed<C: SimConfig>() {
    let mut random = Random::new(seed("walkers"));
    // Where nobody has ever walked before, …
    let fresh: u64 = (0..50).map(|_| schedules::<C>(2, &mut random)).sum();
    // … and then again and again.
    let count = cases(10_000);
    let parts = schedules::<C>(count, &mut random);
    println!("{count} schedules: {fresh} and {parts} walks found a part");
    assert!(parts > count / 100);
}
