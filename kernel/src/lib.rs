//! The reference kernel of the `mm` memory core.
#![no_std]
