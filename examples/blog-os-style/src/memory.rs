//! Paging: page tables by `Mapper` and `Translate`, frames by `FrameAllocator`.

use boot::say;
use boot_memory::OneCpu;
use bootloader_api::BootInfo;
use mm::adapters::{X86Frames, X86Mapper};
use mm::buddy::Gfp;
use mm::system::{KernelSpaceError, Memory};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, Page, PageTableFlags, PhysFrame, Size4KiB,
};

/// All memory of this machine.
pub(crate) static MEMORY: Memory<OneCpu> = OneCpu::memory(|damage| say!("damage: {damage}"));

/// Brings memory up, and gives the page tables that are in use to the caller.
///
/// # Safety
///
/// `boot_info` is what the boot loader handed over, and this is called once.
pub(crate) unsafe fn init(
    boot_info: &BootInfo,
) -> Result<X86Mapper<'static, OneCpu>, boot_memory::Error> {
    // SAFETY: the caller's word; page tables are changed by the library alone, and one CPU runs.
    unsafe { boot_memory::bring_up(&MEMORY, boot_info, "", &mut |line| say!("{line}")) }?;
    let space = MEMORY.kernel_space().ok_or(KernelSpaceError::NotUp)?;
    // SAFETY: who has the mapper unmaps only what was mapped by it.
    Ok(unsafe { X86Mapper::new(&MEMORY, space.tables) })
}

/// Usable frames, in place of a walk over the boot loader's map.
pub(crate) const fn frame_allocator() -> X86Frames<'static, OneCpu> {
    X86Frames::new(&MEMORY, Gfp::KERNEL)
}

/// Maps a page to a frame, as code does that knows nothing of `mm`.
///
/// # Safety
///
/// Nobody else writes to the frame.
pub(crate) unsafe fn map_example(
    page: Page<Size4KiB>,
    frame: PhysFrame<Size4KiB>,
    mapper: &mut impl Mapper<Size4KiB>,
    frame_allocator: &mut impl FrameAllocator<Size4KiB>,
) -> Result<(), MapToError<Size4KiB>> {
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    // SAFETY: the caller's word.
    let mapped = unsafe { mapper.map_to(page, frame, flags, frame_allocator) }?;
    mapped.flush();
    Ok(())
}
