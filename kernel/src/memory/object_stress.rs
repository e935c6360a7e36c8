//! `stress slab N`: random allocations and frees of objects that check everything they can.
//!
//! Every thread keeps objects of all sizes and families, stamped from end to end, and reads each again before
//! it is freed. Some are left in places that all threads see, and freed by whoever takes them from there: on
//! another CPU, mostly. Caches are shrunk in between. At the end all is freed, all caches
//! recount their slabs, and what is free must be what was free before.

use super::random::Random;
use super::stress::wanted;
use super::{Kernel, MEMORY};
use crate::arch::lock::IrqLock;
use crate::kprintln;
use crate::num::{low_byte, to_usize};
use crate::sched::team;
use crate::shell::interrupt;
use crate::shell::{CommandError, CommandResult};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::DerefMut;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::buddy::Gfp;
use mm::system::KBytes;

/// Places that all threads see.
const SHARED: usize = 64;
/// Objects that the kernel itself may have more of afterwards: lists, threads that are not cleared away yet.
const OTHERS: u64 = 128;
/// Operations between two shrinks, on average, and between two looks at the terminal.
const PER_SHRINK: u64 = 20_000;
const PER_LOOK: u64 = 256;

const FAMILIES: [Gfp; 4] = [Gfp::empty(), Gfp::RECLAIMABLE, Gfp::ACCOUNT, Gfp::DMA];

/// What is allocated, stamped, handed about and freed.
pub(super) trait Piece: DerefMut<Target = [u8]> + Send {
    /// Pieces that a thread keeps, at most.
    const KEPT: usize;
    /// Every so many bytes are stamped, and the last one.
    const STRIDE: usize;

    /// A piece of random size, and whether it must hold zeroes. `None` where memory is exhausted.
    fn alloc(random: &mut Random) -> Option<(Self, bool)>
    where
        Self: Sized;

    /// Gives back what is kept of freed pieces; answers how many pages that were.
    fn shrink() -> u64;
}

impl Piece for KBytes<Kernel> {
    const KEPT: usize = 512;
    const STRIDE: usize = 1;

    fn alloc(random: &mut Random) -> Option<(Self, bool)> {
        let largest = 1_u64 << random.below(15);
        let size = to_usize(random.below(largest).saturating_add(1));
        let family = FAMILIES[to_usize(random.below(4))];
        let wants_zeroes = random.below(4) == 0;
        let mut gfp = Gfp::KERNEL | Gfp::NOWARN | family;
        if wants_zeroes {
            gfp |= Gfp::ZERO;
        }
        let bytes = Self::alloc(Kernel, size, gfp).ok()?;
        Some((bytes, wants_zeroes))
    }

    fn shrink() -> u64 {
        MEMORY.shrink_caches()
    }
}

/// A piece with its stamp.
pub(super) struct Stamped<P> {
    bytes: P,
    stamp: u8,
}

/// Places that all threads see.
pub(super) type Place<P> = IrqLock<Option<Stamped<P>>>;

/// What happened.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) allocations: AtomicU64,
    pub(super) elsewhere: AtomicU64,
    pub(super) exhausted: AtomicU64,
    pub(super) pages: AtomicU64,
}

/// The bytes that are stamped.
fn places<P: Piece>(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(P::STRIDE).chain(len.checked_sub(1))
}

impl<P: Piece> Stamped<P> {
    fn alloc(random: &mut Random) -> Result<Option<Self>, String> {
        let Some((mut bytes, wants_zeroes)) = P::alloc(random) else {
            return Ok(None);
        };
        let size = bytes.len();
        let stamp = low_byte(random.below(256));
        for at in places::<P>(size) {
            let Some(byte) = bytes.get_mut(at) else {
                continue;
            };
            if wants_zeroes && *byte != 0 && *byte != stamp {
                return Err(alloc::format!("byte {at} of {size} is not zero"));
            }
            *byte = stamp;
        }
        Ok(Some(Self { bytes, stamp }))
    }

    fn free(self) -> Result<(), String> {
        let len = self.bytes.len();
        let is_wrong = |at: &usize| self.bytes.get(*at) != Some(&self.stamp);
        match places::<P>(len).find(is_wrong) {
            None => Ok(()),
            Some(at) => Err(alloc::format!(
                "byte {at} of {len} is {:#x}, not its stamp {:#x}",
                self.bytes.get(at).copied().unwrap_or_default(),
                self.stamp
            )),
        }
    }
}

