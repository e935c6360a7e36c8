//! Where the kernel's image lies, from the symbols of `boot`'s linker script.

use crate::num::to_u64;
use core::ops::Range;

unsafe extern "C" {
    #[link_name = "__text_start"]
    safe static TEXT_START: u8;
    #[link_name = "__text_end"]
    safe static TEXT_END: u8;
}

/// The addresses of the kernel's code.
#[must_use]
pub fn text() -> Range<u64> {
    to_u64((&raw const TEXT_START).addr())..to_u64((&raw const TEXT_END).addr())
}
