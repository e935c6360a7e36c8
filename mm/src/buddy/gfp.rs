//! What a request for pages may do: `gfp_t`, and its check at the door.
#![forbid(unsafe_code)]

use core::fmt;
use core::panic::Location;

use super::MigrateType;
use crate::addr::{Order, conversions, to_count};
use crate::frame::Word;
use crate::zone::ZoneKind;

bitflags::bitflags! {
    /// "Get free page" flags: where the memory must lie, how the pages are used, and what may be
    /// done to find them. Names and meaning as in Linux `include/linux/gfp_types.h`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Gfp: u32 {
        /// Below 16 MiB (`__GFP_DMA`).
        const DMA = 1 << 0;
        /// From high memory, which 64-bit machines do not have; with [`Self::MOVABLE`], from ZONE_MOVABLE first.
        const HIGHMEM = 1 << 1;
        /// Below 4 GiB (`__GFP_DMA32`).
        const DMA32 = 1 << 2;
        /// The pages can be moved or reclaimed later (`__GFP_MOVABLE`).
        const MOVABLE = 1 << 3;
        /// The pages can be dropped by a shrinker (`__GFP_RECLAIMABLE`).
        const RECLAIMABLE = 1 << 4;
        /// Important: may use part of the reserves (`__GFP_HIGH`).
        const HIGH = 1 << 5;
        /// May start I/O (`__GFP_IO`).
        const IO = 1 << 6;
        /// May call into file systems (`__GFP_FS`).
        const FS = 1 << 7;
        /// The pages come zeroed (`__GFP_ZERO`).
        const ZERO = 1 << 8;
        /// This CPU will not look at the pages soon: a device writes them first (`__GFP_COLD` of Linux
        /// up to 4.14). It makes a difference with `percpu_pagelists=classic` only.
        const COLD = 1 << 9;
        /// May reclaim by itself, and so sleep (`__GFP_DIRECT_RECLAIM`).
        const DIRECT_RECLAIM = 1 << 10;
        /// Wakes background reclaim when memory is short (`__GFP_KSWAPD_RECLAIM`).
        const KSWAPD_RECLAIM = 1 << 11;
        /// The caller means to dirty the pages (`__GFP_WRITE`).
        const WRITE = 1 << 12;
        /// Failure is not reported (`__GFP_NOWARN`).
        const NOWARN = 1 << 13;
        /// Tries hard but may fail (`__GFP_RETRY_MAYFAIL`).
        const RETRY_MAYFAIL = 1 << 14;
        /// Tries longer, and takes all reserves rather than fail (`__GFP_NOFAIL`). Linux tries for
        /// ever; here the request fails in the end.
        const NOFAIL = 1 << 15;
        /// Gives up early (`__GFP_NORETRY`).
        const NORETRY = 1 << 16;
        /// May use all reserves: the caller frees memory with it (`__GFP_MEMALLOC`).
        const MEMALLOC = 1 << 17;
        /// The block is a compound page; without effect on a single page (`__GFP_COMP`).
        const COMP = 1 << 18;
        /// Never uses reserves, whatever else is said (`__GFP_NOMEMALLOC`).
        const NOMEMALLOC = 1 << 19;
        /// Keeps to the task's allowed nodes (`__GFP_HARDWALL`).
        const HARDWALL = 1 << 20;
        /// From the asked node only (`__GFP_THISNODE`).
        const THISNODE = 1 << 21;
        /// Counted to the caller's account (`__GFP_ACCOUNT`).
        const ACCOUNT = 1 << 22;
    }
}

