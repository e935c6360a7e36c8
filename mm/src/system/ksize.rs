//! How many bytes an object has (Linux: `ksize`).
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::Memory;
use crate::platform::Platform;

impl<P: Platform> Memory<P> {
    /// How many bytes whoever has `object` may use (Linux: `ksize`); `None` if it is nothing that
    /// [`Self::kmalloc`] or a cache handed out. Of an object of a debugged cache those are as many as were asked
    /// for: what is behind them is a red zone. Context: any but NMI.
    #[must_use]
    pub fn ksize(&self, object: NonNull<u8>) -> Option<usize> {
        let (room, is_guarded) = self.room_of(object)?;
        match is_guarded {
            true => self.asked_size(object),
            false => Some(room),
        }
    }

    /// How many bytes an object has, and whether its cache is a debugged one.
    pub(crate) fn room_of(&self, object: NonNull<u8>) -> Option<(usize, bool)> {
        let core = self.core()?;
        let at = self.physical(object)?;
        if let Some(kfence) = core.kfence_at(at) {
            return Some((kfence.size_of(&self.platform, at)?, false));
        }
        let pfn = at.frame();
        if let Some(slab) = core.frames.slab_at(pfn) {
            let shape = core.caches.get(slab.cache)?.shape()?;
            return Some((shape.size(), shape.is_guarded()));
        }
        if let Some(run) = core.frames.run_at(pfn) {
            return Some((crate::addr::to_index(run.addrs().size()), false));
        }
        let word = core.frames.frame(pfn)?.word();
        let is_pages = word.is(crate::frame::FrameState::Unique) && word.is_compound();
        is_pages.then(|| (crate::addr::to_index(word.order().bytes()), false))
    }
}
