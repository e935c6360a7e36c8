//! Makes the kernel's ELF bootable: linker script and link lines.

fn main() {
    boot_build::Kernel::new()
        .registry("kernel_params")
        .registry("percpu_variables")
        .registry("proc_files")
        .registry("numbered_files")
        .configure();
}
