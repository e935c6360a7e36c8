//! How objects of a cache lie in their slabs (Linux: `calculate_sizes`, `calculate_order`).
#![forbid(unsafe_code)]

use super::SlabFlags;
use super::debug::Layout;
use crate::addr::{Order, to_count, to_index};
use crate::config::PAGE_SIZE;

/// The largest order that is used to waste less (Linux: `slab_max_order`, `PAGE_ALLOC_COSTLY_ORDER`).
const USUAL_ORDER: u8 = 3;
/// Objects that a slab should hold, so that slabs come and go seldom: as many as Linux wants on 64 CPUs
/// (`calculate_order`).
const WANTED: usize = 32;
/// Objects in a slab, at most; there are fewer in all slabs of usual orders.
pub(super) const MOST: usize = 512;
/// A word: how a free object names the next one.
const WORD: usize = 8;
/// A cache line.
const LINE: usize = 64;

/// Sizes and places.
///
/// # Invariants
/// `stride` is a multiple of [`WORD`] and holds the object, and the word at `free_at`, which is a multiple
/// of [`WORD`] too, and lies behind the object where that keeps its contents; `objects` of them fit into a block of `order`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// What an owner may use.
    size: u32,
    /// From one object to the next.
    stride: u32,
    /// Where an object that is free names the next one.
    free_at: u32,
    objects: u16,
    order: Order,
    /// Whether each object lies in a place with more around it ([`Layout`]).
    guarded: bool,
    /// What a multiple of the stride times this is less than this, modulo 2^64; the upper half of the product is
    /// the quotient (Lemire, Kaser and Kurz 2019).
    divider: u64,
}

/// Why there can be no such cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShapeError {
    /// Objects of size 0 have no place.
    Empty,
    /// The alignment is no power of two, or larger than a page.
    Align,
    /// One object would not fit into the largest block.
    TooLarge,
}