fn one_thread<P: Piece>(
    (operations, seed): (u64, u64),
    shared: &[Place<P>],
    counts: &Counts,
) -> Result<(), CommandError> {
    let mut random = Random::new(seed);
    let mut mine: Vec<Stamped<P>> = Vec::new();
    mine.try_reserve_exact(P::KEPT)
        .map_err(CommandError::failed)?;
    for operation in 0..operations {
        if operation % PER_LOOK == 0 {
            interrupt::check()?;
        }
        if random.below(PER_SHRINK) == 0 {
            counts.pages.fetch_add(P::shrink(), Ordering::Relaxed);
        }
        match random.below(10) {
            0..=4 if mine.len() < P::KEPT => {
                match Stamped::alloc(&mut random).map_err(CommandError::failed)? {
                    Some(object) => {
                        counts.allocations.fetch_add(1, Ordering::Relaxed);
                        mine.push(object);
                    }
                    None => {
                        counts.exhausted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            5 | 6 if !mine.is_empty() => {
                let which = random.below(crate::num::to_u64(mine.len()));
                let object = mine.swap_remove(to_usize(which));
                let place = shared.get(to_usize(random.below(crate::num::to_u64(SHARED))));
                let other = place.and_then(|place| place.lock().replace(object));
                if let Some(other) = other {
                    counts.elsewhere.fetch_add(1, Ordering::Relaxed);
                    other.free().map_err(CommandError::failed)?;
                }
            }
            _ if !mine.is_empty() => {
                let which = random.below(crate::num::to_u64(mine.len()));
                mine.swap_remove(to_usize(which))
                    .free()
                    .map_err(CommandError::failed)?;
            }
            _ => {}
        }
    }
    mine.into_iter()
        .try_for_each(Stamped::free)
        .map_err(CommandError::failed)
}

/// So many operations on so many CPUs; at the end all pieces are freed.
pub(super) fn run<P: Piece>(
    name: &'static str,
    (cpus, operations, seed): (u32, u64, u64),
) -> Result<Counts, CommandError> {
    let shared: Vec<Place<P>> = (0..SHARED).map(|_| IrqLock::new(None)).collect();
    let (counts, failed) = (Counts::default(), IrqLock::new(None));
    let each = operations.div_ceil(u64::from(cpus));
    let share = |number: u32| {
        let seed = seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if let Err(error) = one_thread((each, seed), &shared, &counts) {
            failed.lock().get_or_insert(error);
        }
    };
    team::scoped(name, cpus, &share, || ()).map_err(CommandError::failed)?;
    let mut left = shared.iter().filter_map(|place| place.lock().take());
    left.try_for_each(Stamped::free)
        .map_err(CommandError::failed)?;
    match failed.lock().take() {
        Some(error) => Err(error),
        None => Ok(counts),
    }
}

/// `stress slab [--cpus CPUS] N [SEED]`.
pub(super) fn stress_slab(arguments: &[String]) -> CommandResult {
    let (cpus, operations, seed) = wanted(arguments)?;
    kprintln!("stress: {operations} operations on objects on {cpus} CPUs, seed {seed}");
    MEMORY.shrink_caches();
    MEMORY.drain_all_pages();
    let before = active_objects();
    let counts = run::<KBytes<Kernel>>("stress slab", (cpus, operations, seed))?;
    MEMORY.shrink_caches();
    MEMORY.validate().map_err(CommandError::failed)?;
    let after = active_objects();
    let is_back = after.0 == before.0 && after.1 <= before.1.saturating_add(OTHERS);
    if !is_back {
        return Err(CommandError::failed(format_args!(
            "objects before, of families that the kernel does not use and others: {before:?}, after: {after:?}"
        )));
    }
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    kprintln!(
        "stress: {} allocations, {} left for any thread to free, {} times out of memory, {} pages of empty slabs given back",
        load(&counts.allocations),
        load(&counts.elsewhere),
        load(&counts.exhausted),
        load(&counts.pages)
    );
    kprintln!("stress: no violations, every cache recounted");
    Ok(())
}

/// Objects of families that are used here only, and all others: the kernel's own are among them.
fn active_objects() -> (u64, u64) {
    let mut active: (u64, u64) = (0, 0);
    MEMORY.for_each_cache(|name, stats| {
        let digits = name.strip_prefix("kmalloc-").unwrap_or_default();
        let is_normal = digits.starts_with(|first: char| first.is_ascii_digit());
        let objects = if is_normal {
            &mut active.1
        } else {
            &mut active.0
        };
        *objects = objects.saturating_add(stats.active_objects);
    });
    active
}
