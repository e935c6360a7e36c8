//! Free pages out of reach (`debug_pagealloc=on`): who touches one is told what it is.
#![forbid(unsafe_code)]

use super::Memory;
use crate::addr::VirtAddr;
use crate::config::PAGE_SIZE;
use crate::frame::FrameState;
use crate::platform::Platform;
use crate::report::{AccessKind, Corruption, FreePageAccess};

impl<P: Platform> Memory<P> {
    /// Whether free pages are put out of reach (`debug_pagealloc=on`). Context: any.
    #[must_use]
    pub fn hides_free_pages(&self) -> bool {
        self.core()
            .is_some_and(|core| core.options.debug_pagealloc.is_on())
    }

    /// Takes notice of a page fault where free pages are out of reach: if the address lies in a free page, that is told by
    /// [`Platform::corruption`], and the answer is yes. The page stays out of reach. Context: any.
    #[must_use]
    pub fn free_page_fault(&self, address: VirtAddr, kind: AccessKind) -> bool {
        let Some(core) = self
            .core()
            .filter(|core| core.options.debug_pagealloc.is_on())
        else {
            return false;
        };
        let Some(at) = self.platform.virt_to_phys(address) else {
            return false;
        };
        let pfn = at.frame();
        let head = core.frames.head(pfn);
        let state = head.and_then(|head| head.frame().word().state());
        if !matches!(state, Some(FrameState::Free | FrameState::Cached)) {
            return false;
        }
        let offset = at.as_u64() & PAGE_SIZE.wrapping_sub(1);
        self.platform
            .corruption(&Corruption::FreePage(FreePageAccess {
                pfn,
                offset: u16::try_from(offset).unwrap_or_default(),
                kind,
                allocated: self.origin(pfn),
            }));
        true
    }
}
