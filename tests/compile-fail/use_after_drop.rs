//! A block that was given back is out of reach.
//~ E0382

use mm::system::{Block, Home};

pub fn first_byte<H: Home>(block: Block<H>) -> u8 {
    drop(block);
    block.bytes()[0]
}
