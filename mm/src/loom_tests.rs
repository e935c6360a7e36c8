//! Models of the protocols between CPUs, run in every order that the memory model allows (loom).
//!
//! Built with `--cfg loom` only; `tests/tests/structure/loom.rs` does that. They use the protocols
//! themselves, over loom's atomics and cells. Compiler fences are nothing to loom: what nests on one
//! CPU is the affair of `nesting_tests`, and of the single-step test in the kernel.

mod deferred_tests;
mod frame_tests;
mod grace_tests;
/// The list of areas that wait for a purge. The rest of `kspace` is not built here.
#[path = "kspace/raw/link.rs"]
mod link;
mod link_tests;
mod nesting_tests;
mod object_tests;
mod page_list_tests;
mod shootdown_tests;
mod table_tests;
mod under_way_tests;
mod wake_tests;

/// Explores a model: all orders with at most so many switches that no thread asked for.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
