//! The memory chapters of the tutorial "Writing an OS in Rust", on `mm`: what a reader wrote against `bootloader` and `x86_64` goes on
//! as it was. `docs/porting.md` has the difference.
#![no_std]
#![no_main]

extern crate alloc;

mod allocator;
mod memory;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::error::Error;
use core::panic::PanicInfo;

use boot::{Exit, say};
use boot_memory::{Stack, settled_frames};
use bootloader_api::{BootInfo, entry_point};
use memory::MEMORY;
use x86_64::VirtAddr;
use x86_64::structures::paging::mapper::{Translate, UnmapError};
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, Mapper, Page, Size4KiB};

boot::entry!();
entry_point!(kernel_main);

fn kernel_main(boot_info: &'static mut BootInfo) -> ! {
    let done = run(boot_info);
    say!("{done:?}");
    boot::exit(done.map_or(Exit::Failed, |()| Exit::Passed))
}

fn run(boot_info: &BootInfo) -> Result<(), Box<dyn Error>> {
    let offset = boot_info.physical_memory_offset.as_ref().copied();
    let physical_memory_offset = VirtAddr::new(offset.ok_or("physical memory is not mapped")?);
    // SAFETY: called once, with what the boot loader gave.
    let mut mapper = unsafe { memory::init(boot_info) }?;
    let mut frame_allocator = memory::frame_allocator();
    let before = settled_frames(&MEMORY);

    translate(&mapper, physical_memory_offset)?;
    look_at_a_stack(&mapper)?;
    use_a_page(&mut mapper, &mut frame_allocator, physical_memory_offset)?;
    use_the_heap();

    let after = settled_frames(&MEMORY);
    say!("{before} frames were free, {after} are");
    MEMORY.validate()?;
    (after == before).then_some(()).ok_or("a leak".into())
}

/// Addresses of each kind: a device, a constant, the stack, and all of memory at its offset.
fn translate(
    mapper: &impl Translate,
    physical_memory_offset: VirtAddr,
) -> Result<(), &'static str> {
    let on_the_stack = 0_u8;
    let addresses = [
        VirtAddr::new(0xb8000),
        VirtAddr::from_ptr("a constant".as_ptr()),
        VirtAddr::from_ptr(&raw const on_the_stack),
        physical_memory_offset,
    ];
    for address in addresses {
        say!("{address:?} -> {:?}", mapper.translate_addr(address));
    }
    let device = mapper.translate_addr(addresses[0]).map(|at| at.as_u64());
    let first = mapper.translate_addr(physical_memory_offset);
    let nowhere = mapper.translate_addr(VirtAddr::new(0x4444_4444_0000));
    match (device, first.map(|at| at.as_u64()), nowhere) {
        (Some(0xb8000), Some(0), None) => Ok(()),
        _ => Err("physical memory is elsewhere"),
    }
}

/// A stack is mapped, and the page below it is not.
fn look_at_a_stack(mapper: &impl Translate) -> Result<(), Box<dyn Error>> {
    let stack = Stack::alloc(&MEMORY, 16 << 10)?;
    let bottom = stack.range().start().as_u64();
    let guard = mapper.translate_addr(VirtAddr::new(bottom.wrapping_sub(1)));
    let last = mapper.translate_addr(VirtAddr::new(bottom));
    match (guard, last) {
        (None, Some(_)) => Ok(()),
        _ => Err("a stack without a guard page".into()),
    }
}

/// What is written to the page.
const MARK: u64 = 0x0123_4567_89ab_cdef;

/// A frame at an address of our own; what is written there is found in the map of memory too.
fn use_a_page<M: Mapper<Size4KiB> + Translate>(
    mapper: &mut M,
    frames: &mut (impl FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB>),
    physical_memory_offset: VirtAddr,
) -> Result<(), Box<dyn Error>> {
    let page = Page::containing_address(VirtAddr::new(0x4444_4444_0000));
    let frame = frames.allocate_frame().ok_or("no frame")?;
    // SAFETY: the frame was allocated just now.
    let mapped = unsafe { memory::map_example(page, frame, mapper, frames) };
    mapped.map_err(|_| "not mapped")?;

    let ours = page.start_address().as_mut_ptr::<u64>();
    // SAFETY: the page is mapped, and its frame is ours.
    unsafe { ours.write_volatile(MARK) };
    let frame_offset = frame.start_address().as_u64();
    let same = VirtAddr::new(physical_memory_offset.as_u64().wrapping_add(frame_offset));
    // SAFETY: all frames are mapped there.
    let found = unsafe { same.as_ptr::<u64>().read_volatile() };
    say!("{page:?} -> {frame:?}: {found:#x}");

    let gone = |_: UnmapError| "not mapped any more";
    let (unmapped, flush) = mapper.unmap(page).map_err(gone)?;
    flush.flush();
    // SAFETY: nothing leads to it but the map of memory, and nobody uses that.
    unsafe { frames.deallocate_frame(unmapped) };
    let is_gone = mapper.translate_addr(page.start_address()).is_none();
    match is_gone && unmapped == frame && found == MARK {
        true => Ok(()),
        false => Err("another frame, or other bytes".into()),
    }
}

/// Values on the heap, and one with two owners.
fn use_the_heap() {
    let boxed = Box::new([7_u8; 300]);
    say!("{} bytes at {boxed:p}", boxed.len());
    let numbers: Vec<u32> = (0..500).collect();
    say!("{} numbers at {:p}", numbers.len(), numbers.as_ptr());
    let counted = Rc::new(numbers);
    let cloned = Rc::clone(&counted);
    say!("{} owners", Rc::strong_count(&cloned));
    drop(counted);
    say!("{} owner now", Rc::strong_count(&cloned));
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    boot::exit(Exit::Panicked)
}
