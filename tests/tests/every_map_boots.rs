//! Every firmware map on the simulated machine, up to a page allocator with all pages free.
//!
//! What came up is compared with the plan of nodes and zones, which `firmware_maps` compares
//! with Linux's numbers, and with the map itself; then a sample of pages is taken from every
//! zone and given back.

use mm::addr::{Order, PfnRange, PhysAddr, PhysRange};
use mm::buddy::{Gfp, MigrateType};
use mm::config::{PAGE_SIZE, SECTION_FRAMES};
use mm::memblock::Memblock;
use mm::memblock::firmware::{FirmwareKind, FirmwareRegion};
use mm::memblock::params::{MapEdit, Params};
use mm::memblock::sanitize::FirmwareMap;
use mm::memblock::setup::{self, LowMemory, SetupError, SetupPolicy};
use mm::platform::NodeId;
use mm::system::AllocError;
use mm::zone::Zone;
use mm::zone::plan::{CoreWish, NodePlan, Plan};
use mm_tests::maps::FirmwareMapFile;
use mm_tests::oracles::{self, Owners, Shape};
use mm_tests::sim::{
    BootError, Builder, Debug, Flat, Hardened, Machine, Plain, SimConfig, Sparse, Vmemmap,
};
use mm_tests::window::Window;

const GIB: u64 = 1 << 30;
/// Physical address bits of the simulated CPUs.
const PHYS_BITS: u32 = 52;
/// The file that says nothing about usable memory.
const WITHOUT_RAM: &str = "pub-amd-cxl-soft-reserved-split-at-1t";
/// Machines with more RAM have too many frame records to look at one by one: for them the blocks
/// are walked, which reads only first records, and compared with the counters.
const MOST_FOR_EVERY_FRAME: u64 = 4 * GIB;
/// Maps with more RAM are tested with one memory model only.
const LARGE: u64 = 64 * GIB;
/// How many maps have more.
const LARGE_MAPS: usize = 9;
/// Flat tables have records for holes too, in one piece.
const LONGEST_FLAT: u64 = 16 * GIB;
/// The `debug` profile fills free memory, so all of it is really there.
const MOST_POISONED: u64 = 200 << 20;
/// The largest blocks that are written to, in frames.
const MOST_STAMPED: u64 = 32;

/// How memory is spread over nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nodes {
    /// All on node 0.
    One,
    /// As the firmware's table says.
    Firmware,
}

/// A map as this test uses it.
struct Case {
    name: String,
    entries: Vec<FirmwareRegion>,
    command_line: String,
    params: Params,
    homes: Vec<(u16, PhysRange)>,
}

/// What a machine must look like.
struct Expected {
    memblock: Memblock,
    plans: Vec<NodePlan>,
    /// RAM in bytes, and where it ends.
    ram: u64,
    end: u64,
}

impl Case {
    fn all(nodes: Nodes) -> Vec<Self> {
        let case = |map: FirmwareMapFile| {
            let command_line = map.linux.command_line();
            let homes = map.numa.iter().filter_map(|part| {
                // An entry that wraps is the table reader's business.
                let range = PhysRange::new(PhysAddr::new(part.start.0), PhysAddr::new(part.end.0));
                Some((part.node, range?))
            });
            Self {
                entries: map.entries(),
                params: Params::parse(&command_line, |error| panic!("{}: {error}", map.name)),
                command_line,
                homes: homes.filter(|_| nodes == Nodes::Firmware).collect(),
                name: map.name,
            }
        };
        FirmwareMapFile::all().into_iter().map(case).collect()
    }

    /// Computed once more, apart from any machine.
    fn expected(&self) -> Result<Expected, SetupError> {
        let mut window = Window::none();
        let mut memblock = window.memblock();
        let policy = SetupPolicy {
            phys_bits: PHYS_BITS,
            low_memory: LowMemory::Reserve,
            params: &self.params,
        };
        setup::add_firmware_map(&mut memblock, &window, &self.entries, &policy, &mut |_| {})?;
        for (node, range) in &self.homes {
            memblock.set_node(&window, *range, NodeId(*node)).unwrap();
        }
        let mut plans = vec![NodePlan::EMPTY; 64];
        Plan::compute(&memblock, CoreWish::from(&self.params), &mut plans).unwrap();
        Ok(Expected {
            ram: memblock.memory_bytes(),
            end: memblock.span().end().as_u64(),
            memblock,
            plans,
        })
    }

    fn machine<C: SimConfig>(&self) -> Builder<C> {
        let (entries, line) = (&self.entries, &self.command_line);
        let machine = Machine::<C>::new().firmware(entries, LowMemory::Reserve, line);
        let home =
            |machine: Builder<C>, (node, range): &(u16, PhysRange)| machine.home(*node, *range);
        self.homes.iter().fold(machine, home)
    }

