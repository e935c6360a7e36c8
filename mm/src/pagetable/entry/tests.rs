//! Algebra of entries: what `debug_vm_pgtable` of Linux asserts, and every flag word.

use super::*;

/// The 16 protections.
fn protections() -> impl Iterator<Item = Protection> {
    (0..16).map(Protection::from_bits_truncate)
}

fn every_leaf() -> impl Iterator<Item = (PageSize, Attributes, Entry)> {
    PageSize::ALL.into_iter().flat_map(|size| {
        protections().flat_map(move |protection| {
            Cache::ALL.into_iter().map(move |cache| {
                let attributes = Attributes { protection, cache };
                let pfn = Pfn::new(0x1_2345 * size.frames());
                (size, attributes, Entry::leaf(pfn, size, attributes))
            })
        })
    })
}

#[test]
fn leaves_read_back_as_they_were_made() {
    let mut checked = 0;
    for (size, attributes, entry) in every_leaf() {
        let leaf = Leaf {
            pfn: Pfn::new(0x1_2345 * size.frames()),
            size,
            attributes,
        };
        assert_eq!(entry.decode(size.level()), Decoded::Leaf(leaf), "{entry:?}");
        assert!(entry.is_present() && !entry.is_none());
        // At other levels it is no page of that size, or none at all.
        if size != PageSize::Size4K {
            assert_eq!(entry.decode(Level::P4D), Decoded::Bad);
            assert!(!entry.leads_to_table());
        }
        for other in Cache::ALL {
            let changed = entry.with_attributes(size, attributes.with_cache(other));
            assert_eq!(changed.attributes(size).cache, other);
            assert_eq!(changed.leaf_pfn(size), leaf.pfn);
            assert_eq!(changed.with_attributes(size, attributes), entry);
        }
        checked += 1;
    }
    assert_eq!(checked, 3 * 16 * 6);
}

#[test]
fn the_identities_of_debug_vm_pgtable_hold() {
    for (size, _, entry) in every_leaf() {
        assert!(entry.with_young(false).with_young(true).is_young());
        assert!(!entry.with_young(true).with_young(false).is_young());
        assert!(entry.with_dirty(false).with_dirty(true).is_dirty());
        assert!(!entry.with_dirty(true).with_dirty(false).is_dirty());
        assert!(entry.with_write(false).with_write(true).is_writable());
        assert!(!entry.with_write(true).with_write(false).is_writable());
        for dirty in [false, true] {
            let marked = entry.with_dirty(dirty);
            assert_eq!(marked.with_write(false).is_dirty(), dirty, "wrprotect");
            assert_eq!(marked.with_write(true).is_dirty(), dirty, "mkwrite");
        }
        let soft = SoftBits::SOFT_DIRTY;
        assert!(entry.with_dirty(true).soft().contains(soft));
        assert!(
            !entry
                .with_soft(soft)
                .without_soft(soft)
                .soft()
                .contains(soft)
        );
        for bit in SoftBits::all().iter() {
            let marked = entry.with_soft(bit);
            assert!(marked.soft().contains(bit));
            assert_eq!(marked.attributes(size), entry.attributes(size));
            assert_eq!(marked.leaf_pfn(size), entry.leaf_pfn(size));
        }
        let none = entry.to_protnone();
        assert!(none.is_protnone() && !none.is_present() && !none.is_none());
        assert_eq!(none.leaf_pfn(size), entry.leaf_pfn(size));
        assert_eq!(none.as_swap(), None, "a page without access is not swapped");
        let is_global = entry
            .attributes(size)
            .protection
            .contains(Protection::GLOBAL);
        assert_eq!(none.from_protnone(is_global), entry);
        let invalid = entry.invalidated();
        assert!(!invalid.is_present());
        assert_eq!(
            invalid.leaf_pfn(size),
            entry.leaf_pfn(size),
            "invalidate keeps the frame"
        );
        // Each of these bits is the only one that changes.
        for changed in [
            entry.with_young(!entry.is_young()),
            entry.with_write(!entry.is_writable()),
        ] {
            assert_eq!((changed.bits() ^ entry.bits()).count_ones(), 1);
        }
    }
}

