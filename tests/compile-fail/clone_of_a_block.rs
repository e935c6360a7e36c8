//! A right to memory cannot be doubled.
//~ E0599

use mm::system::{Block, Home};

pub fn twins<H: Home>(block: Block<H>) -> (Block<H>, Block<H>) {
    (block.clone(), block)
}
