//! Values of which each CPU has one.

use core::fmt;
use core::marker::PhantomData;
use core::mem::needs_drop;
use core::ptr::NonNull;

use super::vmalloc::start;
use crate::buddy::Gfp;
use crate::kspace::percpu::{BadPerCpuFree, PerCpuError};
use crate::kspace::raw::percpu::{Geometry, MappedArea, Piece};
use crate::platform::{CpuId, Platform};
use crate::sync::Pin;
use crate::system::{Home, Memory};

impl<P: Platform> Memory<P> {
    /// An area for a chunk, mapped.
    pub(crate) fn percpu_area(&self, geometry: Geometry, gfp: Gfp) -> Option<MappedArea> {
        let area = self.map_percpu_area(geometry, gfp)?;
        let first = start(area)?;
        // SAFETY: it was made just now, of pages of its own, and is nobody else's; the kernel's page tables lead there from
        // these addresses (the word of `adopt_kernel_space`).
        Some(unsafe { MappedArea::new(area, first, geometry.bytes()) })
    }

    /// Gives back what [`Memory::alloc_percpu`] handed out; `size` is what it was asked for (Linux:
    /// `free_percpu`). Context: any but NMI.
    ///
    /// # Errors
    /// [`BadPerCpuFree`]; nothing is changed then. Profiles other than debug look at small sizes less closely.
    ///
    /// # Safety
    ///
    /// The caller owns the object, which has that size, and nobody uses any CPU's copy any more.
    #[inline(always)]
    pub unsafe fn free_percpu(&self, first: NonNull<u8>, size: usize) -> Result<(), BadPerCpuFree> {
        let bytes = u32::try_from(size).map_err(|_| BadPerCpuFree::NoObject)?;
        // SAFETY: (1, 2) the caller's word.
        let piece = unsafe { Piece::given_up(first, bytes) };
        self.put_percpu(piece)
    }
}

/// A `T` for each CPU (Linux: a pointer marked `__percpu`). Dropping it drops all of them.
///
/// A CPU reaches its own under a pin, so that what it reads stays its own until the pin goes. Interrupts of the
/// same CPU may come in between, and other CPUs may look at any time, for sums: so a `T` is something that can be
/// shared, such as an atomic number.
///
/// # Invariants
/// `first` is an object of `home`'s memory that nobody else has, with an initialised `T` in each of its `cpus` copies.
pub struct PerCpuBox<T, H: Home> {
    first: NonNull<T>,
    home: H,
    owns: PhantomData<T>,
}

// SAFETY: it owns its values, and any CPU may free them.
unsafe impl<T: Send, H: Home + Send> Send for PerCpuBox<T, H> {}
// SAFETY: sharing it shares the values.
unsafe impl<T: Sync, H: Home + Sync> Sync for PerCpuBox<T, H> {}

impl<T, H: Home> PerCpuBox<T, H> {
    /// A value for each CPU, made by `make`. Context: as the flags say; any but NMI.
    ///
    /// # Errors
    /// [`PerCpuError`]: for types without size, too.
    pub fn new_with(
        home: H,
        gfp: Gfp,
        mut make: impl FnMut(CpuId) -> T,
    ) -> Result<Self, PerCpuError> {
        let memory = home.memory();
        let first = memory.alloc_percpu((size_of::<T>(), align_of::<T>()), gfp)?;
        let first = first.cast::<T>();
        // If `make` unwinds, the object stays taken: nothing is freed that may be used.
        for (cpu, offset) in offsets(memory) {
            // SAFETY: one of the copies.
            let place = unsafe { first.byte_add(offset) };
            // SAFETY: it is ours alone, and large and aligned enough: units are whole pages.
            unsafe { place.write(make(cpu)) };
        }
        // INVARIANT: just written.
        Ok(Self {
            first,
            home,
            owns: PhantomData,
        })
    }

    /// CPU 0's value; another CPU's is [`Memory::percpu_offset`] bytes further on. Context: any.
    #[inline]
    #[must_use]
    pub const fn as_non_null(&self) -> NonNull<T> {
        self.first
    }

