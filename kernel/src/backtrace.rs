//! Who called: walking the frame-pointer chain, without trusting it.
//!
//! Every word is read only if it lies in one of this CPU's stacks or in the running thread's (guard
//! pages excluded), so a
//! chain that was overwritten ends the walk and cannot fault. Lines read `  #N 0x<16 digits>`;
//! the host runner puts names to the addresses.

use crate::arch::image;
use crate::arch::local::CpuLocal;
use crate::arch::stack::StackExtent;
use crate::arch::trap::TrapFrame;
use crate::{kprintln, sched};

/// Frames printed from the top of a long chain …
const TOP_FRAMES: usize = 28;
/// … and from its end, where a runaway recursion began.
const LAST_FRAMES: usize = 8;
/// Frames after which a chain is taken for a loop: a stack cannot hold more.
const MAX_FRAMES: usize = 32 * 1024;

/// Prints the instruction that `frame` was interrupted at, if one is given, and the return
/// addresses from `rbp` upwards.
pub(crate) fn print(cpu: &CpuLocal, frame: Option<&TrapFrame>, rbp: u64) {
    let chain = || {
        let interrupted = frame.map(|frame| frame.rip);
        let lost = frame.and_then(|frame| caller_of_nowhere(cpu, frame));
        let frames = Frames { cpu, rbp }.take(MAX_FRAMES);
        interrupted.into_iter().chain(lost).chain(frames)
    };
    let last = chain().count().saturating_sub(LAST_FRAMES).max(TOP_FRAMES);

    kprintln!("backtrace:");
    for (number, address) in chain().enumerate() {
        if number < TOP_FRAMES || number >= last {
            kprintln!("  #{number} {address:#018x}");
        } else if number == TOP_FRAMES {
            kprintln!("  ... {} frames left out", last.saturating_sub(TOP_FRAMES));
        }
    }
}

/// The caller, where the interrupted instruction is no code of ours: a call of a bad address has
/// pushed its return address and got no further.
fn caller_of_nowhere(cpu: &CpuLocal, frame: &TrapFrame) -> Option<u64> {
    if image::text().contains(&frame.rip) {
        return None;
    }
    let stack = stacks(cpu).find(|stack| stack.holds(frame.rsp, 8))?;
    stack
        .read_word(frame.rsp)
        .filter(|address| image::text().contains(address))
}

/// The stacks that may be read: the CPU's, and the running thread's.
fn stacks(cpu: &CpuLocal) -> impl Iterator<Item = StackExtent> + '_ {
    let thread = sched::running_stack();
    cpu.stacks().map(|(_, stack)| stack).chain([thread])
}

/// Return addresses along a frame-pointer chain.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'a> {
    /// Whose stacks may be read.
    pub(crate) cpu: &'a CpuLocal,
    /// The frame pointer to start with.
    pub(crate) rbp: u64,
}

impl Iterator for Frames<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let stack = stacks(self.cpu).find(|stack| stack.holds(self.rbp, 16))?;
        let caller = stack.read_word(self.rbp)?;
        let address = stack.read_word(self.rbp.checked_add(8)?)?;
        // The first frame of a stack returns to zero; a chain that was overwritten, anywhere.
        if !image::text().contains(&address) {
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
