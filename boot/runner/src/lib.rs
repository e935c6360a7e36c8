//! Builds the kernel and boots it in QEMU.
