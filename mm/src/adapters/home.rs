//! How handles find their memory.

use crate::platform::Platform;
use crate::system::Memory;

/// How an owning handle finds its memory: a reference on the host, where there are many
/// machines, or a zero-sized type that names a kernel's `static`, where the handle then costs
/// nothing extra.
///
/// # Safety
///
/// [`memory`](Self::memory) answers the same memory every time, for every copy of the value: a
/// handle reaches bytes through it and gives its frames back to it.
pub unsafe trait Home: Copy {
    /// The machine's platform.
    type P: Platform;
    /// The memory that the handle's frames belong to.
    fn memory(&self) -> &Memory<Self::P>;
}

// SAFETY: a shared reference names one memory for as long as it lives.
unsafe impl<P: Platform> Home for &Memory<P> {
    type P = P;

    #[inline]
    fn memory(&self) -> &Memory<P> {
        self
    }
}
