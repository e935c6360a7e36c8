//! The same text under other names, against the obvious definitions.

use core::ffi::{c_char, c_int};
use std::vec::Vec;

use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert_eq};

crate::__boot_memory_symbols!("boot_test_");

unsafe extern "C" {
    fn boot_test_memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn boot_test_memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn boot_test_memset(to: *mut u8, value: c_int, length: usize) -> *mut u8;
    fn boot_test_memcmp(left: *const u8, right: *const u8, length: usize) -> c_int;
    fn boot_test_bcmp(left: *const u8, right: *const u8, length: usize) -> c_int;
    fn boot_test_strlen(text: *const c_char) -> usize;
}

const ROOM: usize = 700;

fn numbers() -> Vec<u8> {
    (0..ROOM)
        .map(|number| (number % 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn every_length_is_copied_and_nothing_else() {
    for length in 0..300 {
        let from = numbers();
        let mut to = std::vec![0xee; ROOM];
        let place = to[7..].as_mut_ptr();
        // SAFETY: both ranges lie in their vectors.
        let result = unsafe { boot_test_memcpy(place, from[3..].as_ptr(), length) };
        assert_eq!(result, place);
        assert_eq!(to[7..7 + length], from[3..3 + length]);
        assert!(
            to[..7]
                .iter()
                .chain(&to[7 + length..])
                .all(|byte| *byte == 0xee)
        );
    }
}

#[test]
fn every_length_is_filled_and_nothing_else() {
    for length in 0..300 {
        let mut to = std::vec![0xee; ROOM];
        let place = to[5..].as_mut_ptr();
        // SAFETY: the range lies in the vector.
        let result = unsafe { boot_test_memset(place, -171, length) };
        assert_eq!(result, place);
        assert!(
            to[5..5 + length].iter().all(|byte| *byte == 0x55),
            "{length}"
        );
        assert!(
            to[..5]
                .iter()
                .chain(&to[5 + length..])
                .all(|byte| *byte == 0xee)
        );
    }
}

#[test]
fn the_first_difference_decides() {
    for length in 1..70 {
        let left = numbers();
        // SAFETY: both ranges lie in their vectors.
        let same = unsafe { boot_test_memcmp(left.as_ptr(), left.as_ptr(), length) };
        assert_eq!(same, 0);
        for place in 0..length {
            let mut right = left.clone();
            right[place] = left[place] + 1;
            right[length..].fill(0);
            if place + 1 < length {
                right[place + 1] = 0;
            }
            let (a, b) = (left.as_ptr(), right.as_ptr());
            // SAFETY: as above.
            let less = unsafe { boot_test_memcmp(a, b, length) };
            // SAFETY: as above.
            let more = unsafe { boot_test_memcmp(b, a, length) };
            // SAFETY: as above.
            let differs = unsafe { boot_test_bcmp(a, b, length) };
            assert!(less < 0 && more > 0 && differs != 0, "{length} {place}");
        }
    }
}

#[test]
fn a_string_ends_at_its_zero() {
    // SAFETY: the text has an end.
    assert_eq!(unsafe { boot_test_strlen(c"".as_ptr()) }, 0);
    // SAFETY: the text has an end.
    assert_eq!(unsafe { boot_test_strlen(c"hello".as_ptr()) }, 5);
}

proptest! {
    #[test]
    fn overlapping_moves_read_before_they_write(
        bytes in collection::vec(any::<u8>(), ROOM),
        from in 0..200_usize,
        to in 0..200_usize,
        length in 0..500_usize,
    ) {
        let mut expected = bytes.clone();
        expected.copy_within(from..from + length, to);
        let mut moved = bytes;
        let start = moved.as_mut_ptr();
        // SAFETY: both ranges lie in the vector.
        let source = unsafe { start.add(from) };
        // SAFETY: as above.
        let target = unsafe { start.add(to) };
        // SAFETY: as above.
        unsafe { boot_test_memmove(target, source, length) };
        prop_assert_eq!(moved, expected);
    }
}
