//! Nobody writes to a block while somebody reads it.
//~ E0502

use mm::system::{Block, Home};

pub fn mixed<H: Home>(mut block: Block<H>) -> u8 {
    let read = block.bytes();
    block.bytes_mut().fill(0);
    read[0]
}
