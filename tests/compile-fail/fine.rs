//! Correct use compiles: or the other files would prove nothing.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::Platform;
use mm::system::{AllocError, Memory};

pub fn use_and_drop<P: Platform>(memory: &Memory<P>) -> Result<(), AllocError> {
    let mut block = memory.alloc_block(Gfp::KERNEL, Order::ZERO)?;
    block.bytes_mut().fill(1);
    let first = block.pfn();
    let raw = block.into_raw();
    assert!(first == raw);
    // SAFETY: allocated above, and used no more.
    let _ = unsafe { memory.free_pages(raw, Order::ZERO) };
    Ok(())
}
