//! Variables of which each CPU has a copy of its own (Linux: `DEFINE_PER_CPU`).
//!
//! [`percpu!`](crate::percpu) puts a variable into the section `.percpu`, which is in no segment of the image: its
//! addresses are offsets. Behind the [`CpuLocal`] of each CPU there is room for that section, so a variable of this
//! CPU is at one constant distance from the GS base, and to count in it is one instruction:
//! `inc qword ptr gs:[OFFSET]`. Nothing comes between its reading and its writing, so it needs neither a pin nor the
//! bus; the compiler is not in the way either.
//!
//! The boot CPU's room is in the image (`.percpu_boot`); other CPUs have theirs in the pages of their `CpuLocal`.
//! First values come from a table of constructors, one for each variable, run for each CPU before it is that CPU.
//!
//! What is made later ([`mm::system::PerCpuBox`]) is at another distance, which each CPU keeps in one word.

use super::local::CpuLocal;
use super::pin::Pin;
use super::smp;
use crate::memory::Kernel;
use crate::num::to_u64;
use crate::registry::registry;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{from_ref, with_exposed_provenance, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::system::PerCpuBox;

/// How far behind the GS base the section is.
pub(crate) const BASE: usize = size_of::<CpuLocal>();

/// A variable, as the table has it.
#[derive(Debug)]
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// Bytes of a copy.
    pub size: usize,
    /// Where it is in the section.
    pub offset: fn() -> usize,
    /// Writes its first value to a copy.
    ///
    /// # Safety
    ///
    /// There is room for one at that address, which nobody uses.
    pub init: unsafe fn(*mut ()),
}

registry! {
    /// All variables, in no order.
    pub fn variables() -> [Entry]; start "__start_percpu_variables", stop "__stop_percpu_variables"
}

/// A variable of which each CPU has one. Made by [`percpu!`](crate::percpu).
///
/// # Safety
///
/// `offset` is where in the section `.percpu` a `Value` lies that [`variables`] has a constructor for.
pub unsafe trait Variable {
    /// What each CPU has.
    type Value: Sync + 'static;

    /// Where it is in the section.
    fn offset() -> usize;

    /// This CPU's (Linux: `this_cpu_ptr`).
    ///
    /// # Context
    /// Any.
    fn this_cpu(pin: &Pin) -> &Self::Value {
        Self::of(pin.cpu())
    }

    /// A CPU's (Linux: `per_cpu_ptr`).
    ///
    /// # Context
    /// Any.
    fn of(cpu: &CpuLocal) -> &Self::Value {
        let at = address(cpu, Self::offset());
        // SAFETY: every `CpuLocal` that anybody can have is one that `init` was called for, with the room behind it;
        // the implementor says what is there.
        unsafe { &*with_exposed_provenance(at) }
    }

    /// That of each CPU that takes part (Linux: `for_each_online_cpu`).
    ///
    /// # Context
    /// Any.
    fn for_each_cpu(mut each: impl FnMut(u32, &Self::Value)) {
        smp::cpus().for_each(|cpu| each(cpu.id(), Self::of(cpu)));
    }

    /// The sum over all CPUs of what `count` makes of each.
    ///
    /// # Context
    /// Any; others count on meanwhile.
    fn sum(count: impl Fn(&Self::Value) -> u64) -> u64 {
        let counts = smp::cpus().map(|cpu| count(Self::of(cpu)));
        counts.fold(0, u64::wrapping_add)
    }
}

fn address(cpu: &CpuLocal, offset: usize) -> usize {
    from_ref(cpu).addr().wrapping_add(BASE).wrapping_add(offset)
}

/// Bytes that each CPU needs for its variables.
pub(crate) fn bytes() -> usize {
    unsafe extern "C" {
        #[link_name = "__percpu_size"]
        safe static SIZE: u8;
    }
    // The symbol's address is the number.
    (&raw const SIZE).addr()
}

/// Writes the first values of a CPU's variables.
///
/// # Safety
///
/// `cpu` is followed by [`bytes`] that are its own, and nobody uses its variables yet.
pub(super) unsafe fn init(cpu: &'static CpuLocal) {
    let _ = from_ref(cpu).expose_provenance();
    for variable in variables() {
        let place = with_exposed_provenance_mut(address(cpu, (variable.offset)()));
        // SAFETY: the caller's word: there is room for the whole section.
        unsafe { (variable.init)(place) };
    }
}

/// Adds to this CPU's number of a counter that was made at run time. The addition itself is one instruction, which
/// no interrupt of this CPU comes between; the one before it reads where this CPU's number is.
///
/// # Context
/// Any; pinned.
#[inline]
pub fn add(counter: &PerCpuBox<AtomicU64, Kernel>, n: u64, pin: &Pin) {
    // The thread stays here between the two instructions.
    let _ = pin;
    // SAFETY: the first reads a word of this CPU's own area, the distance of its copies from CPU 0's (`set_offset`),
    // or 0 before there are other CPUs; the counter has a number there for as long as it lives.
    unsafe {
        asm!("mov {offset}, gs:[{word}]", "add qword ptr [{first} + {offset}], {n}",
            offset = out(reg) _, first = in(reg) counter.as_non_null().as_ptr(), n = in(reg) n,
            word = const offset_of!(CpuLocal, percpu_offset), options(nostack));
    }
}

