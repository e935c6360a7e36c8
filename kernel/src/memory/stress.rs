//! `stress N`: random allocations and frees that check everything they can.
//!
//! Where there are several nodes, each thread changes its memory policy now and then, unless it came
//! with one (`numactl`); and it looks whether the pages of a bound request come from its nodes.
//!
//! Memory is filled to 90 % and drained to half, again and again, with all orders, request
//! types and migrate types mixed. Each page of a block is stamped with its owner and read again
//! before the block is freed; pages that must come zeroed are looked through. At the end all is
//! freed, the zones recount themselves, and what is free must be what was free before. With
//! `--cpus` as many threads do this at once, on whatever CPUs they are given, and the last two steps
//! come when all are done.

use super::ledger::{Entry, Ledger};
use super::random::Random;
use super::{Kernel, MEMORY, Pages};
use crate::arch::lock::IrqLock;
use crate::arch::{smp, time};
use crate::num::{to_u64, to_usize};
use crate::sched::Atomic;
use crate::sched::policy::{self, Changed};
use crate::sched::team::{self, TeamError};
use crate::sched::wait::Completion;
use crate::shell::interrupt::{self, Interrupted};
use crate::shell::{CommandError, CommandResult, number};
use crate::{command, kprintln, params};
use alloc::string::String;
use core::fmt;
use mm::addr::{Order, Pfn};
use mm::buddy::{Gfp, MigrateType};
use mm::config::{ORDERS, PAGE_SIZE, PAGEBLOCK_FRAMES, PAGEBLOCK_ORDER};
use mm::frame::FreeError;
use mm::numa::{Mode, NodeMask, NodeState, PolicyError};
use mm::platform::NodeId;
use mm::report::Corruption;
use mm::system::AllocError;
use mm::zone::ZoneKind;

command! { "stress", "[slab | vmalloc] [--cpus CPUS] N [SEED]", "N random operations on pages, or on objects, or areas, on one CPU or many, all checked, e.g. `stress 100000`", stress_command }
crate::kernel_param!(
    "seed",
    "NUMBER",
    "start of the random tests, decimal or 0x…"
);

/// The largest share of memory in use, and the share down to which it is drained, in per cent.
const FULL: u64 = 90;
const DRAINED: u64 = 50;
/// Operations between two looks at the terminal: some milliseconds.
const OPERATIONS_PER_LOOK: u64 = 256;
/// Operations between two changes of the memory policy, on average.
const OPERATIONS_PER_POLICY: u64 = 512;

/// Requests that are mixed, with the highest zone that each may come from.
const REQUESTS: [(Gfp, ZoneKind); 7] = [
    (Gfp::KERNEL, ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::RECLAIMABLE), ZoneKind::Normal),
    (Gfp::HIGHUSER_MOVABLE, ZoneKind::Movable),
    (Gfp::ATOMIC, ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::ZERO), ZoneKind::Normal),
    (Gfp::KERNEL.union(Gfp::DMA32), ZoneKind::Dma32),
    (Gfp::KERNEL.union(Gfp::DMA), ZoneKind::Dma),
];

