//! Freeing by number is a promise.
//~ E0133

use mm::addr::{Order, Pfn};
use mm::platform::Platform;
use mm::system::Memory;

pub fn free<P: Platform>(memory: &Memory<P>, pfn: Pfn) {
    let _ = memory.free_pages(pfn, Order::ZERO);
}
