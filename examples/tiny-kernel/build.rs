//! Makes the kernel's ELF bootable: linker script and link lines.

fn main() {
    boot_build::configure();
}