/// Why a run ended early: what the allocator did wrong, mostly.
#[derive(Debug)]
enum Violation {
    /// A block does not hold its owner's stamp any more.
    Overwritten { pfn: Pfn, expected: u64, found: u64 },
    /// A page that must come zeroed does not.
    NotZero { pfn: Pfn, offset: usize },
    /// A block lies in a zone that may not serve the request.
    WrongZone { pfn: Pfn, gfp: Gfp },
    /// A block is of a node that the thread is not bound to.
    WrongNode { pfn: Pfn, node: NodeId },
    /// The machine's own nodes make no policy.
    Policy(PolicyError),
    /// A block is not aligned to its order.
    Misaligned { pfn: Pfn, order: Order },
    /// A block was not taken back.
    Refused { pfn: Pfn, error: FreeError },
    /// The request itself was refused.
    Request(AllocError),
    /// There were no threads.
    Team(TeamError),
    /// A thread could not wait for the others.
    Atomic(Atomic),
    /// Ctrl-C was typed.
    Interrupted(Interrupted),
    /// A recount failed.
    Recount(Corruption),
    /// More or fewer frames are free than before.
    LostFrames { before: u64, after: u64 },
    /// Free blocks smaller than a pageblock differ from those before.
    Lost {
        order: Order,
        before: u64,
        after: u64,
    },
    /// Whole pageblocks that were free are not, or the other way round.
    Torn { before: u64, after: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwritten {
                pfn,
                expected,
                found,
            } => {
                write!(
                    f,
                    "frame {pfn} holds {found:#x}, not its stamp {expected:#x}"
                )
            }
            Self::NotZero { pfn, offset } => {
                write!(f, "frame {pfn} is not zero at byte {offset:#x}")
            }
            Self::WrongZone { pfn, gfp } => write!(f, "frame {pfn} does not suit {gfp:?}"),
            Self::WrongNode { pfn, node } => {
                write!(
                    f,
                    "frame {pfn} is of node {node}, to which its thread is not bound"
                )
            }
            Self::Policy(error) => write!(f, "a policy was refused: {error}"),
            Self::Misaligned { pfn, order } => write!(f, "frame {pfn} is not aligned to {order:?}"),
            Self::Refused { pfn, error } => write!(f, "frame {pfn} was not taken back: {error}"),
            Self::Request(error) => write!(f, "a request was refused: {error}"),
            Self::Team(error) => error.fmt(f),
            Self::Atomic(atomic) => write!(f, "a thread waits {atomic}"),
            Self::Interrupted(interrupted) => interrupted.fmt(f),
            Self::Recount(corruption) => corruption.fmt(f),
            Self::LostFrames { before, after } => {
                write!(f, "{before} free pages before, {after} after")
            }
            Self::Lost {
                order,
                before,
                after,
            } => {
                write!(f, "{before} free blocks of {order:?} before, {after} after")
            }
            Self::Torn { before, after } => {
                write!(f, "{before} free pageblocks before, {after} after")
            }
        }
    }
}

impl From<Violation> for CommandError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Interrupted(interrupted) => interrupted.into(),
            violation => Self::failed(violation),
        }
    }
}

impl From<Interrupted> for Violation {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}

/// How a run went.
#[derive(Debug, Default)]
struct Tally {
    allocations: u64,
    frees: u64,
    exhausted: u64,
    highest_percent: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.allocations = self.allocations.saturating_add(other.allocations);
        self.frees = self.frees.saturating_add(other.frees);
        self.exhausted = self.exhausted.saturating_add(other.exhausted);
        self.highest_percent = self.highest_percent.max(other.highest_percent);
    }
}

/// How many CPUs, operations, and which seed.
pub(super) fn wanted(arguments: &[String]) -> Result<(u32, u64, u64), CommandError> {
    let (cpus, rest) = match arguments {
        [option, count, rest @ ..] if option == "--cpus" => (number(count)?, rest),
        rest => (1, rest),
    };
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    if cpus == 0 || cpus > smp::count() {
        return Err(CommandError::usage(format_args!(
            "there are {} CPUs, not {cpus}",
            smp::count()
        )));
    }
    let (count, seed) = match rest {
        [count] => (count, seed_from_boot()?),
        // As the kernel's parameter is written, too.
        [count, seed] => (count, number(seed.strip_prefix("seed=").unwrap_or(seed))?),
        _ => return Err(CommandError::usage("expected a number of operations")),
    };
    Ok((cpus, number(count)?, seed))
}

fn stress_command(arguments: &[String]) -> CommandResult {
    if let [word, rest @ ..] = arguments {
        match word.as_str() {
            "slab" => return super::object_stress::stress_slab(rest),
            "vmalloc" => return super::vmalloc_stress::stress_vmalloc(rest),
            _ => {}
        }
    }
    let (cpus, operations, seed) = wanted(arguments)?;
    match cpus {
        1 => kprintln!("stress: {operations} operations, seed {seed}"),
        _ => kprintln!("stress: {operations} operations on {cpus} CPUs, seed {seed}"),
    }
    let tally = stress(operations, seed, cpus)?;
    kprintln!(
        "stress: {} allocations, {} frees, {} times out of memory, up to {} % of memory in use",
        tally.allocations,
        tally.frees,
        tally.exhausted,
        tally.highest_percent
    );
    kprintln!("stress: no violations, every zone recounted");
    Ok(())
}

/// The seed of the kernel's command line, or a new one.
pub(super) fn seed_from_boot() -> Result<u64, CommandError> {
    let Some(text) = params::get("seed") else {
        return Ok(time::tsc());
    };
    number(text).map_err(|_| {
        CommandError::failed(format_args!(
            "the kernel parameter `seed={text}` is not a number"
        ))
    })
}