impl Gfp {
    /// May reclaim, directly and in the background (`__GFP_RECLAIM`).
    pub const RECLAIM: Self = Self::DIRECT_RECLAIM.union(Self::KSWAPD_RECLAIM);
    /// For interrupt handlers and holders of spin locks.
    pub const ATOMIC: Self = Self::HIGH.union(Self::KSWAPD_RECLAIM);
    /// The usual request of kernel code that may sleep.
    pub const KERNEL: Self = Self::RECLAIM.union(Self::IO).union(Self::FS);
    /// As [`Self::KERNEL`], counted.
    pub const KERNEL_ACCOUNT: Self = Self::KERNEL.union(Self::ACCOUNT);
    /// May not sleep, may fail.
    pub const NOWAIT: Self = Self::KSWAPD_RECLAIM.union(Self::NOWARN);
    /// May sleep, starts no I/O.
    pub const NOIO: Self = Self::RECLAIM;
    /// May sleep, does not call into file systems.
    pub const NOFS: Self = Self::RECLAIM.union(Self::IO);
    /// For user space, directly usable by the kernel too.
    pub const USER: Self = Self::KERNEL.union(Self::HARDWALL);
    /// For user space.
    pub const HIGHUSER: Self = Self::USER.union(Self::HIGHMEM);
    /// For user space, movable.
    pub const HIGHUSER_MOVABLE: Self = Self::HIGHUSER.union(Self::MOVABLE);
    /// For huge pages, without trying hard.
    pub const TRANSHUGE_LIGHT: Self = Self::HIGHUSER_MOVABLE
        .union(Self::COMP)
        .union(Self::NOMEMALLOC)
        .union(Self::NOWARN)
        .difference(Self::RECLAIM);
    /// For huge pages.
    pub const TRANSHUGE: Self = Self::TRANSHUGE_LIGHT.union(Self::DIRECT_RECLAIM);

    /// The names that can be parsed, with what they stand for: usual requests, then single flags.
    pub fn names() -> impl Iterator<Item = (&'static str, Self)> {
        const REQUESTS: [(&str, Gfp); 12] = [
            ("ATOMIC", Gfp::ATOMIC),
            ("KERNEL", Gfp::KERNEL),
            ("KERNEL_ACCOUNT", Gfp::KERNEL_ACCOUNT),
            ("NOWAIT", Gfp::NOWAIT),
            ("NOIO", Gfp::NOIO),
            ("NOFS", Gfp::NOFS),
            ("USER", Gfp::USER),
            ("HIGHUSER", Gfp::HIGHUSER),
            ("HIGHUSER_MOVABLE", Gfp::HIGHUSER_MOVABLE),
            ("TRANSHUGE_LIGHT", Gfp::TRANSHUGE_LIGHT),
            ("TRANSHUGE", Gfp::TRANSHUGE),
            ("RECLAIM", Gfp::RECLAIM),
        ];
        REQUESTS.into_iter().chain(Self::all().iter_names())
    }
}

/// A word that is no flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownFlag;

impl fmt::Display for UnknownFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such flag; known are")?;
        let mut separator = " ";
        for (name, _) in Gfp::names() {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl core::error::Error for UnknownFlag {}

/// Reads names joined by `|`, in any case, with or without Linux's `GFP_` and `__GFP_`.
impl core::str::FromStr for Gfp {
    type Err = UnknownFlag;

    fn from_str(text: &str) -> Result<Self, UnknownFlag> {
        text.split('|').try_fold(Self::empty(), |all, word| {
            let word = word.trim();
            let word = word.strip_prefix("__").unwrap_or(word);
            let word = word
                .strip_prefix("GFP_")
                .or(word.strip_prefix("gfp_"))
                .unwrap_or(word);
            let found = Self::names().find(|(name, _)| name.eq_ignore_ascii_case(word));
            found.map(|(_, flag)| all.union(flag)).ok_or(UnknownFlag)
        })
    }
}

/// Why a request makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GfpError {
    /// More than one of DMA, DMA32 and HIGHMEM.
    ManyZones,
    /// Both movable and reclaimable.
    ManyTypes,
    /// NOFAIL together with a modifier that allows to fail.
    NofailMayFail,
    /// NOFAIL without leave to reclaim, or for more than two pages.
    NofailImpossible,
    /// Bits without a meaning.
    UnknownBits,
}

impl fmt::Display for GfpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ManyZones => "more than one zone modifier",
            Self::ManyTypes => "both MOVABLE and RECLAIMABLE",
            Self::NofailMayFail => "NOFAIL together with NORETRY or RETRY_MAYFAIL",
            Self::NofailImpossible => "NOFAIL needs DIRECT_RECLAIM and at most order 1",
            Self::UnknownBits => "unknown bits",
        })
    }
}