impl Shape {
    /// The shape of a cache for objects of `size` bytes.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub(crate) fn new(size: usize, align: usize, flags: SlabFlags) -> Result<Self, ShapeError> {
        if size == 0 {
            return Err(ShapeError::Empty);
        }
        if !align.is_power_of_two() || to_count(align) > PAGE_SIZE {
            return Err(ShapeError::Align);
        }
        let align = alignment(size, align, flags);
        let own = size.max(WORD).checked_next_multiple_of(WORD);
        let own = own.ok_or(ShapeError::TooLarge)?;
        // Far from both ends, where one runs over from a neighbour, if it may be in the object at all (Linux
        // does the same).
        let (free_at, own) = match flags.keep_contents() {
            true => (own, own.saturating_add(WORD)),
            false => ((own / 2) & !(WORD - 1), own),
        };
        Self::with([size, own, free_at], align)
    }

    /// The same with what a cache needs that looks at its objects whenever they come or go.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub(super) fn guarded(size: usize, align: usize, flags: SlabFlags) -> Result<Self, ShapeError> {
        let plain = Self::new(size, align, flags)?;
        let align = alignment(size, align, flags);
        let (own, free_at) = Layout::room(plain.size(), align);
        let shape = Self::with([size, own, free_at], align)?;
        Ok(Self {
            guarded: true,
            ..shape
        })
    }

    /// Objects of `size` bytes in places of `own` bytes, the word of free ones at `free_at`.
    fn with([size, own, free_at]: [usize; 3], align: usize) -> Result<Self, ShapeError> {
        let stride = own
            .checked_next_multiple_of(align)
            .ok_or(ShapeError::TooLarge)?;
        let order = order_for(stride).ok_or(ShapeError::TooLarge)?;
        let objects = to_index(order.bytes())
            .checked_div(stride)
            .unwrap_or_default();
        let narrow = |bytes: usize| u32::try_from(bytes).map_err(|_| ShapeError::TooLarge);
        Ok(Self {
            size: narrow(size)?,
            stride: narrow(stride)?,
            free_at: narrow(free_at)?,
            objects: u16::try_from(objects.min(MOST)).map_err(|_| ShapeError::TooLarge)?,
            order,
            guarded: false,
            divider: divider(to_count(stride)),
        })
    }

    /// The same with slabs so small that no object lies across a multiple of `boundary`, which is a power of two, or 0
    /// for none: slabs lie at multiples of their size.
    ///
    /// # Errors
    /// [`ShapeError::TooLarge`] if one object does.
    pub(crate) fn within(mut self, boundary: u64, align: usize) -> Result<Self, ShapeError> {
        // Between two objects at multiples of the boundary there is none across it.
        let is_apart = to_count(align) >= boundary && to_count(self.size()) <= boundary;
        let cell = to_count(self.stride());
        let fits_cell = cell.is_power_of_two() && cell <= boundary;
        if boundary == 0 || is_apart || fits_cell || self.order.bytes() <= boundary {
            return Ok(self);
        }
        let order = Order::for_bytes(boundary).filter(|order| order.bytes() <= boundary);
        self.order = order.ok_or(ShapeError::TooLarge)?;
        let objects = self.order.bytes().checked_div(cell).unwrap_or_default();
        self.objects = u16::try_from(objects).unwrap_or(u16::MAX).min(self.objects);
        // INVARIANT: fewer objects, as many as fit into a smaller block.
        match self.objects {
            0 => Err(ShapeError::TooLarge),
            _ => Ok(self),
        }
    }

    /// The shape in words, …
    pub(super) fn words(&self) -> [u64; 3] {
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let objects = u32::from(self.objects) << 8;
        let rest = u32::from(self.guarded) << 24 | objects | u32::from(self.order.as_u8());
        [
            pair(self.size, self.stride),
            pair(self.free_at, rest),
            self.divider,
        ]
    }

    /// … and from them. `None` if no shape is.
    #[inline(always)]
    pub(super) fn from_words([low, high, divider]: [u64; 3]) -> Option<Self> {
        let halves = |word: u64| {
            let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
            (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
            )
        };
        let ((size, stride), (free_at, rest)) = (halves(low), halves(high));
        let [order, few, many, guarded] = rest.to_le_bytes();
        // INVARIANT: it is what `words` said.
        Some(Self {
            size,
            stride,
            free_at,
            objects: u16::from_le_bytes([few, many]),
            order: Order::new(order)?,
            guarded: guarded != 0,
            divider,
        })
        .filter(|shape| shape.objects > 0)
    }

    /// Bytes that an owner may use.
    #[inline]
    pub(crate) const fn size(&self) -> usize {
        widen(self.size)
    }

    /// Bytes from one object to the next.
    pub(crate) const fn stride(&self) -> usize {
        widen(self.stride)
    }

    /// Where an object that is free names the next one.
    #[inline(always)]
    pub(super) const fn free_at(&self) -> usize {
        widen(self.free_at)
    }

    /// Whether objects have more around them, and are looked at whenever they come or go.
    #[inline(always)]
    pub(crate) const fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The least order of a slab: one object fits.
    pub(super) fn least_order(&self) -> Order {
        Order::for_bytes(to_count(self.stride())).unwrap_or(self.order)
    }

    /// Objects in a slab.
    pub(crate) const fn objects(&self) -> u16 {
        self.objects
    }

    /// The order of a slab.
    pub(crate) const fn order(&self) -> Order {
        self.order
    }

    /// Where an object starts in its slab.
    #[inline]
    pub(super) const fn offset(&self, number: u16) -> Option<usize> {
        if number >= self.objects {
            return None;
        }
        let [low, high] = number.to_le_bytes();
        let number = u32::from_le_bytes([low, high, 0, 0]);
        Some(widen(number).wrapping_mul(self.stride()))
    }

    /// The number of the object that starts at an offset, if one does.
    #[inline(always)]
    pub(super) fn number(&self, offset: usize) -> Option<u16> {
        let product = u128::from(to_count(offset)).wrapping_mul(u128::from(self.divider));
        let (number, rest) = split(product);
        let is_one = number < u64::from(self.objects) && rest < self.divider;
        is_one.then(|| u16::try_from(number).unwrap_or(0))
    }

    /// What an offset of an object times this is less than this, modulo 2^64.
    pub(super) const fn divider(&self) -> u64 {
        self.divider
    }

    /// How many objects a CPU has at hand at most: many small ones, few large ones (Linux has about as many of its own
    /// on a CPU's slabs: `set_cpu_partial`), and none that are looked at whenever they come or go.
    pub(super) const fn at_hand(&self) -> u32 {
        if self.guarded {
            return 0;
        }
        match self.stride {
            0..=256 => 126,
            257..=1024 => 62,
            1025..=2048 => 30,
            _ => 14,
        }
    }
}

