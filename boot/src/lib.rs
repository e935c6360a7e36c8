//! PVH and Multiboot2 entry for `bootloader_api` kernels.
#![no_std]
