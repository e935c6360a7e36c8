//! Backtraces: found through real frames, and harmless on broken ones.

use crate::arch::{image, local, registers};
use crate::backtrace::Frames;
use crate::{ktest, ktest_assert, ktest_eq};

fn frames_from(rbp: u64) -> usize {
    let cpu = local::current();
    Frames { cpu, rbp }.take(1_000).count()
}

ktest! {
    fn a_real_chain_leads_through_the_kernels_code() {
        let cpu = local::current();
        let chain = Frames { cpu, rbp: registers::frame_pointer() };
        ktest_assert!(chain.clone().count() >= 1);
        ktest_assert!(chain.take(1_000).all(|address| image::text().contains(&address)));
        Ok(())
    }

    fn frame_pointers_to_nowhere_end_the_chain() {
        let stack = local::current().main_stack();
        let nowhere = [
            0,
            1,
            u64::MAX,
            u64::MAX.saturating_sub(15),
            0x6161_6161_6161_6161,
            stack.guard,
            stack.bottom.saturating_sub(8),
            stack.top,
            stack.top.saturating_sub(8),
            stack.top.saturating_sub(17),
        ];
        for rbp in nowhere {
            ktest_eq!(frames_from(rbp), 0);
        }
        Ok(())
    }

    fn a_chain_that_leads_back_ends() {
        // A frame whose caller is itself, with a return address that looks right.
        let mut frame = [0_u64; 2];
        let address = crate::num::to_u64(frame.as_ptr().expose_provenance());
        frame = [address, image::text().start];
        core::hint::black_box(&frame);
        ktest_assert!(frames_from(address) <= 1);
        Ok(())
    }
}
