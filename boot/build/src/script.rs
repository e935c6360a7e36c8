//! The linker script: image layout, its symbols, and the registries.
//!
//! Sections are page-aligned so that text, read-only data and writable data can be mapped with
//! different rights. Virtual addresses are physical ones plus [`VIRTUAL_OFFSET`].

use crate::ConfigError;

/// What is added to a physical address of the image to get its virtual one: −2 GiB.
const VIRTUAL_OFFSET: u64 = 0xffff_ffff_8000_0000;
/// `boot` maps the first GiB at −2 GiB when it enters 64-bit mode.
const PHYSICAL_LIMIT: u64 = 0x4000_0000;
const MIB: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;

/// Renders the script.
pub(crate) fn render(physical_base: u64, registries: &[String]) -> Result<String, ConfigError> {
    let in_reach = (MIB..PHYSICAL_LIMIT).contains(&physical_base);
    if !in_reach || !physical_base.is_multiple_of(PAGE) {
        return Err(ConfigError::PhysicalBase(physical_base));
    }

    let mut kept = String::new();
    for (index, name) in registries.iter().enumerate() {
        let repeated = registries.iter().take(index).any(|other| other == name);
        if repeated || !is_identifier(name) {
            return Err(ConfigError::Registry(name.clone()));
        }
        kept.push_str(&registry(name));
    }

    Ok(TEMPLATE
        .replace("@OFFSET@", &format!("{VIRTUAL_OFFSET:#x}"))
        .replace("@BASE@", &format!("{physical_base:#x}"))
        .replace("@REGISTRIES@", &kept))
}

fn is_identifier(name: &str) -> bool {
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    starts_well
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn registry(name: &str) -> String {
    format!(
        "
    {name} : AT(ADDR({name}) - OFFSET) ALIGN(16) {{
        __start_{name} = .;
        KEEP(*({name}))
        KEEP(*(SORT_BY_NAME({name}.*)))
        __stop_{name} = .;
    }} :rodata"
    )
}

const TEMPLATE: &str = "\
/* Written by boot_build: see docs/boot.md. */
OUTPUT_FORMAT(elf64-x86-64)
ENTRY(_start)

OFFSET = @OFFSET@;

PHDRS
{
    text PT_LOAD FLAGS(5);
    rodata PT_LOAD FLAGS(4);
    data PT_LOAD FLAGS(6);
    note PT_NOTE FLAGS(4);
}

SECTIONS
{
    /* In no segment: addresses are offsets into what each CPU has of its own. */
    .percpu 0 (INFO) : {
        KEEP(*(.percpu))
        . = ALIGN(64);
    }
    __percpu_size = SIZEOF(.percpu);

    . = OFFSET + @BASE@;
    __kernel_start = .;
    __text_start = .;

    .boot.header : AT(ADDR(.boot.header) - OFFSET) {
        KEEP(*(.boot.multiboot2))
    } :text

    .note.boot : AT(ADDR(.note.boot) - OFFSET) ALIGN(4) {
        KEEP(*(.note.boot.pvh))
    } :text :note

    .text : AT(ADDR(.text) - OFFSET) ALIGN(16) {
        KEEP(*(.text.boot))
        *(.text .text.*)
    } :text
    . = ALIGN(4096);
    __text_end = .;

    __rodata_start = .;
    .rodata : AT(ADDR(.rodata) - OFFSET) {
        *(.rodata .rodata.*)
    } :rodata
    .bootloader-config : AT(ADDR(.bootloader-config) - OFFSET) {
        __bootloader_config_start = .;
        KEEP(*(.bootloader-config))
        __bootloader_config_end = .;
    } :rodata
@REGISTRIES@
    . = ALIGN(4096);
    __rodata_end = .;

    __data_start = .;
    .data : AT(ADDR(.data) - OFFSET) {
        *(.data .data.*)
        *(.data.rel.ro .data.rel.ro.*)
    } :data
    .percpu_boot : AT(ADDR(.percpu_boot) - OFFSET) ALIGN(64) {
        KEEP(*(.percpu_boot))
        . += SIZEOF(.percpu);
    } :data
    .got : AT(ADDR(.got) - OFFSET) {
        *(.got .got.plt)
    } :data
    . = ALIGN(4096);
    __data_end = .;

    __bss_start = .;
    .bss : AT(ADDR(.bss) - OFFSET) {
        *(.bss.boot)
        *(.bss .bss.*)
        *(COMMON)
        . = ALIGN(4096);
    } :data
    __bss_end = .;
    __kernel_end = .;

    /DISCARD/ : {
        *(.eh_frame .eh_frame_hdr .gcc_except_table .gcc_except_table.*)
        *(.comment .note.GNU-stack .note.gnu.*)
    }
}

ASSERT(__kernel_end - OFFSET < 0x40000000, \"boot: the kernel image ends above 1 GiB\")
";

#[cfg(test)]
mod tests {
    use crate::{ConfigError, Kernel};

    #[test]
    fn every_registry_is_kept_and_bounded() {
        let script = Kernel::new().registry("probes").linker_script().unwrap();
        for name in ["benches", "ktests", "shell_commands", "probes"] {
            assert!(script.contains(&format!("__start_{name} = .;")));
            assert!(script.contains(&format!("KEEP(*({name}))")));
            assert!(script.contains(&format!("__stop_{name} = .;")));
        }
        assert!(!script.contains('@'));
    }

    /// Its addresses are offsets, and there is room for it behind what the boot CPU has.
    #[test]
    fn what_each_cpu_has_is_in_no_segment() {
        let script = Kernel::new().linker_script().unwrap();
        let (percpu, rest) = script
            .split_once("__percpu_size = SIZEOF(.percpu);")
            .unwrap();
        assert!(percpu.contains(".percpu 0 (INFO) : {") && !percpu.contains(". = OFFSET"));
        let (_, room) = rest.split_once("KEEP(*(.percpu_boot))").unwrap();
        assert!(room.trim_start().starts_with(". += SIZEOF(.percpu);"));
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        for name in ["", "1st", "has space", "a-b", "ktests", ".text"] {
            let refused = Kernel::new().registry(name).linker_script();
            assert_eq!(refused, Err(ConfigError::Registry(name.into())));
        }
    }

    #[test]
    fn load_addresses_out_of_reach_are_refused() {
        for base in [0, 0x9_f000, 0x10_0800, 0x4000_0000, u64::MAX] {
            let refused = Kernel::new().physical_base(base).linker_script();
            assert_eq!(refused, Err(ConfigError::PhysicalBase(base)));
        }
        let script = Kernel::new().physical_base(0x100_0000).linker_script();
        assert!(script.unwrap().contains(". = OFFSET + 0x1000000;"));
    }
}
