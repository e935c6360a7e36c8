//! What owning handles share: frames, and the way to their memory.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

use super::Home;
use crate::addr::PfnRange;
use crate::mem::Exclusive;

/// Frames that a handle owns. Nothing happens when it is dropped: that is the handle's affair.
pub(super) struct Held<H: Home> {
    /// Missing only while the handle is being given up.
    frames: Option<Exclusive>,
    pub(super) home: H,
}

impl<H: Home> Held<H> {
    pub(super) const fn new(frames: Exclusive, home: H) -> Self {
        Self {
            frames: Some(frames),
            home,
        }
    }

    /// Takes the frames out of the handle.
    pub(super) const fn take(&mut self) -> Option<Exclusive> {
        self.frames.take()
    }

    pub(super) fn frames(&self) -> PfnRange {
        self.frames
            .as_ref()
            .map_or(PfnRange::EMPTY, Exclusive::frames)
    }

    pub(super) fn as_ptr(&self) -> Option<NonNull<u8>> {
        self.frames.as_ref()?.as_ptr(self.home.memory().platform())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let platform = self.home.memory().platform();
        self.frames
            .as_ref()
            .and_then(|frames| frames.bytes(platform))
            .unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let platform = self.home.memory().platform();
        self.frames
            .as_mut()
            .and_then(|frames| frames.bytes_mut(platform))
            .unwrap_or_default()
    }
}
