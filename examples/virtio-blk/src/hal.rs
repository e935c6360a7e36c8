//! What a virtio driver asks of memory: pages that the device reaches, its registers, and where buffers are.

use alloc::vec::Vec;
use core::ptr::{NonNull, copy_nonoverlapping};

use boot_memory::OneCpu;
use mm::addr::{PhysAddr, VirtAddr};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE as PAGE;
use mm::pagetable::Cache;
use mm::platform::Platform;
use mm::system::{DmaBuffer, DmaRequest, Memory};
use spin::Mutex;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};

use crate::MEMORY;

type Buffer = DmaBuffer<&'static Memory<OneCpu>>;

/// What the driver has of memory, by the address that the device knows: its own pages, and copies of buffers that lie where
/// the device does not find them in one piece.
static BUFFERS: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// Where registers are mapped.
static REGISTERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// This machine, for `virtio-drivers`.
pub(crate) struct MmHal;

/// A buffer that starts at a page, kept until [`take`].
fn keep(bytes: usize) -> Option<(PhysAddr, NonNull<u8>)> {
    let request = DmaRequest::new(u64::try_from(bytes).ok()?).align(PAGE);
    let buffer = MEMORY.dma_alloc(request, Gfp::KERNEL).ok()?;
    let found = (buffer.addr(), buffer.as_ptr()?);
    BUFFERS.lock().push(buffer);
    Some(found)
}

/// The buffer at an address that [`keep`] gave.
fn take(at: u64) -> Option<Buffer> {
    let mut buffers = BUFFERS.lock();
    let index = buffers
        .iter()
        .position(|buffer| buffer.addr().as_u64() == at)?;
    Some(buffers.swap_remove(index))
}

/// Unmaps the registers of devices that nobody drives any more.
///
/// # Safety
///
/// No driver is left.
pub(crate) unsafe fn unmap_registers() {
    let all = core::mem::take(&mut *REGISTERS.lock());
    for at in all {
        if let Some(at) = NonNull::new(core::ptr::with_exposed_provenance_mut(at)) {
            // SAFETY: mapped by `mmio_phys_to_virt`; the caller's word.
            let _ = unsafe { MEMORY.iounmap(at) };
        }
    }
    // The list's own room: what is still in it would be missed.
    BUFFERS.lock().shrink_to_fit();
}

/// Where the device finds a buffer, if that is in one piece: what the heap and the page allocator hand out is; stacks, statics
/// and areas of `vmalloc` are not.
fn in_one_piece(buffer: NonNull<[u8]>) -> Option<PhysAddr> {
    let at = |pointer: *const u8| MEMORY.platform().virt_to_phys(VirtAddr::from_ptr(pointer));
    let first = at(buffer.as_ptr().cast_const().cast())?;
    let last = buffer.len().checked_sub(1)?;
    let end = at(buffer.as_ptr().cast_const().cast::<u8>().wrapping_add(last))?;
    let distance = end.offset_from(first)?;
    (distance == u64::try_from(last).ok()?).then_some(first)
}

// SAFETY: what `dma_alloc` hands out is a buffer of its own until `dma_dealloc`, zeroed, and starts at a page; registers are
// mapped in an area of their own.
unsafe impl Hal for MmHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (u64, NonNull<u8>) {
        let bytes = pages.checked_mul(PAGE_SIZE);
        match bytes.and_then(keep) {
            Some((at, first)) => (at.as_u64(), first),
            // The driver takes 0 for an error.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(at: u64, _: NonNull<u8>, _: usize) -> i32 {
        match take(at) {
            Some(buffer) => {
                drop(buffer);
                0
            }
            None => -1,
        }
    }

    unsafe fn mmio_phys_to_virt(at: u64, size: usize) -> NonNull<u8> {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        // SAFETY: the driver's word: these are registers of its device.
        match unsafe { MEMORY.ioremap(PhysAddr::new(at), size, Cache::Uncached) } {
            Ok(registers) => {
                REGISTERS.lock().push(registers.expose_provenance().get());
                registers
            }
            Err(error) => crate::stop(format_args!("registers at {at:#x}: {error}")),
        }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> u64 {
        if let Some(at) = in_one_piece(buffer) {
            return at.as_u64();
        }
        let Some((at, copy)) = keep(buffer.len()) else {
            crate::stop(format_args!("no memory for a copy"));
        };
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: both have that many bytes, and the copy was made just now.
            unsafe { copy_nonoverlapping(buffer.as_ptr().cast(), copy.as_ptr(), buffer.len()) };
        }
        at.as_u64()
    }

    unsafe fn unshare(at: u64, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // What is in one piece was not copied.
        let Some(copy) = take(at) else { return };
        if direction != BufferDirection::DriverToDevice {
            let bytes: &[u8] = &copy;
            // SAFETY: both have that many bytes, and the device is done with the copy.
            unsafe { copy_nonoverlapping(bytes.as_ptr(), buffer.as_ptr().cast(), buffer.len()) };
        }
    }
}
