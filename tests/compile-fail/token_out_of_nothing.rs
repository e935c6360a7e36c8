//! The token behind a block comes from the frame table alone.
//~ E0624

use mm::addr::PfnRange;
use mm::mem::Exclusive;

pub fn forge(frames: PfnRange) -> Exclusive {
    // SAFETY: none.
    unsafe { Exclusive::new(frames) }
}