#[test]
fn tables_are_led_to_and_nothing_is_nothing() {
    for level in [Level::PMD, Level::PUD, Level::P4D, Level::PGD] {
        for user in [false, true] {
            let entry = Entry::table(Pfn::new(0xab_cdef), user);
            assert_eq!(entry.decode(level), Decoded::Table(Pfn::new(0xab_cdef)));
            assert_eq!(entry.table_pfn(), Some(Pfn::new(0xab_cdef)));
            assert_eq!(entry.bits() & USER != 0, user);
            // Rights are the leaf's: the way forbids nothing.
            assert!(entry.is_writable() && entry.bits() & NO_EXECUTE == 0);
        }
        assert_eq!(Entry::NONE.decode(level), Decoded::None);
        assert_eq!(Entry::NONE.table_pfn(), None);
    }
}

#[test]
fn every_flag_word_means_one_thing_at_each_level() {
    // All values of the twelve lowest bits, with and without execution.
    for low in 0..0x1000_u64 {
        for high in [0, NO_EXECUTE] {
            let entry = Entry::from_bits(0x1234_5000_0000 | low | high);
            for number in 1..=5 {
                let level = Level::new(number).unwrap();
                match entry.decode(level) {
                    Decoded::None => panic!("there is an address"),
                    Decoded::NotPresent => assert_eq!(low & PRESENT, 0),
                    Decoded::Table(_) => {
                        assert!(low & PRESENT != 0 && low & HUGE == 0 && number > 1)
                    }
                    Decoded::Bad => assert!(low & (PRESENT | HUGE) == PRESENT | HUGE && number > 3),
                    Decoded::Leaf(leaf) => {
                        assert!(low & PRESENT != 0 && (number == 1 || low & HUGE != 0));
                        let again = entry.with_attributes(leaf.size, leaf.attributes);
                        assert_eq!(again.attributes(leaf.size), leaf.attributes);
                        assert_eq!(again.leaf_pfn(leaf.size), leaf.pfn);
                        // Entries 4 and 6 of the attribute table say what 0 and 2 say.
                        let same = again.bits() ^ entry.bits();
                        assert!(same & !(PAT_SMALL | PAT_HUGE) == 0, "{entry:?} {again:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn pieces_of_a_large_page_map_what_it_mapped() {
    for (size, attributes, entry) in every_leaf() {
        let Some(piece) = entry.first_piece(size) else {
            assert_eq!(size, PageSize::Size4K);
            continue;
        };
        let smaller = if size == PageSize::Size1G {
            PageSize::Size2M
        } else {
            PageSize::Size4K
        };
        let leaf = piece.as_leaf(smaller);
        assert_eq!(leaf.pfn, entry.leaf_pfn(size));
        assert_eq!(leaf.attributes, attributes);
        assert!(matches!(piece.decode(smaller.level()), Decoded::Leaf(_)));
        assert_eq!(piece.joined(smaller, size), entry, "and put together again");
    }
}

#[test]
fn swap_entries_survive_the_round_trip() {
    for area in 0..SwapEntry::AREAS {
        for offset in [0, 1, 0xffff, OFFSET_TOP, 1 << 49] {
            let swap = SwapEntry::new(area, offset).unwrap();
            let entry = Entry::swap(swap);
            assert!(!entry.is_present() && !entry.is_none() && !entry.is_protnone());
            for exclusive in [false, true] {
                for dirty in [false, true] {
                    let marked = entry
                        .with_swap_exclusive(exclusive)
                        .with_swap_soft_dirty(dirty);
                    assert_eq!(marked.as_swap(), Some(swap));
                    assert_eq!(marked.is_swap_exclusive(), exclusive);
                    assert_eq!(marked.is_swap_soft_dirty(), dirty);
                }
            }
        }
    }
    assert_eq!(SwapEntry::new(SwapEntry::AREAS, 0), None);
    assert_eq!(SwapEntry::new(0, OFFSET_TOP + 1), None);
    assert_eq!(Entry::NONE.as_swap(), None);
}

/// The largest offset: 50 bits, and not all of them.
const OFFSET_TOP: u64 = (1 << 50) - 2;

#[test]
fn migration_entries_say_from_where_and_how() {
    let from = Pfn::new(0x12_3456);
    for how in [Migration::Read, Migration::ReadExclusive, Migration::Write] {
        let entry = Entry::swap(SwapEntry::migration(from, how));
        let found = entry.as_swap().unwrap();
        assert_eq!(found.as_migration(), Some((from, how)));
        assert_eq!(found.area(), None);
    }
    let swapped = SwapEntry::new(3, 7).unwrap();
    assert_eq!((swapped.area(), swapped.as_migration()), (Some(3), None));
}
