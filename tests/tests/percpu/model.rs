//! Against a naive allocator: a row of granules, the lowest place that fits.

use mm::buddy::Gfp;
use mm_tests::seed;
use mm_tests::sim::{Checked, Machine};
use proptest::prelude::*;

use super::{MIB, dirty, is_dirty};

const UNIT: usize = 32768;
const GRANULE: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, align: usize },
    Free(prop::sample::Index),
    Validate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Sizes that CPUs have at hand do not come from the lowest place.
    let size = prop_oneof![
        5 => 1_usize..200,
        2 => 200_usize..2000,
        1 => 2000_usize..9000,
    ];
    let size = size.prop_filter("at hand", |size| ![4, 8, 16, 32, 64].contains(size));
    let step = prop_oneof![
        5 => (size, 0_u32..12).prop_map(|(size, log)| Step::Alloc { size, align: 1 << log }),
        4 => any::<prop::sample::Index>().prop_map(Step::Free),
        1 => Just(Step::Validate),
    ];
    prop::collection::vec(step, 1..120)
}

/// The first chunk, as simple as it can be.
struct Naive(Vec<bool>);

impl Naive {
    fn alloc(&mut self, size: usize, align: usize) -> Option<usize> {
        let length = size.div_ceil(GRANULE);
        let step = align.div_ceil(GRANULE);
        let at = (0..=self.0.len() - length)
            .step_by(step)
            .find(|at| self.0[*at..at + length].iter().all(|taken| !taken))?;
        self.0[at..at + length].fill(true);
        Some(at * GRANULE)
    }

    fn free(&mut self, offset: usize, size: usize) {
        let at = offset / GRANULE;
        self.0[at..at + size.div_ceil(GRANULE)].fill(false);
    }
}

#[test]
fn objects_are_where_a_naive_allocator_puts_them() {
    seed::check("percpu_model", 60, &steps(), |steps| {
        let machine = Machine::<Checked>::new().ram(0, 32 * MIB).cpus(3).boot();
        let mut naive = Naive(vec![false; UNIT / GRANULE]);
        let mut base = None;
        let mut live: Vec<(std::ptr::NonNull<u8>, usize, Option<usize>, u8)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Alloc { size, align } => {
                    let first = machine.alloc_percpu((size, align), Gfp::KERNEL).unwrap();
                    let offset = naive.alloc(size, align);
                    // Objects that fit into no hole of the first chunk are in another one.
                    if let Some(offset) = offset.filter(|_| machine.percpu_stats().chunks == 1) {
                        let base = *base.get_or_insert(first.addr().get() - offset);
                        prop_assert_eq!(first.addr().get() - base, offset);
                    } else {
                        prop_assert!(offset.is_none() || machine.percpu_stats().chunks > 1);
                        // From here on chunks are filled by what fits best.
                        naive.0.fill(true);
                    }
                    dirty(&machine, first, size, number as u8);
                    live.push((first, size, offset, number as u8));
                }
                Step::Free(_) if live.is_empty() => {}
                Step::Free(index) => {
                    let (first, size, offset, stamp) = live.swap_remove(index.index(live.len()));
                    is_dirty(&machine, first, size, stamp);
                    super::free(&machine, first, size);
                    if let Some(offset) = offset {
                        naive.free(offset, size);
                    }
                }
                Step::Validate => machine.validate_percpu().unwrap(),
            }
            let stats = machine.percpu_stats();
            let bytes = live
                .iter()
                .map(|(_, size, _, _)| size.next_multiple_of(GRANULE));
            prop_assert_eq!(stats.objects, live.len());
            prop_assert_eq!(stats.used_bytes, bytes.sum::<usize>());
            prop_assert_eq!(stats.used_bytes + stats.free_bytes, stats.chunks * UNIT);
        }
        for (first, size, _, stamp) in live {
            is_dirty(&machine, first, size, stamp);
            super::free(&machine, first, size);
        }
        machine.finish();
        Ok(())
    });
}