    /// Boots, looks at everything, takes a sample, gives it back.
    fn run<C: SimConfig>(&self, expected: &Expected) {
        eprintln!("{}", self.name);
        let machine = self.machine::<C>();
        let machine = machine
            .options(|options| options.init_on_alloc = false)
            .boot();
        expected.zones_are_as_planned(&machine);
        expected.all_is_free(&machine);
        self.free_memory_is_usable(expected, machine.initial());
        take_and_return(&machine);
        finish(machine, expected.ram);
    }

    /// Every free page is RAM by the firmware's word, and nobody else's.
    fn free_memory_is_usable(&self, expected: &Expected, free: &Shape) {
        let map = FirmwareMap::new(&self.entries, PHYS_BITS).edited(&self.params);
        let usable: Vec<_> = map
            .ranges()
            .filter(|found| found.kind == FirmwareKind::Usable)
            .map(|found| found.range)
            .collect();
        let added = |edit: &MapEdit| matches!(edit, MapEdit::Add { .. });
        let believed = !self.params.edits().iter().any(added);
        for range in free.ranges().into_iter().map(PfnRange::addrs) {
            let covered: u64 = usable.iter().map(|ram| ram.intersect(range).size()).sum();
            assert_eq!(covered, range.size(), "free, but not all usable: {range}");
            for entry in self
                .entries
                .iter()
                .filter(|entry| believed && is_taken(entry))
            {
                let whole = entry.range();
                assert!(!whole.overlaps(range), "{range} is free, but in {entry:?}");
            }
            let reserved = expected.memblock.reserved();
            let taken = reserved.iter().find(|region| region.range.overlaps(range));
            assert!(taken.is_none(), "{range} is free, but reserved: {taken:?}");
        }
    }
}

/// Whether an entry that can be believed says that this is not for use.
fn is_taken(entry: &FirmwareRegion) -> bool {
    let kind = FirmwareKind::from_e820(entry.kind);
    entry.size > 0 && !entry.wraps() && entry.kind != 0 && kind != FirmwareKind::Usable
}

impl Expected {
    fn zones_are_as_planned<C: SimConfig>(&self, machine: &Machine<C>) {
        for node in machine.nodes() {
            let plan = &self.plans[usize::from(node.id().0)];
            assert_eq!(node.span(), plan.frames, "node {}", node.id());
            assert_eq!(node.present(), plan.present, "node {}", node.id());
            for zone in node.zones() {
                let planned = plan.zone(zone.kind());
                let place = format!("zone {} of node {}", zone.kind(), node.id());
                assert_eq!(zone.span(), planned.frames, "{place}");
                assert_eq!(zone.present(), planned.present, "{place}");
            }
        }
        let planned: u64 = self.plans.iter().map(|plan| plan.present).sum();
        assert_eq!(machine.booted().present, planned);
    }

    /// All managed pages are free, and what is not managed was reserved or holds our tables.
    fn all_is_free<C: SimConfig>(&self, machine: &Machine<C>) {
        let booted = machine.booted();
        let zones = machine
            .zones()
            .map(|zone| (zone.managed(), zone.free_frames()));
        let (managed, free) = zones.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(managed, booted.managed);
        assert_eq!(free, managed);
        assert_eq!(machine.initial().frames(), managed);

        let tables = booted.present - managed - self.reserved_frames();
        let records = booted.record_bytes / PAGE_SIZE;
        let side = (booted.side_bytes + booted.cache_bytes).div_ceil(PAGE_SIZE);
        // Each section has a table or two, aligned to 64 bytes; and there is a page at each border
        // of a node's tables, more where memblock skips a range that is too small for one.
        let padding = (booted.recorded / SECTION_FRAMES * 2 * 64).div_ceil(PAGE_SIZE);
        let most = records + side + padding + 2 * machine.zones().count() as u64;
        assert!(
            (records..=most).contains(&tables),
            "{tables} pages of tables, not {records} to {most}"
        );
    }

    /// Present frames of which a part is reserved before the library comes up.
    fn reserved_frames(&self) -> u64 {
        let mut count = 0;
        for ram in self.memblock.frames(None) {
            let mut next = ram.frames.first();
            for region in self.memblock.reserved() {
                let rest = PfnRange::new(next, ram.frames.end()).unwrap();
                let here = region.range.touched_frames().intersect(rest);
                if !here.is_empty() {
                    count += here.frames();
                    next = here.end();
                }
            }
        }
        count
    }
}

