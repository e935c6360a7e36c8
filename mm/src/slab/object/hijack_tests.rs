//! R21: what is written over the word of a free object is not taken for the next one, and the word tells nobody where
//! objects are.
#![forbid(unsafe_code)]

use core::array::from_fn;
use core::cell::Cell;
use core::ptr::NonNull;

use super::{Code, Object, follows};
use crate::platform::Profile;
use crate::slab::SlabFlags;
use crate::slab::shape::Shape;

const TIMES: u64 = 1_000_000;
const SIZE: usize = 64;

/// An object of a cache whose secret follows from a number, and the word that it has while it is free.
fn with_object(number: u64, body: impl FnOnce(Code, (&mut Object, &Cell<u64>), &Shape)) {
    let words: [Cell<u64>; SIZE / 8] = from_fn(|_| Cell::new(0));
    let mut object = Object(NonNull::from_ref(&words).cast());
    let shape = Shape::new(SIZE, 8, SlabFlags::empty()).unwrap();
    let code = Code::new(Profile::Hardened, follows(number));
    body(code, (&mut object, &words[shape.free_at() / 8]), &shape);
}

#[test]
fn no_random_word_names_a_free_object() {
    with_object(21, |code, (object, word), shape| {
        for number in 0..TIMES {
            word.set(follows(number));
            assert_eq!(code.read(object, shape), None, "{:#x}", word.get());
        }
        // What is written as it should be is read.
        code.write(object, shape, 7);
        assert_eq!(code.read(object, shape), Some(7));
    });
}

#[test]
fn no_stored_word_is_a_number_or_an_address() {
    let mut seen = 0;
    for secret in 0..TIMES / 500 {
        with_object(secret, |code, (object, word), shape| {
            let start = u64::try_from(object.as_ptr().addr().get()).unwrap();
            for number in 0..500 {
                code.write(object, shape, number);
                let word = word.get();
                assert!(word > u64::from(u16::MAX), "{word:#x} is a number");
                // Anywhere within 1 GiB.
                assert!(
                    word.abs_diff(start) > 1 << 30,
                    "{word:#x} is near {start:#x}"
                );
                seen += 1;
            }
        });
    }
    assert_eq!(seen, TIMES);
}