impl core::error::Error for GfpError {}

/// Where pages must lie and whose pageblocks serve them, by the five flags that say so (Linux:
/// `gfp_zone`, `gfp_migratetype`, with their tables of bad combinations).
const PLACES: [Place; 32] = {
    let mut places = [Place::Nowhere(GfpError::ManyZones); 32];
    let mut bits = 0;
    while bits < 32 {
        places[to_index32(bits)] = Place::of(Gfp::from_bits_retain(bits));
        bits += 1;
    }
    places
};

/// What the five flags come to.
#[derive(Clone, Copy)]
enum Place {
    /// Zone and migrate type, as they stand in a [`Request`].
    At(u64),
    Nowhere(GfpError),
}

impl Place {
    const fn of(gfp: Gfp) -> Self {
        let highest = match (
            gfp.contains(Gfp::DMA),
            gfp.contains(Gfp::DMA32),
            gfp.contains(Gfp::HIGHMEM),
        ) {
            (false, false, false) => ZoneKind::Normal,
            (true, false, false) => ZoneKind::Dma,
            (false, true, false) => ZoneKind::Dma32,
            (false, false, true) if gfp.contains(Gfp::MOVABLE) => ZoneKind::Movable,
            (false, false, true) => ZoneKind::Normal,
            _ => return Self::Nowhere(GfpError::ManyZones),
        };
        let migrate = match (gfp.contains(Gfp::MOVABLE), gfp.contains(Gfp::RECLAIMABLE)) {
            (true, true) => return Self::Nowhere(GfpError::ManyTypes),
            (true, false) => MigrateType::Movable,
            (false, true) => MigrateType::Reclaimable,
            (false, false) => MigrateType::Unmovable,
        };
        let (zone, kind) = (highest.index(), migrate.index());
        Self::At(to_count(zone) << ZONE_SHIFT | to_count(kind) << (ORDER_SHIFT + 4))
    }
}

// Narrowing ones keep the low bits.
conversions! {
    to_index32: u32 => usize;
    to_u64: u32 => u64;
    low_half: u64 => u32;
    low_byte: u64 => u8;
}

/// A request that was checked: flags, order, highest zone and migrate type in one word, so that
/// it travels in a register, and what is constant in it stays so; and the line of the source that
/// asks.
///
/// # Invariants
/// Bits 0–31 of the word are the flags, 32–35 the order, 36–38 the migrate type, 39 tells compound
/// blocks, 40–47 are the zone's index, 48 whether memory is populated for it although it may not wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request {
    word: u64,
    place: &'static Location<'static>,
}

const ORDER_SHIFT: u32 = 32;
const COMPOUND_SHIFT: u32 = 39;
const ZONE_SHIFT: u32 = 40;
/// Set where memory is populated for a request that does not wait.
const POPULATES: u64 = 1 << 48;

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("gfp", &self.gfp())
            .field("order", &self.order())
            .field("highest", &self.highest())
            .field("migrate", &self.migrate())
            .finish()
    }
}

impl Request {
    /// Checks a request for `2^order` pages.
    ///
    /// # Errors
    /// [`GfpError`] names the rule that the flags break.
    #[inline]
    #[track_caller]
    pub const fn new(gfp: Gfp, order: Order) -> Result<Self, GfpError> {
        if gfp.bits() & !Self::PLAIN != 0
            && let Err(error) = Self::check(gfp, order)
        {
            return Err(error);
        }
        match PLACES[to_index32(gfp.bits() & 31)] {
            Place::At(bits) => {
                let compound = gfp.contains(Gfp::COMP) && order.as_u8() > 0;
                let shape = to_u64(order.bits()) << ORDER_SHIFT
                    | if compound { 1 << COMPOUND_SHIFT } else { 0 };
                Ok(Self {
                    word: bits | to_u64(gfp.bits()) | shape,
                    place: Location::caller(),
                })
            }
            Place::Nowhere(error) => Err(error),
        }
    }

