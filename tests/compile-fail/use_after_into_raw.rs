//! A block that became a number is no block any more.
//~ E0382

use mm::addr::Pfn;
use mm::system::{Block, Home};

pub fn both<H: Home>(block: Block<H>) -> (Pfn, u8) {
    (block.into_raw(), block.bytes()[0])
}
