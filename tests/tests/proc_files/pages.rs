//! `page PFN` for frames in every state.

use expect_test::{Expect, expect};
use mm::addr::{Pfn, VirtAddr};
use mm::buddy::Gfp;
use mm::frame::PageFlags;
use mm::platform::Platform;
use mm::proc;
use mm_tests::sim::{Machine, Usual};

use super::{order, small, text};

fn shows(machine: &Machine<Usual>, pfn: u64, expected: &Expect) {
    expected.assert_eq(&text(|out| proc::page(machine, Pfn::new(pfn), out)));
}

#[test]
fn a_free_frame_and_its_block() {
    let machine = small();
    shows(
        &machine,
        0x400,
        &expect![[r#"
        frame 0x400, physical address 0x400000
          state      free
          block      0x400..0x800, order 10
          section    0, frame 1024 of it
          node       0
          zone       DMA
          pageblock  at 0x400, Movable
    "#]],
    );
    shows(
        &machine,
        0x605,
        &expect![[r#"
        frame 0x605, physical address 0x605000
          state      free
          block      0x400..0x800, order 10; frame 517 of it
          section    0, frame 1541 of it
          node       0
          zone       DMA
          pageblock  at 0x600, Movable
    "#]],
    );
    machine.finish();
}

#[test]
fn a_frame_in_use_its_flags_and_its_references() {
    let machine = small();
    let gfp = Gfp::DMA | Gfp::COMP | Gfp::MOVABLE;
    let block = machine.alloc_block(gfp, order(2)).unwrap();
    let pfn = block.pfn().as_u64();
    let _ = block.set_flags(PageFlags::LOCKED | PageFlags::UPTODATE);
    block.set_private(0xfeed);
    shows(
        &machine,
        pfn + 1,
        &expect![[r#"
        frame 0x101, physical address 0x101000
          state      in use, one owner
          block      0x100..0x104, order 2; frame 1 of it
          section    0, frame 257 of it
          node       0
          zone       DMA
          pageblock  at 0x0, Movable
          asked for  Movable, compound
          flags      locked|uptodate
          references 1
          private    0xfeed
    "#]],
    );
    let shared = block.share().unwrap();
    let twin = shared.clone();
    shows(
        &machine,
        pfn,
        &expect![[r#"
        frame 0x100, physical address 0x100000
          state      in use, reference-counted
          block      0x100..0x104, order 2
          section    0, frame 256 of it
          node       0
          zone       DMA
          pageblock  at 0x0, Movable
          asked for  Movable, compound
          flags      locked|uptodate
          references 2
          private    0xfeed
    "#]],
    );
    drop((shared, twin));
    machine.finish();
}

#[test]
fn frames_that_are_not_free_memory() {
    let machine = Machine::<Usual>::new()
        .ram(0x10_0000, 32 << 20)
        .ram(0x400_0000, 1 << 20)
        .reserve(0x30_0000, 0x1000)
        .boot();
    // Reserved, a hole within the span, a section without memory, nonsense.
    shows(
        &machine,
        0x300,
        &expect![[r#"
        frame 0x300, physical address 0x300000
          state      reserved: present, but never handed to the allocator
          block      0x300..0x301, order 0
          section    0, frame 768 of it
          node       0
          zone       DMA
          pageblock  at 0x200, Movable
    "#]],
    );
    shows(
        &machine,
        0x3000,
        &expect![[r#"
        frame 0x3000, physical address 0x3000000
          state      hole: no block holds it
          section    0, frame 12288 of it
          node       0
          zone       DMA32
          pageblock  at 0x3000, Movable
    "#]],
    );
    shows(
        &machine,
        0,
        &expect![[r#"
        frame 0x0, physical address 0x0
          state      hole: no block holds it
          section    0, frame 0 of it
          zone       none
    "#]],
    );
    shows(
        &machine,
        0x12_3456,
        &expect![[r#"
        frame 0x123456, physical address 0x123456000
          state      no such frame: section 36 has no records
    "#]],
    );
    shows(
        &machine,
        u64::MAX,
        &expect![[r#"
        frame 0xffffffffffffffff, beyond 64 bits of physical address
          state      no such frame: section 562949953421311 has no records
    "#]],
    );
    machine.finish();
}

#[test]
fn a_record_that_was_written_over() {
    let machine = small();
    let frame = machine.page(Pfn::new(0x400)).unwrap().frame();
    let record = machine.hardware().virt_to_phys(VirtAddr::from_ptr(frame));
    for byte in 0..8 {
        let addr = record.unwrap().saturating_add(byte);
        machine.hardware().ram().scribble(addr, 0x6b);
    }
    shows(
        &machine,
        0x400,
        &expect![[r#"
        frame 0x400, physical address 0x400000
          state      damaged: its state word is 0x6b6b6b6b6b6b6b6b
          section    0, frame 1024 of it
          node       0
          zone       DMA
          pageblock  at 0x400, Movable
    "#]],
    );
    machine.abandon();
}
