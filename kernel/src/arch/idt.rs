//! The interrupt descriptor table: one for all CPUs, every vector present.

use super::gdt::Ist;
use super::stubs;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// Interrupt gate, present, ring 0.
const PRESENT_INTERRUPT_GATE: u16 = 0x8e00;
/// Vectors there are.
const VECTORS: usize = 256;

/// A gate descriptor (SDM vol. 3A, "64-Bit IDT Gate Descriptors").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
struct Gate {
    address_low: u16,
    selector: u16,
    /// IST index plus one in bits 0–2, type, privilege level and present bit above.
    options: u16,
    address_middle: u16,
    address_high: u32,
    reserved: u32,
}

impl Gate {
    fn new(vector: u8, selector: u16) -> Self {
        let address = stubs::address(vector).to_le_bytes();
        let [a, b, c, d, e, f, g, h] = address;
        // The hardware counts interrupt stacks from one; zero would mean "stay on this stack".
        let stack = Ist::of_vector(vector).index().saturating_add(1);
        Self {
            address_low: u16::from_le_bytes([a, b]),
            selector,
            options: PRESENT_INTERRUPT_GATE | stack,
            address_middle: u16::from_le_bytes([c, d]),
            address_high: u32::from_le_bytes([e, f, g, h]),
            reserved: 0,
        }
    }

    const fn is_complete(&self) -> bool {
        self.options & PRESENT_INTERRUPT_GATE == PRESENT_INTERRUPT_GATE
            && self.options & 7 != 0
            && self.selector != 0
    }
}

static IDT: Once<[Gate; VECTORS]> = Once::new();

/// Builds the table (first call) and makes the current CPU use it.
///
/// The CPU's segments must be loaded: the gates name the current code segment.
pub(super) fn load() {
    let table = IDT.call_once(|| {
        let selector = CS::get_reg().0;
        let mut table = [Gate::default(); VECTORS];
        for (gate, vector) in table.iter_mut().zip(0..=u8::MAX) {
            *gate = Gate::new(vector, selector);
        }
        table
    });

    use_first(table, VECTORS);
}

/// Cuts the current CPU's table off after `last`: any later vector turns into a double fault.
///
/// For provoking one; nothing puts the table back.
pub(super) fn shorten(last: u8) {
    if let Some(table) = IDT.get() {
        use_first(table, usize::from(last).saturating_add(1));
    }
}

fn use_first(table: &'static [Gate; VECTORS], gates: usize) {
    let bytes = gates.saturating_mul(size_of::<Gate>());
    let pointer = DescriptorTablePointer {
        limit: u16::try_from(bytes.saturating_sub(1)).unwrap_or(u16::MAX),
        base: VirtAddr::from_ptr(table),
    };
    // SAFETY: the table is 'static and no shorter than the limit says, and every gate leads to a
    // stub that saves and restores all state, on a stack of its own.
    unsafe { lidt(&pointer) };
}

/// Number of vectors with a handler on an interrupt stack: 256, or something is wrong.
#[must_use]
pub fn complete_vectors() -> usize {
    IDT.get().map_or(0, |table| {
        table.iter().filter(|gate| gate.is_complete()).count()
    })
}
