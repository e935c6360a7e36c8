//! R62: requests of all sorts, of which some fail on purpose: whoever asked has nothing then, and
//! nothing is lost.
//!
//! `MM_CASES` sets how many blocks of 100,000 operations there are: 100 for ten million.

use mm::addr::{Order, PfnRange};
use mm::buddy::Gfp;
use mm::platform::NodeId;
use mm::system::{AllocError, Block, ExactError, FailPageAlloc, Memory, PageRun, SharedBlock};
use mm_tests::oracles::Owners;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Checked, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap};

const MIB: u64 = 1 << 20;

type Home<'m, C> = &'m Memory<SimPlatform<C>>;

enum Held<'m, C: SimConfig> {
    Block(Block<Home<'m, C>>),
    Run(PageRun<Home<'m, C>>),
    Shared([SharedBlock<Home<'m, C>>; 2]),
    Number(PfnRange),
}

struct Play<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    random: Random,
    owners: Owners,
    held: Vec<Held<'m, C>>,
    /// Requests that the rule was asked about, and those that got nothing.
    asked: u64,
    refused: u64,
}

impl<'m, C: SimConfig> Play<'m, C> {
    fn gfp(&mut self) -> Gfp {
        let gfp = [
            Gfp::KERNEL,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::ATOMIC,
            Gfp::NOWAIT | Gfp::RECLAIMABLE,
        ];
        gfp[self.random.below_index(4)] | Gfp::NOWARN
    }

    fn keep(&mut self, frames: PfnRange, held: Held<'m, C>) {
        self.owners.took(self.machine.hardware().ram(), frames);
        self.held.push(held);
    }

    fn served<T>(&mut self, result: Result<T, AllocError>) -> Option<T> {
        self.asked += 1;
        if let Err(error) = &result {
            assert_eq!(*error, AllocError::OutOfMemory);
            self.refused += 1;
        }
        result.ok()
    }

    fn take(&mut self) {
        let order =
            Order::new([0, 0, 0, 0, 0, 1, 2, 3, 4, 6][self.random.below_index(10)]).unwrap();
        let gfp = self.gfp();
        match self.random.below(8) {
            0..=2 => {
                let block = self.machine.alloc_block(gfp, order);
                if let Some(block) = self.served(block) {
                    self.keep(block.frames(), Held::Block(block));
                }
            }
            3 => {
                let pfn = self.machine.alloc_pages(gfp, order);
                if let Some(pfn) = self.served(pfn) {
                    let frames = PfnRange::block(pfn, order);
                    self.keep(frames, Held::Number(frames));
                }
            }
            4 => {
                let block = self.machine.alloc_block_node(NodeId(0), gfp, order);
                if let Some(block) = self.served(block) {
                    let frames = block.frames();
                    let shared = block.share().unwrap();
                    self.keep(frames, Held::Shared([shared.clone(), shared]));
                }
            }
            5 => {
                let mut pages = [None; 8];
                let filled = self.machine.alloc_pages_bulk(gfp, &mut pages).unwrap();
                self.asked += 1;
                assert_eq!(filled, pages.iter().flatten().count());
                for &pfn in pages.iter().flatten() {
                    let frames = PfnRange::block(pfn, Order::ZERO);
                    self.keep(frames, Held::Number(frames));
                }
            }
            6 => {
                let run = self
                    .machine
                    .alloc_pages_exact(gfp, 1 + self.random.below(40_000));
                let run = run.map_err(|error| match error {
                    ExactError::Alloc(error) => error,
                    error => panic!("{error}"),
                });
                if let Some(run) = self.served(run) {
                    self.keep(run.frames(), Held::Run(run));
                }
            }
            // What is not a request of the allocator's does not fail.
            _ => {
                if let Ok(run) = self
                    .machine
                    .cma_alloc(1 + self.random.below(40), Order::ZERO)
                {
                    self.keep(run.frames(), Held::Run(run));
                }
            }
        }
    }

    fn give(&mut self) {
        let held = self
            .held
            .swap_remove(self.random.below_index(self.held.len()));
        let frames = match &held {
            Held::Block(block) => block.frames(),
            Held::Run(run) => run.frames(),
            Held::Shared([one, _]) => PfnRange::block(one.pfn(), one.order()),
            Held::Number(frames) => *frames,
        };
        self.owners
            .giving(self.machine.hardware().ram(), frames.first());
        if let Held::Number(frames) = held {
            let order = Order::for_bytes(frames.addrs().size()).unwrap();
            // SAFETY: taken as a number, and forgotten here.
            unsafe { self.machine.free_pages(frames.first(), order) }.unwrap();
        }
    }
}

fn mixed<C: SimConfig>(blocks: u64, operations: u64, live: usize) {
    let seed = seed("faults");
    let rule = FailPageAlloc::per_cent(1, seed);
    let machine = Machine::<C>::new()
        .ram(16 * MIB, 96 * MIB)
        .options(|options| {
            options.fail_page_alloc = Some(rule);
            options.cma_bytes = 16 * MIB;
        });
    let machine = machine.boot();
    let zeroed = machine.options().unwrap().init_on_alloc;
    let mut play = Play {
        machine: &machine,
        random: Random::new(seed),
        owners: if zeroed {
            Owners::of_zeroed()
        } else {
            Owners::new()
        },
        held: Vec::new(),
        asked: 0,
        refused: 0,
    };
    for _ in 0..blocks {
        for _ in 0..operations {
            let full = play.held.len() >= live;
            if full || (play.random.below(3) == 0 && !play.held.is_empty()) {
                play.give();
            } else {
                play.take();
            }
        }
        machine.check();
    }
    // Nothing but the rule refused anything.
    let injected = machine.injected_failures();
    assert!(play.refused <= injected && injected > 0);
    // Within five standard deviations.
    let (expected, off) = (play.asked / 100, 5 * (play.asked / 100).isqrt() + 1);
    let asked = play.asked;
    assert!(injected.abs_diff(expected) <= off, "{injected} of {asked}");
    println!("{} requests, {injected} failed on purpose", play.asked);
    while !play.held.is_empty() {
        play.give();
    }
    drop(play);
    machine.finish();
}

#[test]
fn one_request_in_a_hundred_fails_and_nothing_is_lost() {
    mixed::<Usual>(1, 30_000, 800);
    mixed::<Listed<Checked>>(1, 5_000, 200);
    mixed::<Listed<(Plain, Vmemmap)>>(cases(2), 100_000, 1_500);
}

#[test]
fn every_request_fails_when_the_rule_says_so_and_nothing_changes() {
    let all = FailPageAlloc::per_cent(100, 0);
    let builder = Machine::<Listed<Usual>>::new().ram(16 * MIB, 64 * MIB);
    let machine = builder
        .options(|options| options.fail_page_alloc = Some(all))
        .boot();
    let before = machine.free_frames();
    for order in Order::all() {
        for gfp in [
            Gfp::KERNEL,
            Gfp::ATOMIC,
            Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC,
        ] {
            assert_eq!(
                machine.alloc_pages(gfp, order),
                Err(AllocError::OutOfMemory)
            );
        }
    }
    let mut pages = [None; 20];
    assert_eq!(machine.alloc_pages_bulk(Gfp::KERNEL, &mut pages), Ok(0));
    assert_eq!(machine.injected_failures(), 34);
    // Each is told, unless the request says not to.
    let forced = machine.hardware().take_forced();
    assert_eq!(forced.len(), 34);
    let first = "FAULT_INJECTION: forcing a failure.\nname fail_page_alloc, order:0, mode:0xcc0";
    assert_eq!(forced[0].to_string(), first);
    let quiet = machine.alloc_page(Gfp::KERNEL | Gfp::NOWARN);
    assert_eq!(quiet, Err(AllocError::OutOfMemory));
    assert_eq!(machine.hardware().take_forced(), []);
    // It is not for want of memory, and is not reported as such.
    assert_eq!(machine.hardware().take_failures().0, 0);
    assert_eq!(machine.free_frames(), before);
    let page = machine.alloc_block(Gfp::KERNEL | Gfp::NOFAIL, Order::ZERO);
    drop(page.unwrap());
    machine.finish();
}