    /// Where a CPU's value is.
    #[inline]
    fn place(&self, cpu: CpuId) -> Option<NonNull<T>> {
        let offset = self.home.memory().percpu_offset(cpu)?;
        // SAFETY: the invariant: it is one of the copies.
        Some(unsafe { self.first.byte_add(offset) })
    }

    /// A CPU's value, to be changed. Context: any.
    #[must_use]
    pub fn get_mut(&mut self, cpu: CpuId) -> Option<&mut T> {
        // SAFETY: the invariant; `&mut self` is unique.
        self.place(cpu).map(|mut value| unsafe { value.as_mut() })
    }

    /// Each CPU's value, to be changed. Context: any.
    pub fn for_each_mut(&mut self, mut each: impl FnMut(CpuId, &mut T)) {
        for (cpu, offset) in offsets(self.home.memory()) {
            // SAFETY: the invariant: it is one of the copies.
            let mut value = unsafe { self.first.byte_add(offset) };
            // SAFETY: the invariant; `&mut self` is unique, and the reference ends here.
            each(cpu, unsafe { value.as_mut() });
        }
    }
}

impl<T: Sync, H: Home> PerCpuBox<T, H> {
    /// This CPU's value (Linux: `this_cpu_ptr`). A pin of another machine, whose CPU may not exist here, shows
    /// CPU 0's. Context: any.
    #[inline]
    #[must_use]
    pub fn this_cpu<'a>(&'a self, pin: &'a Pin<'_, H::P>) -> &'a T {
        let value = self.place(pin.cpu()).unwrap_or(self.first);
        // SAFETY: the invariant; values are shared only.
        unsafe { value.as_ref() }
    }

    /// A CPU's value (Linux: `per_cpu_ptr`). Context: any.
    #[must_use]
    pub fn get(&self, cpu: CpuId) -> Option<&T> {
        // SAFETY: as above.
        self.place(cpu).map(|value| unsafe { value.as_ref() })
    }

    /// Each CPU's value (Linux: `for_each_possible_cpu`). Context: any.
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        offsets(self.home.memory()).map(|(cpu, offset)| {
            // SAFETY: the invariant: it is one of the copies.
            let value = unsafe { self.first.byte_add(offset) };
            // SAFETY: as in `this_cpu`.
            (cpu, unsafe { value.as_ref() })
        })
    }

    /// Shows each CPU's value. Context: any.
    pub fn for_each_cpu(&self, mut each: impl FnMut(CpuId, &T)) {
        self.iter().for_each(|(cpu, value)| each(cpu, value));
    }

    /// The sum over all CPUs of what `count` makes of each value, which wraps. Others may change theirs meanwhile.
    /// Context: any.
    #[must_use]
    pub fn sum(&self, mut count: impl FnMut(&T) -> u64) -> u64 {
        let counts = self.iter().map(|(_, value)| count(value));
        counts.fold(0, u64::wrapping_add)
    }
}

/// All CPUs that there are copies for, and where those are.
fn offsets<P: Platform>(memory: &Memory<P>) -> impl Iterator<Item = (CpuId, usize)> {
    (0..)
        .map(CpuId)
        .map_while(|cpu| Some((cpu, memory.percpu_offset(cpu)?)))
}

impl<T, H: Home> Drop for PerCpuBox<T, H> {
    fn drop(&mut self) {
        if needs_drop::<T>() {
            for (_, offset) in offsets(self.home.memory()) {
                // SAFETY: the invariant: it is one of the copies.
                let value = unsafe { self.first.byte_add(offset) };
                // SAFETY: the invariant; the value is not used again.
                unsafe { value.drop_in_place() };
            }
        }
        let (memory, first) = (self.home.memory(), self.first.cast());
        // SAFETY: the invariant; the handle is gone after this.
        if unsafe { memory.free_percpu(first, size_of::<T>()) }.is_err() {
            memory.lose_object(first);
        }
    }
}

impl<T: fmt::Debug + Sync, H: Home> fmt::Debug for PerCpuBox<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.iter().map(|(cpu, value)| (cpu.0, value));
        f.debug_map().entries(values).finish()
    }
}