/// Keeps how far a CPU's copies are from CPU 0's.
///
/// # Context
/// On that CPU before there are threads, or before it runs.
pub(crate) fn set_offset(cpu: &CpuLocal, offset: Option<usize>) {
    cpu.percpu_offset
        .store(to_u64(offset.unwrap_or(0)), Ordering::Relaxed);
}

/// Room in the section for a `T`, which nothing is ever read from.
#[derive(Debug)]
#[repr(transparent)]
pub struct Place<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: nobody gets at it; only its address is used, as a number.
unsafe impl<T> Sync for Place<T> {}

impl<T> Place<T> {
    /// For a static in the section.
    #[must_use]
    pub const fn room() -> Self {
        const { assert!(align_of::<T>() <= align_of::<CpuLocal>()) };
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }
}

/// Makes variables of which each CPU has a copy.
///
/// ```ignore
/// percpu! {
///     /// Interrupts and exceptions taken, by vector.
///     pub counters Interrupts[256];
/// }
/// percpu! {
///     /// How often the clock ticked.
///     counter Ticks;
/// }
/// percpu! {
///     /// The last one seen.
///     static Latest: AtomicU32 = AtomicU32::new(u32::MAX);
/// }
/// ```
///
/// `Ticks::inc()` and `Interrupts::inc(vector)` count on this CPU in one instruction; all are
/// [`Variable`](crate::arch::percpu::Variable)s, which a CPU reaches under a pin, and anybody for sums.
#[macro_export]
macro_rules! percpu {
    ($(#[$doc:meta])* $vis:vis static $name:ident: $kind:ty = $first:expr;) => {
        $crate::percpu! { @variable [$(#[$doc])*] [$vis] $name [$kind] [$first] }
    };
    ($(#[$doc:meta])* $vis:vis counter $name:ident;) => {
        $crate::percpu! { @variable [$(#[$doc])*] [$vis] $name
            [::core::sync::atomic::AtomicU64] [::core::sync::atomic::AtomicU64::new(0)]
            /// Adds one to this CPU's number, in one instruction.
            ///
            /// # Context
            /// Any.
            #[inline]
            $vis fn inc() {
                // SAFETY: counts in this CPU's own copy, which is that far from the GS base.
                #[expect(unsafe_code, reason = "the variable is reached through the GS base only")]
                unsafe {
                    ::core::arch::asm!("inc qword ptr gs:[{place} + {base}]", place = sym PLACE,
                        base = const $crate::arch::percpu::BASE, options(nostack));
                }
            }

            /// Adds to this CPU's number, in one instruction.
            ///
            /// # Context
            /// Any.
            #[inline]
            $vis fn add(n: u64) {
                // SAFETY: as above.
                #[expect(unsafe_code, reason = "the variable is reached through the GS base only")]
                unsafe {
                    ::core::arch::asm!("add qword ptr gs:[{place} + {base}], {n}", place = sym PLACE,
                        base = const $crate::arch::percpu::BASE, n = in(reg) n, options(nostack));
                }
            }
        }
    };
    ($(#[$doc:meta])* $vis:vis counters $name:ident[$count:literal];) => {
        $crate::percpu! { @variable [$(#[$doc])*] [$vis] $name
            [[::core::sync::atomic::AtomicU64; $count]]
            [[const { ::core::sync::atomic::AtomicU64::new(0) }; $count]]
            /// Adds one to one of this CPU's numbers, in one instruction.
            ///
            /// # Context
            /// Any.
            #[inline]
            $vis fn inc(index: u8) {
                const { assert!($count == 256, "one for each value of the index") };
                // SAFETY: counts in this CPU's own copy, which is that far from the GS base; there is a number
                // for each index.
                #[expect(unsafe_code, reason = "the variable is reached through the GS base only")]
                unsafe {
                    ::core::arch::asm!("inc qword ptr gs:[{place} + {base} + 8*{index}]", place = sym PLACE,
                        base = const $crate::arch::percpu::BASE, index = in(reg) u64::from(index),
                        options(nostack));
                }
            }
        }
    };
    (@variable [$(#[$doc:meta])*] [$vis:vis] $name:ident [$kind:ty] [$first:expr] $($counting:item)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name;

        const _: () = {
            #[expect(unsafe_code, reason = "the section holds the variables")]
            #[unsafe(link_section = ".percpu")]
            static PLACE: $crate::arch::percpu::Place<$kind> = $crate::arch::percpu::Place::room();

            #[expect(unsafe_code, reason = "says where a value is")]
            // SAFETY: that is where the place is, and the entry below has a constructor for it.
            unsafe impl $crate::arch::percpu::Variable for $name {
                type Value = $kind;

                fn offset() -> usize {
                    (&raw const PLACE).addr()
                }
            }

            /// # Safety
            ///
            /// There is room for a value, which nobody uses.
            #[expect(unsafe_code, reason = "writes the first value")]
            unsafe fn init(place: *mut ()) {
                let place: *mut $kind = place.cast();
                let first: $kind = $first;
                // SAFETY: the caller's word.
                unsafe { place.write(first) };
            }

            $crate::__register!("percpu_variables", $crate::arch::percpu::Entry, $crate::arch::percpu::Entry {
                name: concat!(module_path!(), "::", stringify!($name)),
                size: size_of::<$kind>(),
                offset: <$name as $crate::arch::percpu::Variable>::offset,
                init,
            });

            impl $name {
                $($counting)*
            }
        };
    };
}
