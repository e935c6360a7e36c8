//! A shared block has no exclusive bytes.
//~ E0599

use mm::system::{Home, SharedBlock};

pub fn write<H: Home>(mut block: SharedBlock<H>) {
    block.bytes_mut().fill(0);
}
