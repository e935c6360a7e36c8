//! The shortest kernel that boots by itself and has a page allocator: it prints the memory it
//! found, allocates and frees some pages, and ends QEMU with a status.
#![no_std]
#![no_main]

mod console;
mod memory;

use core::panic::PanicInfo;

use bootloader_api::BootInfo;
use console::{Status, exit, say};
use memory::MEMORY;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::system::AllocError;

boot::entry!();
bootloader_api::entry_point!(main);

fn main(info: &'static mut BootInfo) -> ! {
    let summary = memory::bring_up(info);
    let free = MEMORY.free_frames();
    say!("{free} of {} pages are free", summary.present);

    let used = use_pages();
    if let Err(error) = &used {
        say!("no pages: {error}");
    }
    // What this CPU keeps at hand goes back too.
    let drained = MEMORY.drain_all_pages();
    let all_back = drained && MEMORY.free_frames() == free && MEMORY.validate().is_ok();
    say!("{} pages are free again", MEMORY.free_frames());
    exit(match used {
        Ok(()) if all_back => Status::Passed,
        _ => Status::Failed,
    })
}

/// A block goes back to its zone where its handle ends, here all at the end of the function.
fn use_pages() -> Result<(), AllocError> {
    let mut large = MEMORY.alloc_block(Gfp::KERNEL | Gfp::ZERO, Order::PAGEBLOCK)?;
    let page = MEMORY.alloc_block(Gfp::KERNEL, Order::ZERO)?;
    let for_a_device = MEMORY.alloc_block(Gfp::KERNEL | Gfp::DMA, Order::ZERO)?;
    large.bytes_mut().fill(0xa5);

    for block in [&large, &page, &for_a_device] {
        let (pages, place) = (block.frames().frames(), block.frames().addrs());
        say!("{pages} pages: {place}");
    }
    Ok(())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    exit(Status::Panicked)
}