/// What is free.
struct Free {
    /// Those in slabs too, which come and go with what the kernel itself allocates.
    frames: u64,
    in_slabs: u64,
    /// By order, all zones and types together.
    blocks: [u64; ORDERS],
}

impl Free {
    /// Pageblocks of which all is free, be it in one block or, with their neighbours, in a larger one.
    fn pageblocks(&self) -> u64 {
        let blocks = Order::all().zip(self.blocks);
        let pageblocks = blocks.map(|(order, blocks)| {
            let each = order.frames().wrapping_div(PAGEBLOCK_FRAMES);
            blocks.saturating_mul(each)
        });
        pageblocks.fold(0, u64::saturating_add)
    }

    /// Once it stays the same: whoever is idle gives back the stacks of threads that ended before.
    fn settled() -> Result<Self, Violation> {
        let mut before = Self::now();
        loop {
            crate::sched::sleep_ms(2).map_err(Violation::Atomic)?;
            let now = Self::now();
            if now.frames == before.frames {
                return Ok(now);
            }
            before = now;
        }
    }

    fn now() -> Self {
        super::settle_areas();
        MEMORY.drain_all_pages();
        let blocks = free_blocks();
        let in_slabs = super::frames_in_slabs();
        let frames = MEMORY.free_frames().saturating_add(in_slabs);
        Self {
            frames,
            in_slabs,
            blocks,
        }
    }
}

/// Frames in sections that are not populated yet: fewer and fewer.
fn latent_frames() -> u64 {
    let latent = MEMORY.zones().map(mm::zone::Zone::latent_frames);
    latent.fold(0, u64::saturating_add)
}

fn free_blocks() -> [u64; ORDERS] {
    let mut total = [0_u64; ORDERS];
    for zone in MEMORY.zones() {
        let snapshot = zone.snapshot(MEMORY.platform());
        for kind in MigrateType::ALL {
            for (sum, blocks) in total.iter_mut().zip(snapshot.blocks[kind.index()]) {
                *sum = sum.saturating_add(blocks);
            }
        }
    }
    total
}

/// Runs `operations`, shared out among as many threads as CPUs were asked for, all at once; each
/// has a ledger and a seed of its own. What is free is counted while the threads' stacks are
/// there, before the first operation and after the last.
fn stress(operations: u64, seed: u64, cpus: u32) -> Result<Tally, Violation> {
    let latent = latent_frames();
    if cpus == 1 {
        let before = Free::settled()?;
        let tally = stress_here(operations, seed, 1)?;
        return nothing_is_lost(&before, latent).map(|()| tally);
    }
    let total = IrqLock::new((Tally::default(), None));
    let each = operations.div_ceil(u64::from(cpus));
    let (begin, end) = (Completion::new(1), Completion::new(cpus));
    let share = |number: u32| {
        let start = each.saturating_mul(u64::from(number)).min(operations);
        let share = each.min(operations.saturating_sub(start));
        let seed = seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let outcome = begin
            .wait()
            .map_err(Violation::Atomic)
            .and_then(|()| stress_here(share, seed, cpus));
        let mut total = total.lock();
        match outcome {
            Ok(tally) => total.0.add(&tally),
            Err(violation) => {
                total.1.get_or_insert(violation);
            }
        }
        drop(total);
        end.complete();
    };
    let counted = team::scoped("stress", cpus, &share, || {
        let before = Free::settled()?;
        begin.complete();
        end.wait().map_err(Violation::Atomic)?;
        nothing_is_lost(&before, latent)
    });
    let mut total = total.lock();
    if let Some(violation) = total.1.take() {
        return Err(violation);
    }
    counted.map_err(Violation::Team)??;
    Ok(core::mem::take(&mut total.0))
}