    /// Flags that need no check beside that of their place.
    const PLAIN: u32 = Gfp::all().difference(Gfp::NOFAIL).bits();

    #[cold]
    const fn check(gfp: Gfp, order: Order) -> Result<(), GfpError> {
        if gfp.contains(Gfp::NOFAIL) {
            if gfp.intersects(Gfp::NORETRY.union(Gfp::RETRY_MAYFAIL)) {
                return Err(GfpError::NofailMayFail);
            }
            if !gfp.contains(Gfp::DIRECT_RECLAIM) || order.as_u8() > 1 {
                return Err(GfpError::NofailImpossible);
            }
        }
        if gfp.bits() & !Gfp::all().bits() != 0 {
            return Err(GfpError::UnknownBits);
        }
        Ok(())
    }

    /// The line of the source that asks: the caller of [`Self::new`].
    #[inline]
    #[must_use]
    pub const fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// The flags.
    #[inline]
    #[must_use]
    pub const fn gfp(&self) -> Gfp {
        Gfp::from_bits_retain(low_half(self.word))
    }

    /// The same request, which has none of `without` and wants an unmovable compound block of `order`, which is not 0: said
    /// once more where the compiler does not know it any more.
    #[inline(always)]
    pub(crate) const fn known(self, without: Gfp, order: Order) -> Self {
        const SHAPE: u64 = 0xff << ORDER_SHIFT;
        let shape = to_u64(order.bits()) << ORDER_SHIFT | 1 << COMPOUND_SHIFT;
        Self {
            word: self.word & !(SHAPE | to_u64(without.bits())) | shape,
            ..self
        }
    }

    /// The order.
    #[inline]
    #[must_use]
    pub const fn order(&self) -> Order {
        Order::new_or_max(low_byte(self.word >> ORDER_SHIFT) & 15)
    }

    /// Whether memory may be populated for the request; others are served with what is populated.
    #[inline]
    #[must_use]
    pub const fn may_populate(&self) -> bool {
        self.gfp().contains(Gfp::DIRECT_RECLAIM) || self.word & POPULATES != 0
    }

    /// The same request, for which memory may be populated: the caller may wait, only the request must not.
    #[must_use]
    pub(crate) const fn populating(&self) -> Self {
        let word = self.word | POPULATES;
        Self { word, ..*self }
    }

    /// The same request, without going to trouble: it neither waits nor insists, and fails silently. Who
    /// may have memory populated still may, as that is memory which is free.
    #[must_use]
    pub const fn lightly(&self) -> Self {
        let trouble = to_u64(Gfp::DIRECT_RECLAIM.union(Gfp::NOFAIL).bits());
        let light = self.word & !trouble | to_u64(Gfp::NOWARN.bits());
        let word = match self.may_populate() {
            true => light | POPULATES,
            false => light,
        };
        Self { word, ..*self }
    }

    /// The highest zone that may serve the request; lower ones are tried after it.
    #[inline]
    #[must_use]
    pub const fn highest(&self) -> ZoneKind {
        match low_byte(self.word >> ZONE_SHIFT) & 3 {
            0 => ZoneKind::Dma,
            1 => ZoneKind::Dma32,
            2 => ZoneKind::Normal,
            _ => ZoneKind::Movable,
        }
    }

    /// Whether the block is to be a compound page.
    #[inline]
    #[must_use]
    pub const fn is_compound(&self) -> bool {
        self.word >> COMPOUND_SHIFT & 1 != 0
    }

    /// The state word of a block handed out for the request: `unmarked` is that of a single page of
    /// its zone.
    #[inline]
    #[must_use]
    pub(crate) const fn mark(&self, unmarked: Word) -> Word {
        // Order, migrate type and compound flag stand side by side here and there.
        Word::from_bits(unmarked.bits() | self.word >> (ORDER_SHIFT - 4) & 0xff0)
    }

