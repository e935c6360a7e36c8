//! Sharing a block ends exclusive use of it.
//~ E0382

use mm::system::{Block, Home, SharedBlock};

pub fn share<H: Home>(mut block: Block<H>) -> Result<SharedBlock<H>, Block<H>> {
    let shared = block.share();
    block.bytes_mut().fill(0);
    shared
}
