//! Copies in pages of their CPUs' own nodes, in areas of kernel addresses.

use std::ops::Deref;
use std::ptr::NonNull;

use mm::addr::{Order, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::config::DMA32_LIMIT;
use mm::platform::{CpuId, NodeId};
use mm::proc::vmallocinfo;
use mm::system::{PerCpuBox, PerCpuError};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::mmu::Access;
use mm_tests::sim::{Builder, Machine, Plain, SimConfig, SimSpace, Sparse, Usual, Vmemmap};

use super::{MIB, alloc, dirty, free, is_dirty};

/// Which node each CPU is on.
const NODES: [u16; 6] = [0, 1, 2, 0, 2, 1];

/// A machine with addresses for copies.
struct World<C: SimConfig> {
    machine: Machine<C>,
    space: SimSpace,
}

/// Three nodes, with two CPUs each.
fn three_nodes<C: SimConfig>(bytes: u64) -> Builder<C> {
    let start = |node: u16| DMA32_LIMIT + u64::from(node) * 128 * MIB;
    let nodes = (0..3).fold(Machine::<C>::new(), |machine, node| {
        machine.node(node, start(node), bytes)
    });
    nodes.cpus_on(&NODES)
}

impl<C: SimConfig> World<C> {
    fn new(builder: Builder<C>) -> Self {
        let mut machine = builder.boot();
        let areas = VirtRange::from_size(VirtAddr::new(0xffff_c900_0000_0000), 64 * MIB).unwrap();
        let copies = machine.hardware().ram().percpu_range();
        let space = SimSpace::adopt_with(&machine, areas, copies).unwrap();
        machine.vmalloc_reserve(64).unwrap();
        assert!(machine.drain_all_pages());
        machine.rebase();
        Self { machine, space }
    }

    fn place(&self, first: NonNull<u8>, cpu: u32) -> VirtAddr {
        let offset = self.percpu_offset(CpuId(cpu)).unwrap() as u64;
        let first = VirtAddr::from_ptr(first.as_ptr());
        first.checked_add(offset).unwrap()
    }

    /// The node of a CPU's copy, by the page tables; the CPU that runs this remembers where it is.
    fn node(&self, first: NonNull<u8>, cpu: u32) -> NodeId {
        let at = self.place(first, cpu);
        let page = self.space.page(&self.machine, at).expect("mapped");
        let found = self.touch(at, Access::WRITE).unwrap();
        assert_eq!(found.frame(), page.pfn);
        self.zone_of(page.pfn).unwrap().id().node
    }

    fn is_mapped(&self, first: NonNull<u8>) -> bool {
        let range = self.hardware().ram().percpu_range();
        range.contains(VirtAddr::from_ptr(first.as_ptr()))
    }

    fn finish(self) {
        self.shrink_caches();
        self.shrink_percpu();
        self.validate_vmalloc().unwrap();
        self.space.dismantle(&self.machine);
        self.machine.finish();
    }
}

impl<C: SimConfig> Deref for World<C> {
    type Target = Machine<C>;

    fn deref(&self) -> &Machine<C> {
        &self.machine
    }
}

fn each_copy_is_on_the_node_of_its_cpu<C: SimConfig>() {
    let world = World::new(three_nodes::<C>(16 * MIB));
    let mut random = Random::new(seed("percpu_near"));
    let mut objects = Vec::new();
    for number in 0..300_u32 {
        let size = 1 + random.below(3000) as usize;
        let first = alloc(&world, (size, 8));
        assert!(world.is_mapped(first));
        dirty(&world, first, size, number as u8);
        for (cpu, &node) in (0..).zip(&NODES) {
            assert_eq!(world.node(first, cpu), NodeId(node), "CPU {cpu}'s copy");
        }
        objects.push((first, size, number as u8));
    }
    let stats = world.percpu_stats();
    assert!(
        stats.chunks > 3 && stats.mapped == stats.chunks,
        "{stats:?}"
    );
    world.validate_percpu().unwrap();
    let mut text = String::new();
    vmallocinfo(&**world, &mut text).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.contains(" pcpu_get_vm_areas "));
    assert!(
        lines
            .clone()
            .all(|line| line.ends_with(" N0=16 N1=16 N2=16")),
        "{text}"
    );
    assert_eq!(lines.count(), stats.chunks);
    for (first, size, stamp) in objects {
        is_dirty(&world, first, size, stamp);
        free(&world, first, size);
    }
    // The addresses lead to other frames later, and no CPU goes by what was.
    world.shrink_percpu();
    assert_eq!(world.percpu_stats().chunks, 0);
    let page = world.alloc_block(Gfp::KERNEL, Order::PAGEBLOCK).unwrap();
    let first = alloc(&world, (3000, 8));
    for (cpu, &node) in (0..).zip(&NODES) {
        assert_eq!(world.node(first, cpu), NodeId(node));
    }
    free(&world, first, 3000);
    drop(page);
    world.finish();
}

#[test]
fn each_copy_is_on_the_node_of_its_cpu_with_all_checks() {
    each_copy_is_on_the_node_of_its_cpu::<Usual>();
}

#[test]
fn each_copy_is_on_the_node_of_its_cpu_in_the_plain_profile() {
    each_copy_is_on_the_node_of_its_cpu::<(Plain, Sparse)>();
}

