//! Early memory ends when the page allocator begins.
//~ E0382

use mm::memblock::{Memblock, Request};
use mm::platform::Platform;

pub fn late<P: Platform>(mut memblock: Memblock, platform: &P) {
    memblock.hand_over(&mut |_, ram| drop(ram));
    let _ = memblock.alloc(platform, &Request::bytes(1));
}
