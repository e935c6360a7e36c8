//! Lists that any module adds to: a linker section of references per list.
//!
//! Shell commands, /proc files, in-kernel tests, benchmarks and kernel parameters are registered
//! where they are written, with no central table to edit. A `registry!` names the section; its
//! entries are `&'static T` placed there by the entry macros (`command!`, `ktest!` …), so that
//! they lie in the section without gaps whatever the size of `T`.
#![expect(
    unsafe_code,
    reason = "a linker section is only known by its start and stop symbols"
)]

/// Defines `fn entries() -> &'static [&'static T]` over a linker section.
///
/// The section's name must be a C identifier: the linker then provides the symbols
/// `__start_<name>` and `__stop_<name>`.
macro_rules! registry {
    ($(#[$doc:meta])* $vis:vis fn $function:ident() -> [$kind:ty]; start $start:literal, stop $stop:literal) => {
        $(#[$doc])*
        #[must_use]
        #[expect(unsafe_code, reason = "a linker section is known by two symbols only")]
        $vis fn $function() -> &'static [&'static $kind] {
            unsafe extern "C" {
                #[link_name = $start]
                safe static START: usize;
                #[link_name = $stop]
                safe static STOP: usize;
            }
            // SAFETY: (1) the linker defines the two symbols as the section's bounds; (2) the
            // entry macro puts nothing but `&'static` references of this type there.
            unsafe { $crate::registry::between(&raw const START, &raw const STOP) }
        }
    };
}
pub(crate) use registry;

/// The entries of a section between its two symbols.
///
/// # Safety
///
/// 1. `start` and `stop` are the bounds of one linker section.
/// 2. The section holds initialised `&'static T` and nothing else.
pub(crate) unsafe fn between<T>(start: *const usize, stop: *const usize) -> &'static [&'static T] {
    let bytes = stop.addr().saturating_sub(start.addr());
    let count = bytes.checked_div(size_of::<&T>()).unwrap_or(0);
    let first = core::ptr::with_exposed_provenance(start.expose_provenance());
    // SAFETY: the caller vouches for bounds (1) and contents (2); the linker aligns the section
    // as its entries.
    unsafe { core::slice::from_raw_parts(first, count) }
}

/// Puts a reference to `$value` into the linker section `$section`.
#[macro_export]
#[doc(hidden)]
macro_rules! __register {
    ($section:literal, $kind:ty, $value:expr) => {
        const _: () = {
            #[expect(unsafe_code, reason = "the section is the registry")]
            #[used]
            #[unsafe(link_section = $section)]
            static ENTRY: &$kind = &$value;
        };
    };
}

/// Orders names as people expect lists: by name. For entries, which come in link order.
pub(crate) fn sorted<T>(
    entries: &[&'static T],
    name: impl Fn(&T) -> &str,
) -> alloc::vec::Vec<&'static T> {
    let mut list = entries.to_vec();
    list.sort_by(|a, b| name(a).cmp(name(b)));
    list
}
