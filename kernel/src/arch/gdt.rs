//! Segments and the task state of one CPU.
//!
//! Long mode needs a GDT for two things: the code segment that interrupt gates name, and the TSS,
//! which holds the interrupt stack table.

use super::stack::StackExtent;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// The interrupt stacks of a CPU; the discriminant is the index in the TSS.
///
/// Each of the vectors that can come in the middle of another's handler has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ist {
    /// Non-maskable interrupts.
    Nmi,
    /// Double faults.
    DoubleFault,
    /// Machine checks.
    MachineCheck,
    /// Page faults.
    PageFault,
    /// Debug exceptions.
    Debug,
    /// Device interrupts and IPIs.
    Interrupt,
    /// All other exceptions.
    Exception,
}

impl Ist {
    /// All of them, in the order of their index.
    pub const ALL: [Self; 7] = [
        Self::Nmi,
        Self::DoubleFault,
        Self::MachineCheck,
        Self::PageFault,
        Self::Debug,
        Self::Interrupt,
        Self::Exception,
    ];

    /// The stack that `vector` is handled on.
    #[must_use]
    pub const fn of_vector(vector: u8) -> Self {
        match vector {
            1 => Self::Debug,
            2 => Self::Nmi,
            8 => Self::DoubleFault,
            14 => Self::PageFault,
            18 => Self::MachineCheck,
            0..=31 => Self::Exception,
            _ => Self::Interrupt,
        }
    }

    /// Index in the TSS.
    #[must_use]
    pub const fn index(self) -> u16 {
        match self {
            Self::Nmi => 0,
            Self::DoubleFault => 1,
            Self::MachineCheck => 2,
            Self::PageFault => 3,
            Self::Debug => 4,
            Self::Interrupt => 5,
            Self::Exception => 6,
        }
    }
}

/// Segments and task state of one CPU.
#[derive(Debug)]
pub struct Segments {
    gdt: Once<(GlobalDescriptorTable, Selectors)>,
    tss: Once<TaskStateSegment>,
}

#[derive(Clone, Copy, Debug)]
struct Selectors {
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

impl Segments {
    /// Not loaded yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            gdt: Once::new(),
            tss: Once::new(),
        }
    }

    /// Builds the tables (first call), with `stacks` in the order of [`Ist::ALL`] as interrupt
    /// stacks, and makes the current CPU use them.
    pub(super) fn load(&'static self, stacks: &[StackExtent; 7]) {
        let tss = self.tss.call_once(|| {
            let mut tss = TaskStateSegment::new();
            tss.interrupt_stack_table = stacks.map(|stack| VirtAddr::new_truncate(stack.top));
            tss
        });
        let (gdt, selectors) = self.gdt.call_once(|| {
            let mut gdt = GlobalDescriptorTable::new();
            let code = gdt.append(Descriptor::kernel_code_segment());
            let data = gdt.append(Descriptor::kernel_data_segment());
            let tss = gdt.append(Descriptor::tss_segment(tss));
            (gdt, Selectors { code, data, tss })
        });

        gdt.load();
        // SAFETY: the selector names the 64-bit code segment of the table just loaded.
        unsafe { CS::set_reg(selectors.code) };
        // SAFETY: a writable data segment of that table; the same in the next two.
        unsafe { SS::set_reg(selectors.data) };
        // SAFETY: as above.
        unsafe { DS::set_reg(selectors.data) };
        // SAFETY: as above.
        unsafe { ES::set_reg(selectors.data) };
        // SAFETY: the selector names a TSS descriptor that no CPU has loaded: each CPU has its
        // own `Segments`.
        unsafe { load_tss(selectors.tss) };
    }
}

impl Default for Segments {
    fn default() -> Self {
        Self::new()
    }
}
