//! Memory that was reserved at boot, and is not needed any more.

use crate::addr::PhysRange;
use crate::mem::EarlyRam;
use crate::platform::Platform;
use crate::system::{FreeEarlyError, Memory};

impl<P: Platform> Memory<P> {
    /// Gives reserved memory to the page allocator (Linux: `free_reserved_area`), such as parts of the kernel's
    /// image that are not used after boot: whole frames of one node. Who has a token gives that:
    /// [`Memory::free_early`]. Context: task.
    ///
    /// # Errors
    /// [`FreeEarlyError`].
    ///
    /// # Safety
    ///
    /// 1. The memory is the caller's, and nobody uses its bytes any more.
    /// 2. It is RAM that the platform's direct map reaches.
    pub unsafe fn free_reserved_area(&self, range: PhysRange) -> Result<(), FreeEarlyError> {
        let first = range.start().frame();
        self.populate(range.whole_frames());
        let table = self.frames().ok_or(FreeEarlyError::NotUp)?;
        let node = table.reserved_in(first);
        let node = node.ok_or(FreeEarlyError::NotReserved(first))?;
        // SAFETY: the caller's word.
        let ram = unsafe { EarlyRam::reserved(range) };
        self.free_early(node, ram).map_err(|(error, _)| error)
    }
}