    /// Whose pageblocks serve the request.
    #[inline]
    #[must_use]
    pub const fn migrate(&self) -> MigrateType {
        MigrateType::from_bits(low_byte(self.word >> (ORDER_SHIFT + 4)) & 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_by_their_names() {
        assert_eq!("KERNEL".parse(), Ok(Gfp::KERNEL));
        assert_eq!(
            "GFP_KERNEL|__GFP_ZERO".parse(),
            Ok(Gfp::KERNEL.union(Gfp::ZERO))
        );
        assert_eq!("atomic | dma32".parse(), Ok(Gfp::ATOMIC.union(Gfp::DMA32)));
        assert_eq!("KERNEL|".parse::<Gfp>(), Err(UnknownFlag));
        assert_eq!("whatever".parse::<Gfp>(), Err(UnknownFlag));
    }

    #[test]
    fn the_error_lists_each_name_that_can_be_parsed() {
        let text = UnknownFlag.to_string();
        let (_, names) = text.split_once("known are ").unwrap();
        assert!(names.split(", ").eq(Gfp::names().map(|(name, _)| name)));
        for (name, flags) in Gfp::names() {
            assert_eq!(name.parse(), Ok(flags), "{name}");
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let check = |gfp, order| Request::new(gfp, Order::new(order).unwrap()).map(drop);
        assert_eq!(
            check(Gfp::DMA.union(Gfp::DMA32), 0),
            Err(GfpError::ManyZones)
        );
        assert_eq!(
            check(Gfp::DMA.union(Gfp::HIGHMEM), 0),
            Err(GfpError::ManyZones)
        );
        assert_eq!(
            check(Gfp::MOVABLE.union(Gfp::RECLAIMABLE), 0),
            Err(GfpError::ManyTypes)
        );
        assert_eq!(
            check(Gfp::KERNEL.union(Gfp::NOFAIL).union(Gfp::NORETRY), 0),
            Err(GfpError::NofailMayFail)
        );
        assert_eq!(
            check(Gfp::ATOMIC.union(Gfp::NOFAIL), 0),
            Err(GfpError::NofailImpossible)
        );
        assert_eq!(
            check(Gfp::KERNEL.union(Gfp::NOFAIL), 2),
            Err(GfpError::NofailImpossible)
        );
        assert_eq!(check(Gfp::KERNEL.union(Gfp::COMP), 0), Ok(()));
        assert_eq!(check(Gfp::MEMALLOC.union(Gfp::NOMEMALLOC), 0), Ok(()));
        assert_eq!(
            check(Gfp::from_bits_retain(1 << 31), 0),
            Err(GfpError::UnknownBits)
        );
        assert_eq!(check(Gfp::KERNEL.union(Gfp::NOFAIL), 1), Ok(()));
    }

    #[test]
    fn a_mark_is_the_word_of_a_block_of_that_shape() {
        let home = crate::frame::ZoneId {
            node: crate::platform::NodeId(3),
            zone: 2,
        };
        let unmarked = Word::unique(home, Order::ZERO, 0);
        for gfp in [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::RECLAIMABLE] {
            for order in Order::all() {
                for compound in [Gfp::empty(), Gfp::COMP] {
                    let request = Request::new(gfp.union(compound), order).unwrap();
                    let word = Word::unique(home, order, request.migrate().bits());
                    let is_compound = compound == Gfp::COMP && order > Order::ZERO;
                    assert_eq!(request.is_compound(), is_compound);
                    let word = if is_compound { word.compound() } else { word };
                    assert_eq!(request.mark(unmarked), word);
                }
            }
        }
    }

    #[test]
    fn the_highest_zone_follows_from_the_flags() {
        let highest = |gfp| Request::new(gfp, Order::ZERO).unwrap().highest();
        assert_eq!(highest(Gfp::KERNEL), ZoneKind::Normal);
        assert_eq!(highest(Gfp::KERNEL.union(Gfp::MOVABLE)), ZoneKind::Normal);
        assert_eq!(highest(Gfp::KERNEL.union(Gfp::DMA)), ZoneKind::Dma);
        assert_eq!(highest(Gfp::DMA32.union(Gfp::MOVABLE)), ZoneKind::Dma32);
        assert_eq!(highest(Gfp::HIGHUSER), ZoneKind::Normal);
        assert_eq!(highest(Gfp::HIGHUSER_MOVABLE), ZoneKind::Movable);
    }
}