/// All zones recount themselves, and what is free is what was. It is in the same blocks as well if no
/// section was populated since there were so many `latent` frames, but for those larger than a
/// pageblock: neighbours whose types have come to differ (one is kept for urgent requests, say) are
/// not one block any more, and those whose types have become the same are.
fn nothing_is_lost(before: &Free, latent: u64) -> Result<(), Violation> {
    MEMORY.validate().map_err(Violation::Recount)?;
    // What CPUs have at hand counts as free, but not as part of blocks.
    MEMORY.drain_all_pages();
    MEMORY.validate().map_err(Violation::Recount)?;
    let now = Free::now();
    if now.frames != before.frames {
        return Err(Violation::LostFrames {
            before: before.frames,
            after: now.frames,
        });
    }
    if latent_frames() != latent || now.in_slabs != before.in_slabs {
        return Ok(());
    }
    if now.pageblocks() != before.pageblocks() {
        return Err(Violation::Torn {
            before: before.pageblocks(),
            after: now.pageblocks(),
        });
    }
    for ((order, before), after) in Order::all().zip(before.blocks).zip(now.blocks) {
        if before != after && order.as_u8() < PAGEBLOCK_ORDER {
            return Err(Violation::Lost {
                order,
                before,
                after,
            });
        }
    }
    Ok(())
}

/// One thread's share.
fn stress_here(operations: u64, seed: u64, cpus: u32) -> Result<Tally, Violation> {
    let mut tally = Tally::default();
    let frames = MEMORY.managed_frames();
    let share = frames.checked_div(u64::from(cpus)).unwrap_or(frames);
    let entries = to_usize(operations.min(share));
    let mut run = Run {
        random: Random::new(seed),
        live: Ledger::new(entries).map_err(Violation::Request)?,
        filling: true,
        seed,
        nodes: match policy::current() {
            None => MEMORY.node_states(NodeState::Memory),
            Some(_) => NodeMask::EMPTY,
        },
        policy: None,
    };
    for serial in 0..operations {
        if serial.is_multiple_of(OPERATIONS_PER_LOOK) {
            interrupt::check()?;
        }
        run.step(serial, &mut tally)?;
    }
    while run.live.len() > 0 {
        run.free_one(&mut tally)?;
    }
    Ok(tally)
}

/// A run in progress.
struct Run {
    random: Random,
    live: Ledger,
    filling: bool,
    seed: u64,
    /// All nodes with memory, for policies of this run; none if the thread has its own.
    nodes: NodeMask,
    /// The policy of this run, as long as it lasts.
    policy: Option<Changed>,
}

impl Run {
    fn step(&mut self, serial: u64, tally: &mut Tally) -> Result<(), Violation> {
        if self.nodes.len() > 1 && self.random.below(OPERATIONS_PER_POLICY) == 0 {
            self.change_policy()?;
        }
        let managed = MEMORY.managed_frames();
        let used = managed.saturating_sub(MEMORY.free_frames());
        let percent = used
            .saturating_mul(100)
            .checked_div(managed)
            .unwrap_or_default();
        tally.highest_percent = tally.highest_percent.max(percent);
        if percent >= FULL || self.live.is_full() {
            self.filling = false;
        } else if percent <= DRAINED {
            self.filling = true;
        }
        // Three out of four operations go the current way.
        let forward = self.random.below(4) != 0;
        if forward == self.filling && percent < FULL && !self.live.is_full() {
            self.allocate(serial, tally)
        } else {
            self.free_one(tally)
        }
    }

    /// Changes which nodes' memory this thread wants; one time in four, to what it was before the
    /// run.
    fn change_policy(&mut self) -> Result<(), Violation> {
        const MODES: [Mode; 5] = [
            Mode::Bind,
            Mode::Interleave,
            Mode::Preferred,
            Mode::PreferredMany,
            Mode::WeightedInterleave,
        ];
        // The one before comes back first.
        self.policy = None;
        if self.random.below(4) == 0 {
            return Ok(());
        }
        let mode = MODES[to_usize(self.random.below(to_u64(MODES.len())))];
        let mut nodes = self.nodes;
        for node in self.nodes.iter() {
            if nodes.len() > 1 && self.random.below(2) == 0 {
                nodes.remove(node);
            }
        }
        let policy = MEMORY.policy(mode, &nodes).map_err(Violation::Policy)?;
        self.policy = Some(Changed::to(Some(policy)));
        Ok(())
    }

    /// Whether a block is of the nodes that this thread is bound to. Requests for low zones are not
    /// bound: those may be on one node only.
    fn check_node(&self, pfn: Pfn, highest: ZoneKind) -> Result<(), Violation> {
        let bound = policy::current().filter(|policy| policy.mode() == Mode::Bind);
        let Some(nodes) = bound.map(|policy| *policy.nodes()) else {
            return Ok(());
        };
        let lowest = match nodes.intersects(&MEMORY.node_states(NodeState::NormalMemory)) {
            true => ZoneKind::Normal,
            // They have memory for movable pages only, and bind nothing else.
            false => ZoneKind::Movable,
        };
        let zone = MEMORY.zone_of(pfn);
        match zone.map(|zone| zone.id().node) {
            Some(node) if highest >= lowest && !nodes.contains(node) => {
                Err(Violation::WrongNode { pfn, node })
            }
            _ => Ok(()),
        }
    }

