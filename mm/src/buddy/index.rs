//! Where to look: which sections have a pageblock of a type with a free block of a size.
#![forbid(unsafe_code)]

use super::MigrateType;
use super::area::{Area, ByKind, bit, largest_of, row, slot};
use crate::addr::{Order, to_count};
use crate::collections::{Members, SetBank};
use crate::config::ORDERS;

/// Sets in the index of a zone: one per type and order.
pub(super) const SETS: u64 = to_count(ORDERS * MigrateType::COUNT);

/// The set of a type and an order.
#[inline]
pub(super) const fn set_of(kind: MigrateType, order: Order) -> u64 {
    to_count(
        kind.index()
            .wrapping_mul(ORDERS)
            .wrapping_add(order.index()),
    )
}

/// Which sections have a pageblock of a type whose largest free block has an order.
///
/// # Invariants
/// Section `s` is in set `(t, o)` exactly if the area of `s` has a bit in `largest[t][o]`; bit
/// `o` of `stock[t]` is set exactly if set `(t, o)` has members.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) bank: SetBank,
    pub(super) stock: ByKind<u16>,
}

/// A pageblock, by the slot of its section and its number there.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) slot: u64,
    pub(super) block: usize,
}

impl Index {
    /// No section has anything.
    pub(super) const fn empty() -> Self {
        Self {
            bank: SetBank::empty(),
            stock: [0; 8],
        }
    }

    /// Orders in which some pageblock of a type has its largest free block.
    #[inline]
    pub(super) const fn stock(&self, kind: MigrateType) -> u16 {
        self.stock[row(kind)]
    }

    /// Takes note that the free orders of a pageblock changed from one set to another.
    #[inline(always)]
    pub(super) fn update(
        &mut self,
        area: &mut Area,
        place: Place,
        kind: MigrateType,
        before: u16,
        after: u16,
    ) {
        let (before, after) = (largest_of(before), largest_of(after));
        if before == after {
            return;
        }
        if let Some(order) = before {
            self.leave(area, place, kind, order);
        }
        if let Some(order) = after {
            self.enter(area, place, kind, order);
        }
    }

    #[inline(always)]
    fn leave(&mut self, area: &mut Area, place: Place, kind: MigrateType, order: Order) {
        let word = &mut area.largest[row(kind)][slot(order)];
        *word &= !(1 << (place.block & 63));
        if *word == 0 && self.bank.remove(set_of(kind, order), place.slot) == Members::None {
            self.stock[row(kind)] &= !bit(order);
        }
    }

    #[inline(always)]
    fn enter(&mut self, area: &mut Area, place: Place, kind: MigrateType, order: Order) {
        let word = &mut area.largest[row(kind)][slot(order)];
        if *word == 0 {
            self.bank.insert(set_of(kind, order), place.slot);
            self.stock[row(kind)] |= bit(order);
        }
        *word |= 1 << (place.block & 63);
    }
}
