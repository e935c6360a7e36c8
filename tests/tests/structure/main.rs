//! The shape of the sources: who may use whom, where `unsafe` may be, what must not compile, and
//! whether the tests notice faults.

mod compile_fail;
mod levels;
mod mutants;
mod sources;