/// Allocates all orders for all zones by request, and from each zone by place; frees all.
fn take_and_return<C: SimConfig>(machine: &Machine<C>) {
    let by_place: Vec<_> = machine
        .zones()
        .filter(|zone| zone.free_frames() > 0)
        .map(|zone| {
            let ours = |pfn| machine.zone_of(pfn).map(Zone::id) == Some(zone.id());
            let mut free = machine.initial().blocks().iter();
            let &(first, order) = free.find(|(pfn, _)| ours(*pfn)).unwrap();
            let block = PfnRange::block(first, order);
            machine.alloc_contig_range(block, Gfp::KERNEL).unwrap()
        })
        .collect();
    let requests = [
        Gfp::KERNEL,
        Gfp::HIGHUSER_MOVABLE,
        Gfp::KERNEL | Gfp::DMA32,
        Gfp::KERNEL | Gfp::DMA,
    ];
    let wishes = requests
        .iter()
        .flat_map(|gfp| Order::all().map(move |order| (*gfp, order)));
    let by_request: Vec<_> = wishes
        .filter_map(|(gfp, order)| match machine.alloc_block(gfp, order) {
            Ok(block) => Some(block),
            Err(error) => {
                assert_eq!(error, AllocError::OutOfMemory);
                None
            }
        })
        .collect();
    assert!(!by_request.is_empty());

    let runs = by_place.iter().map(|run| run.frames());
    let mut live: Vec<_> = runs
        .chain(by_request.iter().map(|block| block.frames()))
        .collect();
    live.sort_by_key(|frames| frames.first());
    let apart = live.windows(2).all(|pair| pair[0].end() <= pair[1].first());
    assert!(apart, "O2: {live:?}");
    let frames: u64 = live.iter().map(|frames| frames.frames()).sum();
    assert_eq!(machine.free_frames() + frames, machine.managed_frames());
    // Touching memory is what costs time here.
    let ram = machine.hardware().ram();
    let small = live.iter().filter(|frames| frames.frames() <= MOST_STAMPED);
    let mut owners = Owners::new();
    small.clone().for_each(|frames| owners.took(ram, *frames));
    for frames in small {
        owners.giving(ram, frames.first());
    }
}

/// Runs the oracles: all of them, or, where there is too much memory for that, those that look
/// at free blocks only.
fn finish<C: SimConfig>(machine: Machine<C>, ram: u64) {
    if ram <= MOST_FOR_EVERY_FRAME {
        machine.finish();
        return;
    }
    let now = Shape::of(&machine);
    machine.initial().assert_same(&now);
    assert_eq!(now.frames(), machine.managed_frames());
    for zone in machine.zones() {
        assert_eq!(zone.free_frames(), zone.managed());
        let snapshot = zone.snapshot(machine.platform());
        let blocks = MigrateType::ALL.iter().flat_map(|kind| {
            let of_kind = snapshot.blocks[kind.index()];
            Order::all().map(move |order| of_kind[order.index()] * order.frames())
        });
        assert_eq!(blocks.sum::<u64>(), zone.free_frames());
    }
    oracles::check_quiet(&machine);
    machine.abandon();
}

/// Runs the maps that `wanted` picks; answers how many those are.
fn run_all<C: SimConfig>(nodes: Nodes, wanted: impl Fn(&Case, &Expected) -> bool) -> usize {
    let mut count = 0;
    for case in Case::all(nodes) {
        let Ok(expected) = case.expected() else {
            assert_eq!(case.name, WITHOUT_RAM);
            continue;
        };
        if wanted(&case, &expected) {
            case.run::<C>(&expected);
            count += 1;
        }
    }
    count
}

#[test]
fn every_map_gets_all_its_pages_free() {
    let all = run_all::<(Plain, Sparse)>(Nodes::One, |_, _| true);
    assert_eq!(all, 161);
}

#[test]
fn so_does_every_map_with_a_frame_table_in_virtual_memory() {
    let most = run_all::<(Hardened, Vmemmap)>(Nodes::One, |_, expected| expected.ram <= LARGE);
    assert_eq!(most, 161 - LARGE_MAPS);
}

#[test]
fn so_does_every_short_map_with_a_flat_frame_table() {
    let short = run_all::<(Plain, Flat)>(Nodes::One, |_, expected| expected.end <= LONGEST_FLAT);
    assert!(short > 100, "{short}");
}

#[test]
fn so_does_every_small_map_with_poisoned_pages() {
    let small = run_all::<(Debug, Sparse)>(Nodes::One, |_, expected| expected.ram <= MOST_POISONED);
    assert!(small >= 9, "{small}");
}

#[test]
fn so_does_every_map_with_the_firmwares_nodes() {
    let all = run_all::<(Plain, Sparse)>(Nodes::Firmware, |case, expected| {
        !case.homes.is_empty() && expected.ram <= LARGE
    });
    assert!(all > 20, "{all}");
}

#[test]
fn the_map_without_ram_is_refused() {
    let cases = Case::all(Nodes::One);
    let case = cases.iter().find(|case| case.name == WITHOUT_RAM).unwrap();
    let entries = case.entries.len();
    let error = case.machine::<(Plain, Sparse)>().try_boot().unwrap_err();
    let BootError::Setup(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error, SetupError::NoUsableMemory { entries });
}
