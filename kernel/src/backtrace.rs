//! Who called: walking the frame-pointer chain, without trusting it.
//!
//! Every word is read only if it lies in one of this CPU's stacks (guard pages excluded), so a
//! chain that was overwritten ends the walk and cannot fault. Lines read `  #N 0x<16 digits>`;
//! the host runner puts names to the addresses.

use crate::arch::local::CpuLocal;
use crate::kprintln;

/// Frames after which a chain is taken for a loop.
const MAX_FRAMES: usize = 64;

/// Prints the return addresses from `rbp` upwards, after `rip` where given.
pub(crate) fn print(cpu: &CpuLocal, rip: Option<u64>, rbp: u64) {
    kprintln!("backtrace:");
    let mut number: usize = 0;
    if let Some(rip) = rip {
        kprintln!("  #0 {rip:#018x}");
        number = 1;
    }
    let frames = Frames { cpu, rbp };
    for address in frames.take(MAX_FRAMES.saturating_sub(number)) {
        kprintln!("  #{number} {address:#018x}");
        number = number.saturating_add(1);
    }
    if number == MAX_FRAMES {
        kprintln!("  ... (more frames than {MAX_FRAMES})");
    }
}

/// Return addresses along a frame-pointer chain.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    /// Whose stacks may be read.
    pub(crate) cpu: &'a CpuLocal,
    /// The frame pointer to start with.
    pub(crate) rbp: u64,
}

impl Iterator for Frames<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (_, stack) = self
            .cpu
            .stacks()
            .find(|(_, stack)| stack.holds(self.rbp, 16))?;
        let caller = stack.read_word(self.rbp)?;
        let address = stack.read_word(self.rbp.checked_add(8)?)?;
        // The first frame of a stack has a zero return address; below the kernel's half of the
        // address space there is no code.
        if address < 0xffff_8000_0000_0000 {
            return None;
        }
        // Within a stack callers lie above; only an interrupt leads to another stack.
        let same_stack = stack.holds(caller, 16);
        self.rbp = if same_stack && caller <= self.rbp {
            0
        } else {
            caller
        };
        Some(address)
    }
}