    fn allocate(&mut self, serial: u64, tally: &mut Tally) -> Result<(), Violation> {
        let choice = to_usize(self.random.below(to_u64(REQUESTS.len())));
        let (gfp, highest) = REQUESTS[choice];
        // Order o comes half as often as order o - 1.
        let order = u8::try_from(self.random.next().trailing_zeros()).unwrap_or_default();
        let order = Order::new(order).unwrap_or(Order::MAX);
        // To run out of memory is what stress is for.
        let gfp = gfp.union(Gfp::NOWARN);
        let mut pages = match Pages::alloc(Kernel, gfp, order) {
            Ok(pages) => pages,
            Err(AllocError::OutOfMemory) => {
                tally.exhausted = tally.exhausted.saturating_add(1);
                return self.free_one(tally);
            }
            Err(error) => return Err(Violation::Request(error)),
        };
        let pfn = pages.pfn();
        if !pfn.is_aligned(order) {
            return Err(Violation::Misaligned { pfn, order });
        }
        if MEMORY.zone_of(pfn).is_none_or(|zone| zone.kind() > highest) {
            return Err(Violation::WrongZone { pfn, gfp });
        }
        self.check_node(pfn, highest)?;
        check_zero(&pages, gfp)?;
        self.stamp(&mut pages, serial);
        tally.allocations = tally.allocations.saturating_add(1);
        // A full ledger was ruled out before; were it full, dropping the block frees it.
        drop(self.live.push(pages, serial));
        Ok(())
    }

    fn free_one(&mut self, tally: &mut Tally) -> Result<(), Violation> {
        let index = to_usize(self.random.below(to_u64(self.live.len())));
        let Some(taken) = self.live.swap_remove(index) else {
            return Ok(());
        };
        let entry = taken.map_err(|(pfn, error)| Violation::Refused { pfn, error })?;
        self.check_stamp(&entry)?;
        tally.frees = tally.frees.saturating_add(1);
        Ok(())
    }

    /// What each page of a block holds in its first and last word.
    fn mark(&self, pfn: Pfn, serial: u64) -> u64 {
        let place = pfn.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.seed.wrapping_add(serial).rotate_left(17) ^ place
    }

    fn stamp(&self, pages: &mut Pages, serial: u64) {
        let frames = pages.frames();
        let bytes = pages.bytes_mut().chunks_exact_mut(to_usize(PAGE_SIZE));
        for (pfn, page) in frames.iter().zip(bytes) {
            let mark = self.mark(pfn, serial).to_le_bytes();
            if let Some(first) = page.first_chunk_mut() {
                *first = mark;
            }
            if let Some(last) = page.last_chunk_mut() {
                *last = mark;
            }
        }
    }

    fn check_stamp(&self, entry: &Entry) -> Result<(), Violation> {
        let pages = entry.pages.bytes().chunks_exact(to_usize(PAGE_SIZE));
        for (pfn, page) in entry.pages.frames().iter().zip(pages) {
            let expected = self.mark(pfn, entry.serial);
            for word in [page.first_chunk(), page.last_chunk()]
                .into_iter()
                .flatten()
            {
                let found = u64::from_le_bytes(*word);
                if found != expected {
                    return Err(Violation::Overwritten {
                        pfn,
                        expected,
                        found,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Blocks that must come zeroed are looked through: the first page of each.
fn check_zero(pages: &Pages, gfp: Gfp) -> Result<(), Violation> {
    let always = MEMORY
        .options()
        .is_some_and(|options| options.init_on_alloc);
    if !always && !gfp.contains(Gfp::ZERO) {
        return Ok(());
    }
    let looked_at = pages.bytes().iter().take(to_usize(PAGE_SIZE));
    match looked_at.copied().position(|byte| byte != 0) {
        Some(offset) => Err(Violation::NotZero {
            pfn: pages.pfn(),
            offset,
        }),
        None => Ok(()),
    }
}