fn divider(stride: u64) -> u64 {
    let floor = u64::MAX.checked_div(stride).unwrap_or(0);
    floor.wrapping_add(1)
}

/// The upper and the lower half.
#[inline(always)]
#[expect(clippy::as_conversions, reason = "halves of a number")]
const fn split(product: u128) -> (u64, u64) {
    ((product >> 64) as u64, product as u64)
}

/// The alignment that objects get.
fn alignment(size: usize, align: usize, flags: SlabFlags) -> usize {
    let mut line = WORD;
    if flags.contains(SlabFlags::HWCACHE_ALIGN) {
        // Small objects share a line, but none lies across two.
        line = LINE;
        while size <= line / 2 && line > WORD {
            line /= 2;
        }
    }
    align.max(line).max(WORD)
}

/// The smallest order that wastes little and holds many objects.
fn order_for(stride: usize) -> Option<Order> {
    let of = |bytes: usize| Order::for_bytes(to_count(bytes));
    let usual = Order::new(USUAL_ORDER).unwrap_or_default();
    let least = of(stride.saturating_mul(WANTED))
        .unwrap_or(usual)
        .min(usual);
    for share in [16, 8, 4, 2] {
        for order in Order::all()
            .skip(least.index())
            .take_while(|order| *order <= usual)
        {
            let bytes = to_index(order.bytes());
            let waste = bytes.checked_rem(stride)?;
            if stride <= bytes && waste <= bytes.checked_div(share)? {
                return Some(order);
            }
        }
    }
    of(stride)
}

const fn widen(bytes: u32) -> usize {
    let [a, b, c, d] = bytes.to_le_bytes();
    usize::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(size: usize, align: usize, flags: SlabFlags) -> Shape {
        Shape::new(size, align, flags).unwrap()
    }

    #[test]
    fn objects_lie_as_linux_lays_them() {
        // As Linux 6.1 computes them for 64 CPUs: objects and pages in a slab.
        let at = |size, align| {
            let shape = shape(size, align, SlabFlags::empty());
            (shape.stride(), shape.objects(), shape.order().frames())
        };
        assert_eq!(at(8, 8), (8, 512, 1));
        assert_eq!(at(64, 64), (64, 64, 1));
        assert_eq!(at(96, 8), (96, 42, 1));
        assert_eq!(at(192, 8), (192, 42, 2));
        assert_eq!(at(1024, 1024), (1024, 32, 8));
        assert_eq!(at(8192, 4096), (8192, 4, 8));
    }

    #[test]
    fn every_object_has_its_place_and_number() {
        for size in (1..=9000).step_by(7) {
            for flags in [SlabFlags::empty(), SlabFlags::HWCACHE_ALIGN] {
                let shape = shape(size, 1, flags);
                let block = to_index(shape.order().bytes());
                assert!(shape.objects() > 0 && shape.size() == size);
                for number in 0..shape.objects() {
                    let offset = shape.offset(number).unwrap();
                    assert!(offset + shape.stride() <= block);
                    assert_eq!(shape.number(offset), Some(number));
                    assert_eq!(shape.number(offset + 1), None);
                }
                assert!(shape.free_at() + WORD <= shape.stride());
                let flags = flags | SlabFlags::TYPESAFE_BY_RCU;
                let behind = Shape::new(size, 1, flags).unwrap();
                assert!(behind.free_at() >= size && behind.free_at() + WORD <= behind.stride());
                assert_eq!(Shape::from_words(shape.words()), Some(shape));
                assert_eq!(shape.offset(shape.objects()), None);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let new = |size, align| Shape::new(size, align, SlabFlags::empty());
        assert_eq!(new(0, 8), Err(ShapeError::Empty));
        assert_eq!(new(8, 3), Err(ShapeError::Align));
        assert_eq!(new(8, 8192), Err(ShapeError::Align));
        assert_eq!(new((4 << 20) + 1, 8), Err(ShapeError::TooLarge));
        assert_eq!(new(usize::MAX, 8), Err(ShapeError::TooLarge));
        assert!(new(4 << 20, 4096).is_ok());
    }
}
