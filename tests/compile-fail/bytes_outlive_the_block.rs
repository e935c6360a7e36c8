//! The bytes of a block live no longer than it.
//~ E0505

use mm::system::{Block, Home};

pub fn late<H: Home>(mut block: Block<H>) {
    let bytes = block.bytes_mut();
    drop(block);
    bytes[0] = 1;
}
