//! A block has one writer at a time.
//~ E0499

use mm::system::{Block, Home};

pub fn both<H: Home>(mut block: Block<H>) {
    let one = block.bytes_mut();
    let other = block.bytes_mut();
    one[0] = other[0];
}
