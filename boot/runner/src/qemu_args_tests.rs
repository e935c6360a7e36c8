//! QEMU's command lines for the machines that the options can describe.

use expect_test::{Expect, expect};

use super::{BootMedium, ResetLog, UefiFlash, qemu_args};
use crate::machine::Machine;
use crate::options::Invocation;

fn machine(line: &str) -> Machine {
    match Invocation::parse(line.split_whitespace().map(std::ffi::OsString::from)) {
        Ok(Invocation::Boot(options)) => options.machine,
        other => panic!("{line}: {other:?}"),
    }
}

fn elf(cmdline: &str) -> BootMedium {
    BootMedium::Elf {
        kernel: "K".into(),
        cmdline: cmdline.to_owned(),
    }
}

/// The command line, an option with its value on each line.
fn check(line: &str, medium: &BootMedium, expected: &Expect) {
    let mut text = String::new();
    for arg in qemu_args(&machine(line), medium, &ResetLog("L".into())) {
        let arg = arg.to_str().unwrap();
        text.push_str(if arg.starts_with('-') { "\n" } else { " " });
        text.push_str(arg);
    }
    expected.assert_eq(text.trim_start());
}

#[test]
fn the_default_machine() {
    check(
        "",
        &elf(""),
        &expect![[r#"
        -no-user-config
        -nodefaults
        -machine q35,memory-backend=ram
        -object memory-backend-ram,id=ram,size=512M,reserve=off
        -smp 1
        -accel tcg
        -chardev stdio,id=console,mux=on,signal=off
        -serial chardev:console
        -mon chardev=console
        -display none
        -kernel K
        -no-reboot
        -d cpu_reset
        -D L
        -device isa-debug-exit,iobase=0xf4,iosize=4"#]],
    );
}

#[test]
fn a_counting_machine_with_commands() {
    check(
        "--icount --memory 6G --cpus 2",
        &elf("exec=\"help\""),
        &expect![[r#"
            -no-user-config
            -nodefaults
            -machine q35,memory-backend=ram
            -object memory-backend-ram,id=ram,size=6G,reserve=off
            -smp 2
            -accel tcg
            -icount shift=0,sleep=off
            -cpu max
            -chardev stdio,id=console,mux=on,signal=off
            -serial chardev:console
            -mon chardev=console
            -display none
            -kernel K
            -append exec="help"
            -no-reboot
            -d cpu_reset
            -D L
            -device isa-debug-exit,iobase=0xf4,iosize=4"#]],
    );
}

#[test]
fn a_microvm_of_a_named_cpu() {
    check(
        "--machine microvm --cpu Nehalem --memory 64M",
        &elf(""),
        &expect![[r#"
            -no-user-config
            -nodefaults
            -machine microvm,memory-backend=ram
            -object memory-backend-ram,id=ram,size=64M,reserve=off
            -smp 1
            -accel tcg
            -cpu Nehalem
            -chardev stdio,id=console,mux=on,signal=off
            -serial chardev:console
            -mon chardev=console
            -display none
            -kernel K
            -no-reboot
            -d cpu_reset
            -D L
            -device isa-debug-exit,iobase=0xf4,iosize=4"#]],
    );
}

#[test]
fn a_machine_under_bios_with_a_screen_and_a_debugger() {
    let cd = BootMedium::Cd {
        iso: "I".into(),
        uefi: None,
    };
    check(
        "--machine pc --firmware bios --display --gdb --qemu-arg -snapshot",
        &cd,
        &expect![[r#"
            -no-user-config
            -nodefaults
            -machine pc,memory-backend=ram
            -object memory-backend-ram,id=ram,size=512M,reserve=off
            -smp 1
            -accel tcg
            -chardev stdio,id=console,mux=on,signal=off
            -serial chardev:console
            -mon chardev=console
            -vga std
            -boot d
            -cdrom I
            -no-reboot
            -d cpu_reset
            -D L
            -device isa-debug-exit,iobase=0xf4,iosize=4
            -s
            -S
            -snapshot"#]],
    );
}

#[test]
fn a_machine_under_uefi() {
    let flash = UefiFlash {
        code: "a,b/code".into(),
        variables: "vars".into(),
    };
    let cd = BootMedium::Cd {
        iso: "I".into(),
        uefi: Some(flash),
    };
    check(
        "--firmware uefi",
        &cd,
        &expect![[r#"
        -no-user-config
        -nodefaults
        -machine q35,memory-backend=ram
        -object memory-backend-ram,id=ram,size=512M,reserve=off
        -smp 1
        -accel tcg
        -chardev stdio,id=console,mux=on,signal=off
        -serial chardev:console
        -mon chardev=console
        -vga std
        -display none
        -drive if=pflash,format=raw,unit=0,readonly=on,file=a,,b/code
        -drive if=pflash,format=raw,unit=1,file=vars
        -boot d
        -cdrom I
        -no-reboot
        -d cpu_reset
        -D L
        -device isa-debug-exit,iobase=0xf4,iosize=4"#]],
    );
}

#[test]
fn more_memory_than_forty_bits_gets_a_cpu_that_can_address_it() {
    let cpu = |line: &str| {
        let args = qemu_args(&machine(line), &elf(""), &ResetLog("L".into()));
        let at = args.iter().position(|arg| arg == "-cpu");
        at.map(|at| args[at.saturating_add(1)].to_str().unwrap().to_owned())
    };
    for (line, model) in [
        ("--memory 512G", None),
        ("--memory 2T", Some("max,phys-bits=42")),
        ("--memory 2T --icount", Some("max,phys-bits=42")),
        ("--memory 2T --cpu Nehalem", Some("Nehalem,phys-bits=42")),
        (
            "--memory 2T --cpu max,phys-bits=48",
            Some("max,phys-bits=48"),
        ),
        ("--icount", Some("max")),
        ("--icount --cpu Nehalem", Some("Nehalem")),
    ] {
        assert_eq!(cpu(line).as_deref(), model, "{line}");
    }
}
