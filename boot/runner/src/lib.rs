//! Builds the kernel and boots it in QEMU: what `cargo run` does, as a library that the QEMU
//! tests share.
//!
//! The way of a boot: [`options`] parses the arguments into a [`machine::Machine`], a
//! [`kernel::KernelBuild`] and a [`cmdline::CommandLine`]; [`kernel`] builds the ELF with a nested
//! cargo; [`tools`] finds QEMU or has it installed; [`iso`] makes a CD image where real firmware is
//! asked for; [`qemu_args`] turns the machine into QEMU's arguments; [`vm`] runs it, types
//! [`input`] into it, and passes its serial output on through [`symbols`]; [`outcome`] says how it
//! ended; [`show`] looks at its memory meanwhile.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cmdline;
pub mod host;
pub mod image;
pub mod input;
pub mod iso;
pub mod kernel;
pub mod machine;
pub mod numa;
pub mod options;
pub mod outcome;
pub mod qemu_args;
mod scratch;
pub mod show;
pub mod size;
pub mod symbols;
pub mod tools;
pub mod usage;
mod view;
pub mod vm;
