//! Kernel addresses on a simulated machine: areas, their frames, their end.

/// A test for each profile, and each memory model, on CPUs with page lists and without: areas know nothing of these, but what is
/// below them does.
macro_rules! on_machines {
    ($($body:ident),* $(,)?) => {$(
        mod $body {
            use mm_tests::sim::{Debug, Flat, Hardened, Listed, Plain, Sparse, Vmemmap};

            #[test]
            fn plain_flat() { super::$body::<(Plain, Flat)>(); }
            #[test]
            fn hardened_sparse() { super::$body::<(Hardened, Sparse)>(); }
            #[test]
            fn listed_plain_sparse() { super::$body::<Listed<(Plain, Sparse)>>(); }
            #[test]
            fn listed_debug_vmemmap() { super::$body::<Listed<(Debug, Vmemmap)>>(); }
        }
    )*};
}

mod areas;
mod basics;
mod borders;
mod deferred;
mod failing;
mod heap;
mod others;
mod promises;
mod protect;
mod purge;
mod recorded;
mod shown;
mod suite;
mod waiting;
mod world;
