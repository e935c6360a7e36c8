//! The shape of the sources: who may use whom, where `unsafe` may be, what must not compile, what
//! the documents say, and whether the tests notice faults.

mod api;
mod book;
mod compile_fail;
mod documents;
mod features;
mod inventory;
mod levels;
mod loom;
mod mutants;
mod registered;
mod release;
mod samples;
mod sources;
