//! `memcpy` and its relatives, which the boot macro defines and the compiler calls unasked.
#![expect(unsafe_code, reason = "the symbols are foreign functions")]

use crate::{ktest, ktest_assert, ktest_eq};
use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    fn memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void;
    fn memcmp(a: *const c_void, b: *const c_void, count: usize) -> c_int;
    fn bcmp(a: *const c_void, b: *const c_void, count: usize) -> c_int;
    fn strlen(text: *const c_char) -> usize;
}

/// Lengths around every word and vector size that an implementation may treat apart.
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 129];
const ARENA: usize = 192;

fn pattern() -> [u8; ARENA] {
    let mut bytes = [0; ARENA];
    for (byte, n) in bytes.iter_mut().zip(0_u8..) {
        *byte = n.wrapping_mul(37).wrapping_add(11);
    }
    bytes
}

/// What moving must result in, byte by byte, through a copy.
fn moved(bytes: &[u8; ARENA], to: usize, from: usize, length: usize) -> [u8; ARENA] {
    let mut expected = *bytes;
    for (target, &source) in expected
        .iter_mut()
        .skip(to)
        .zip(bytes.iter().skip(from))
        .take(length)
    {
        *target = source;
    }
    expected
}

ktest! {
    fn memcpy_copies_exactly_the_bytes_asked_for() {
        for length in LENGTHS {
            for offset in 0..9 {
                let from = pattern();
                let mut to = [0xee; ARENA];
                let target = to.as_mut_ptr().wrapping_add(offset).cast();
                let source = from.as_ptr().wrapping_add(3).cast();
                // SAFETY: both ranges lie in their arrays: 9 + 129 < 192.
                let result = unsafe { memcpy(target, source, length) };
                ktest_eq!(result, target);
                let mut expected = [0xee; ARENA];
                for (target, &source) in expected.iter_mut().skip(offset).zip(from.iter().skip(3)).take(length) {
                    *target = source;
                }
                ktest_assert!(to == expected, "{length} bytes to offset {offset}");
            }
        }
        Ok(())
    }

    fn memmove_handles_overlap_in_both_directions() {
        for length in LENGTHS {
            for (to, from) in [(0, 1), (1, 0), (5, 13), (13, 5), (8, 8), (40, 0), (0, 40)] {
                let mut bytes = pattern();
                let expected = moved(&bytes, to, from, length);
                let base = bytes.as_mut_ptr();
                // SAFETY: both ranges lie in the array: 40 + 129 < 192.
                unsafe { memmove(base.wrapping_add(to).cast(), base.wrapping_add(from).cast(), length) };
                ktest_assert!(bytes == expected, "{length} bytes from {from} to {to}");
            }
        }
        Ok(())
    }

    fn memset_sets_exactly_the_bytes_asked_for() {
        for length in LENGTHS {
            for offset in 0..9 {
                let mut bytes = pattern();
                let mut expected = bytes;
                expected.iter_mut().skip(offset).take(length).for_each(|byte| *byte = 0xa5);
                // SAFETY: the range lies in the array. Only the low byte of the value counts.
                unsafe { memset(bytes.as_mut_ptr().wrapping_add(offset).cast(), 0x5a5_u16.into(), length) };
                ktest_assert!(bytes == expected, "{length} bytes at offset {offset}");
            }
        }
        Ok(())
    }

    fn memcmp_orders_by_the_first_difference_as_unsigned_bytes() {
        let a = pattern();
        for length in LENGTHS {
            for place in [0, length / 2, length.saturating_sub(1)] {
                let mut b = a;
                let low = a.get(place).copied().unwrap_or(0);
                let Some(slot) = b.get_mut(place) else { continue };
                *slot = low ^ 0x80;
                // SAFETY: both arrays are longer than every length.
                let order = unsafe { memcmp(a.as_ptr().cast(), b.as_ptr().cast(), length) };
                // SAFETY: as above.
                let differ = unsafe { bcmp(a.as_ptr().cast(), b.as_ptr().cast(), length) };
                let expected = a.get(..length).cmp(&b.get(..length));
                ktest_eq!(order.cmp(&0), expected);
                ktest_eq!(differ != 0, expected.is_ne());
            }
        }
        Ok(())
    }

    fn strlen_stops_at_the_first_zero() {
        let mut text = [b'x'; ARENA];
        for length in LENGTHS.into_iter().rev() {
            if let Some(slot) = text.get_mut(length) {
                *slot = 0;
            }
            // SAFETY: a zero byte lies within the array.
            ktest_eq!(unsafe { strlen(text.as_ptr().cast()) }, length);
        }
        Ok(())
    }
}
