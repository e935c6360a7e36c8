//! The buddy allocator against the naive page map, on random operations in small worlds.

use mm::addr::{Order, Pfn, PfnRange};
use mm::buddy::Gfp;
use mm::frame::ZoneId;
use mm::system::{AllocError, Block, Memory, PageRun, SharedBlock};
use mm_tests::oracles::Owners;
use mm_tests::seed::{Random, check, seed};
use mm_tests::sim::{
    Checked, Debug, Listed, Machine, Plain, SimConfig, SimPlatform, Usual, Vmemmap,
};
use proptest::prelude::*;

use crate::model::{Model, in_a_word, range_in_a_word};
use crate::worlds::{WORLDS, world};

/// One step.
#[derive(Clone, Debug)]
enum Op {
    Alloc {
        order: u8,
        class: u8,
    },
    AllocRaw {
        order: u8,
        class: u8,
    },
    Bulk {
        count: u8,
        class: u8,
    },
    Exact {
        bytes: u32,
        class: u8,
    },
    /// A range at a place, both in 1/65536 of the machine.
    Contig {
        at: u16,
        frames: u16,
    },
    Share {
        which: u16,
    },
    Isolate {
        at: u16,
        frames: u16,
        zone: u8,
    },
    Unisolate {
        which: u16,
    },
    Free {
        which: u16,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![4 => 0_u8..3, 2 => 3_u8..9, 2 => 9_u8..11];
    let class = 0_u8..6;
    prop_oneof![
        8 => (order.clone(), class.clone()).prop_map(|(order, class)| Op::Alloc { order, class }),
        2 => (order, class.clone()).prop_map(|(order, class)| Op::AllocRaw { order, class }),
        1 => (any::<u8>(), class.clone()).prop_map(|(count, class)| Op::Bulk { count, class }),
        1 => (0_u32..5 << 20, class).prop_map(|(bytes, class)| Op::Exact { bytes, class }),
        3 => (any::<u16>(), 0_u16..1500).prop_map(|(at, frames)| Op::Contig { at, frames }),
        1 => any::<u16>().prop_map(|which| Op::Share { which }),
        1 => (any::<u16>(), 0_u16..1500, any::<u8>())
            .prop_map(|(at, frames, zone)| Op::Isolate { at, frames, zone }),
        1 => any::<u16>().prop_map(|which| Op::Unisolate { which }),
        9 => any::<u16>().prop_map(|which| Op::Free { which }),
    ]
}

fn gfp(class: u8) -> Gfp {
    // The model knows neither reserves nor an order of nodes.
    let kind = match class {
        0 => Gfp::KERNEL,
        1 => Gfp::KERNEL | Gfp::RECLAIMABLE,
        2 => Gfp::HIGHUSER_MOVABLE,
        3 => Gfp::USER | Gfp::MOVABLE,
        // Not `ATOMIC`: the model keeps no pageblocks for large requests.
        4 => Gfp::NOWAIT | Gfp::DMA32,
        _ => Gfp::NOWAIT | Gfp::DMA,
    };
    kind | Gfp::THISNODE | Gfp::MEMALLOC
}

/// Whatever has to be given back.
enum Held<'m, C: SimConfig> {
    Block(Block<&'m Memory<SimPlatform<C>>>),
    Shared(Vec<SharedBlock<&'m Memory<SimPlatform<C>>>>, PfnRange),
    Run(PageRun<&'m Memory<SimPlatform<C>>>),
    Raw(Pfn, Order),
}

/// A machine, the model, and everything that is live.
struct Play<'m, C: SimConfig> {
    machine: &'m Machine<C>,
    model: Model,
    owners: Owners,
    held: Vec<Held<'m, C>>,
    isolated: Vec<(ZoneId, PfnRange)>,
    end: u64,
}

impl<'m, C: SimConfig> Play<'m, C> {
    fn new(machine: &'m Machine<C>) -> Self {
        let ends = machine.zones().map(|zone| zone.span().end().as_u64());
        let zeroed = machine.options().unwrap().init_on_alloc;
        Self {
            machine,
            model: Model::of(machine),
            owners: if zeroed {
                Owners::of_zeroed()
            } else {
                Owners::new()
            },
            held: Vec::new(),
            isolated: Vec::new(),
            end: ends.max().unwrap(),
        }
    }

    fn took(&mut self, frames: PfnRange) {
        self.owners.took(self.machine.hardware().ram(), frames);
    }

    fn giving(&mut self, frames: PfnRange) {
        let owned = self
            .owners
            .giving(self.machine.hardware().ram(), frames.first());
        assert_eq!(owned, frames);
        self.model.give(frames);
    }

    fn refused(&self, error: AllocError, class: u8, order: Order) {
        assert_eq!(error, AllocError::OutOfMemory);
        let room = self.model.has_room(gfp(class), order);
        assert!(
            !room,
            "refused although there is room: {order}, class {class}"
        );
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Alloc { order, class } => self.alloc(order, class),
            Op::AllocRaw { order, class } => self.alloc_raw(order, class),
            Op::Bulk { count, class } => self.bulk(count, class),
            Op::Exact { bytes, class } => self.exact(u64::from(bytes), class),
            Op::Contig { at, frames } => self.contig(self.range(at, frames)),
            Op::Share { which } => self.share(which),
            Op::Isolate { at, frames, zone } => self.isolate(self.range(at, frames), zone),
            Op::Unisolate { which } => self.unisolate(which),
            Op::Free { which } => self.free(which),
        }
    }

    fn range(&self, at: u16, frames: u16) -> PfnRange {
        let first = (u64::from(at) * self.end) >> 16;
        PfnRange::from_numbers(first, first + u64::from(frames))
    }

    fn alloc(&mut self, order: u8, class: u8) {
        let order = Order::new(order).unwrap();
        match self.machine.alloc_block(gfp(class), order) {
            Ok(block) => {
                assert!(block.pfn().is_aligned(order) && block.order() == order);
                self.model.take(block.frames(), gfp(class));
                self.took(block.frames());
                self.held.push(Held::Block(block));
            }
            Err(error) => self.refused(error, class, order),
        }
    }

    fn alloc_raw(&mut self, order: u8, class: u8) {
        let order = Order::new(order).unwrap();
        match self.machine.alloc_pages(gfp(class), order) {
            Ok(pfn) => {
                self.model.take(PfnRange::block(pfn, order), gfp(class));
                self.took(PfnRange::block(pfn, order));
                self.held.push(Held::Raw(pfn, order));
            }
            Err(error) => self.refused(error, class, order),
        }
    }

    fn bulk(&mut self, count: u8, class: u8) {
        let mut pages = vec![None; usize::from(count)];
        let filled = self
            .machine
            .alloc_pages_bulk(gfp(class), &mut pages)
            .unwrap();
        for &pfn in pages.iter().flatten() {
            self.model
                .take(PfnRange::block(pfn, Order::ZERO), gfp(class));
            self.took(PfnRange::block(pfn, Order::ZERO));
            self.held.push(Held::Raw(pfn, Order::ZERO));
        }
        assert_eq!(filled, pages.iter().flatten().count());
        if filled < pages.len() {
            self.refused(AllocError::OutOfMemory, class, Order::ZERO);
        }
    }

    fn exact(&mut self, bytes: u64, class: u8) {
        let order = Order::for_bytes(bytes);
        match (self.machine.alloc_pages_exact(gfp(class), bytes), order) {
            (Ok(run), Some(_)) => {
                assert_eq!(run.frames().frames(), bytes.div_ceil(4096));
                self.model.take(run.frames(), gfp(class));
                self.took(run.frames());
                self.held.push(Held::Run(run));
            }
            (Err(_), Some(order)) if bytes > 0 => {
                self.refused(AllocError::OutOfMemory, class, order);
            }
            (answer, _) => assert!(answer.is_err()),
        }
    }

    fn contig(&mut self, range: PfnRange) {
        let expected = self.model.may_take_range(range);
        match self.machine.alloc_contig_range(range, Gfp::KERNEL) {
            Ok(run) => {
                assert_eq!((run.frames(), expected), (range, Ok(())));
                self.model.take_at(range);
                self.took(range);
                self.held.push(Held::Run(run));
            }
            Err(error) => assert_eq!(Err(in_a_word(&error)), expected, "{range:?}: {error:?}"),
        }
    }

    fn share(&mut self, which: u16) {
        let blocks = self
            .held
            .iter()
            .enumerate()
            .filter_map(|(at, held)| match held {
                Held::Block(_) => Some(at),
                _ => None,
            });
        let blocks: Vec<_> = blocks.collect();
        let Some(&at) = blocks.get(usize::from(which) % blocks.len().max(1)) else {
            return;
        };
        let Held::Block(block) = self.held.swap_remove(at) else {
            unreachable!("filtered above");
        };
        let frames = block.frames();
        let shared = block.share().expect("an intact record");
        assert_eq!(shared.count(), 1);
        let last = Pfn::new(frames.end().as_u64() - 1);
        assert_eq!(self.machine.get_page(last), Some(frames.first()));
        // SAFETY: the reference that `get_page` took just now.
        unsafe { self.machine.put_page(frames.first()) }.unwrap();
        let twins = vec![shared.clone(), shared];
        assert_eq!(twins[0].count(), 2);
        self.held.push(Held::Shared(twins, frames));
    }

    fn isolate(&mut self, range: PfnRange, zone: u8) {
        // What CPUs have at hand is not isolated with its pageblock.
        self.machine.drain_local_pages();
        let populated = self.machine.zones().filter(|zone| zone.is_populated());
        let zones: Vec<_> = populated.collect();
        let zone = zones[usize::from(zone) % zones.len()];
        let expected = self.model.isolate(zone.id(), range);
        let answer = zone.isolate(self.machine.hardware(), range);
        let answer = answer.map_err(|error| range_in_a_word(&error));
        assert_eq!(answer, expected, "isolating {range:?} of {}", zone.kind());
        if answer.is_ok() {
            self.isolated.push((zone.id(), range));
        }
    }

    fn unisolate(&mut self, which: u16) {
        if self.isolated.is_empty() {
            return;
        }
        let which = usize::from(which) % self.isolated.len();
        let (id, range) = self.isolated.swap_remove(which);
        let zone = self.machine.zones().find(|zone| zone.id() == id).unwrap();
        zone.unisolate(self.machine.hardware(), range);
        self.model.unisolate(id, range);
    }

    fn free(&mut self, which: u16) {
        if self.held.is_empty() {
            return;
        }
        match self.held.swap_remove(usize::from(which) % self.held.len()) {
            Held::Block(block) => self.giving(block.frames()),
            Held::Run(run) => self.giving(run.frames()),
            Held::Shared(mut twins, frames) => {
                drop(twins.pop());
                assert_eq!(twins[0].count(), 1);
                self.giving(frames);
            }
            Held::Raw(pfn, order) => {
                self.giving(PfnRange::block(pfn, order));
                // SAFETY: allocated by number, and forgotten here.
                unsafe { self.machine.free_pages(pfn, order) }.unwrap();
            }
        }
    }

    fn end(mut self) {
        while !self.held.is_empty() {
            self.free(0);
        }
        while !self.isolated.is_empty() {
            self.unisolate(0);
        }
    }
}

fn play<C: SimConfig>(machine: Machine<C>, ops: &[Op], check_every: usize) {
    let mut play = Play::new(&machine);
    for (number, op) in ops.iter().enumerate() {
        play.step(op);
        if number % check_every == check_every - 1 {
            machine.check();
        }
    }
    machine.check();
    play.end();
    machine.finish();
}

/// Plays random operations in a world; a failure is shrunk to few operations.
fn explore<C: SimConfig>(name: &str, cases: u32, steps: usize) {
    for number in 0..WORLDS {
        let ops = prop::collection::vec(op(), 1..steps);
        check(&format!("{name}, world {number}"), cases, &ops, |ops| {
            play(world::<C>(number).boot(), &ops, 64);
            Ok(())
        });
    }
}

#[test]
fn small_worlds_agree_with_the_model_in_the_hardened_profile() {
    explore::<Usual>("small_worlds_hardened", 24, 200);
}

#[test]
fn small_worlds_agree_with_the_model_in_the_plain_profile_with_vmemmap() {
    explore::<(Plain, Vmemmap)>("small_worlds_plain", 24, 200);
}

#[test]
fn small_worlds_agree_with_the_model_in_the_debug_profile() {
    explore::<Checked>("small_worlds_debug", 6, 200);
    explore::<(Debug, Vmemmap)>("small_worlds_debug_vmemmap", 2, 100);
}

#[test]
fn small_worlds_agree_with_the_model_when_cpus_have_page_lists() {
    explore::<Listed<Usual>>("small_worlds_lists", 12, 200);
    explore::<Listed<(Debug, Vmemmap)>>("small_worlds_lists_debug", 2, 100);
}

#[test]
fn a_gibibyte_agrees_with_the_model() {
    let mut random = Random::new(seed("a_gibibyte"));
    let machine = Machine::<(Plain, Vmemmap)>::with_ram(1 << 30);
    let ops: Vec<_> = (0..3_000)
        .map(|_| {
            let (order, class) = (random.below(11) as u8, random.below(6) as u8);
            let (at, frames) = (random.next_u64() as u16, random.below(1500) as u16);
            match random.below(10) {
                0..=4 => Op::Alloc { order, class },
                5 => Op::Contig { at, frames },
                6 => Op::Bulk { count: 255, class },
                _ => Op::Free { which: at },
            }
        })
        .collect();
    play(machine, &ops, 1_000);
}