#[test]
fn each_copy_is_on_the_node_of_its_cpu_by_anchors() {
    each_copy_is_on_the_node_of_its_cpu::<(Plain, Vmemmap)>();
}

/// Small pieces go by what is at hand, and values are reached in place.
#[test]
fn values_are_counted_in_near_copies() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let world = World::new(three_nodes::<(Plain, Sparse)>(16 * MIB));
    let memory = &**world;
    for _ in 0..100 {
        let values = PerCpuBox::new_with(memory, Gfp::KERNEL, |cpu| AtomicU64::new(cpu.0.into()));
        let values = values.unwrap();
        for (cpu, &node) in (0..).zip(&NODES) {
            assert_eq!(world.node(values.as_non_null().cast(), cpu), NodeId(node));
        }
        assert_eq!(values.sum(|value| value.load(Ordering::Relaxed)), 15);
    }
    world.finish();
}

/// As areas of a node: others help out.
#[test]
fn copies_come_from_other_nodes_where_one_is_full() {
    let world = World::new(three_nodes::<(Plain, Sparse)>(16 * MIB));
    let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN | Gfp::MEMALLOC;
    let take = || world.alloc_pages_node(NodeId(1), gfp, Order::ZERO).ok();
    let taken: Vec<_> = std::iter::from_fn(take).collect();
    assert!(taken.len() > 3000);
    let first = alloc(&world, (100, 8));
    dirty(&world, first, 100, 1);
    assert!(world.is_mapped(first));
    for (cpu, &node) in (0..).zip(&NODES) {
        let found = world.node(first, cpu);
        assert_eq!(
            found == NodeId(node),
            node != 1,
            "CPU {cpu}'s copy: {found:?}"
        );
    }
    free(&world, first, 100);
    for pfn in taken {
        // SAFETY: taken above, and used by nobody.
        unsafe { world.free_pages(pfn, Order::ZERO) }.unwrap();
    }
    world.finish();
}

/// Who may not sleep maps nothing and unmaps nothing; both kinds of chunks are used alike.
#[test]
fn who_may_not_sleep_gets_copies_in_a_row() {
    let world = World::new(three_nodes::<Usual>(32 * MIB));
    let in_atomic = || {
        let alloc = || world.alloc_percpu((32 << 10, 8), Gfp::ATOMIC).unwrap();
        world.hardware().in_atomic(alloc)
    };
    let row = in_atomic();
    assert!(!world.is_mapped(row));
    let near = alloc(&world, (32 << 10, 8));
    assert!(world.is_mapped(near));
    let more = alloc(&world, (32 << 10, 8));
    let stats = world.percpu_stats();
    assert_eq!((stats.chunks, stats.mapped), (3, 2));
    for (first, stamp) in [(row, 1), (near, 2), (more, 3)] {
        dirty(&world, first, 32 << 10, stamp);
    }
    for (first, stamp) in [(row, 1), (near, 2), (more, 3)] {
        is_dirty(&world, first, 32 << 10, stamp);
    }
    world.validate_percpu().unwrap();
    world.hardware().in_atomic(|| {
        for first in [row, near, more] {
            free(&world, first, 32 << 10);
        }
    });
    // What could not be unmapped there waits for the next who may.
    let near = alloc(&world, (32 << 10, 8));
    free(&world, near, 32 << 10);
    let wrong = NonNull::new(near.as_ptr().wrapping_add(64 << 20)).unwrap();
    for first in [near, wrong] {
        // SAFETY: refused.
        let again = unsafe { world.free_percpu(first, 32 << 10) };
        assert!(again.is_err());
    }
    world.finish();
}

/// Free pages that are apart do for an area, if there are as many as it needs with its record and tables. With fewer there is
/// nothing, and nothing is lost, wherever they ran out.
#[test]
fn pages_from_anywhere_do_and_too_few_leave_nothing() {
    let mut outcomes = Vec::new();
    for pages in (0..90).step_by(3) {
        let world = World::new(three_nodes::<Usual>(8 * MIB));
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        let take = || world.alloc_block(gfp, Order::ZERO).ok();
        let mut taken: Vec<_> = std::iter::from_fn(take).collect();
        taken.sort_by_key(|block| block.pfn());
        // What is left is below the marks. Every second one goes back, so that no two of them are a block.
        let apart = taken.len() - 2 * pages..taken.len();
        let (mut kept, mut number) = (Vec::new(), 0);
        taken.drain(apart).for_each(|block| {
            number += 1;
            if number % 2 == 0 {
                kept.push(block);
            }
        });
        let first = world.alloc_percpu((100, 8), Gfp::KERNEL);
        outcomes.push(first.is_ok());
        match first {
            Ok(first) => {
                assert!(world.is_mapped(first));
                dirty(&world, first, 100, 7);
                world.validate_percpu().unwrap();
                free(&world, first, 100);
            }
            Err(error) => {
                assert_eq!(error, PerCpuError::OutOfMemory);
                assert_eq!(world.percpu_stats().chunks, 0);
            }
        }
        drop((taken, kept));
        world.finish();
    }
    // 48 pages for the units, and a few besides.
    let enough = outcomes.iter().position(|&is_there| is_there).unwrap();
    assert!((16..=20).contains(&enough), "{outcomes:?}");
    assert!(outcomes[enough..].iter().all(|&is_there| is_there));
}
