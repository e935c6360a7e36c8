//! A handle lives no longer than the memory it returns to.
//~ E0515

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::system::{Block, Memory};

pub fn orphan<P: Platform>(platform: P) -> Block<&'static Memory<P>> {
    let memory = Memory::new(platform);
    memory.alloc_block(Gfp::KERNEL, Order::ZERO).unwrap()
}
