//! A block is given back once.
//~ E0382

use mm::system::{Block, Home};

pub fn twice<H: Home>(block: Block<H>) {
    drop(block);
    drop(block);
}
