//! R02: misuse of the raw interface is a typed error that changes nothing.

use core::ptr::NonNull;

use mm::addr::{Order, Pfn, PhysAddr, PhysRange};
use mm::buddy::{Gfp, GfpError};
use mm::frame::FreeError;
use mm::platform::NodeId;
use mm::report::{Check, Corruption};
use mm::system::{AllocError, FreeEarlyError};
use mm_tests::oracles::{Blocks, Found, state_hash};
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;
/// Misuses of each kind.
const CALLS: usize = 1_200;

fn order(number: u64) -> Order {
    Order::new(number as u8).unwrap()
}

/// A machine in the middle of its life, and raw numbers of what is live.
struct Scene<C: SimConfig> {
    machine: Machine<C>,
    live: Vec<(Pfn, Order)>,
    shared: Vec<Pfn>,
    random: Random,
}

impl<C: SimConfig> Scene<C> {
    fn new() -> Self {
        let machine = Machine::<C>::new()
            .ram(0, 8 * MIB)
            .ram(10 * MIB, 6 * MIB)
            .boot();
        let mut random = Random::new(seed("misuse"));
        let (mut live, mut shared) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let order = order(random.below(5));
            live.push((machine.alloc_pages(Gfp::KERNEL, order).unwrap(), order));
        }
        for _ in 0..10 {
            let order = order(random.below(4));
            let block = machine.alloc_block(Gfp::KERNEL, order).unwrap();
            shared.push(block.pfn());
            // The reference lives on as a number.
            core::mem::forget(block.share().unwrap());
        }
        for _ in 0..20 {
            let (pfn, order) = live.swap_remove(random.below_index(live.len()));
            // SAFETY: allocated above, freed once.
            unsafe { machine.free_pages(pfn, order) }.unwrap();
        }
        Self {
            machine,
            live,
            shared,
            random,
        }
    }

    /// Commits one kind of misuse again and again.
    fn repeat(mut self, mut misuse: impl FnMut(&mut Self)) {
        let before = state_hash(&self.machine);
        for call in 0..CALLS {
            misuse(&mut self);
            assert_eq!(
                state_hash(&self.machine),
                before,
                "call {call} left a trace"
            );
        }
        for (pfn, order) in self.live {
            // SAFETY: live, and freed once.
            unsafe { self.machine.free_pages(pfn, order) }.unwrap();
        }
        for pfn in self.shared {
            // SAFETY: the reference that was forgotten above.
            unsafe { self.machine.put_page(pfn) }.unwrap();
        }
        self.machine.finish();
    }

    fn free(&self, pfn: Pfn, order: Order) -> FreeError {
        // SAFETY: deliberately none: the number does not stand for a block of that order that the
        // caller owns, and the library must say so before it touches anything.
        unsafe { self.machine.free_pages(pfn, order) }.unwrap_err()
    }

    fn any_live(&mut self) -> (Pfn, Order) {
        self.live[self.random.below_index(self.live.len())]
    }

    fn any(&mut self, wanted: impl Fn(&Found) -> bool) -> Found {
        let found: Vec<_> = Blocks::of(&*self.machine).filter(wanted).collect();
        found[self.random.below_index(found.len())]
    }
}

fn is(state: mm::frame::FrameState) -> impl Fn(&Found) -> bool {
    move |found| found.word.state() == Some(state)
}

#[test]
fn a_second_free_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let Found { pfn, word } = scene.any(is(mm::frame::FrameState::Free));
        let inside = scene.random.below(word.order().frames());
        let order = order(scene.random.below(11));
        let pfn = pfn.saturating_add(inside).align_down(order);
        let error = scene.free(pfn, order);
        // The aligned-down frame may be in use, or no memory: that is refused just as well.
        let free_here = scene.machine.frames().unwrap().head(pfn);
        let free_here = free_here.is_some_and(|head| head.state().unwrap().bits() == 1);
        assert!(
            !free_here || error == FreeError::AlreadyFree,
            "{pfn}: {error}"
        );
    });
}

#[test]
fn a_free_with_another_order_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let (pfn, actual) = scene.any_live();
        let wrong = order((u64::from(actual.as_u8()) + 1 + scene.random.below(10)) % 11);
        let expected = if pfn.is_aligned(wrong) {
            FreeError::WrongOrder { actual }
        } else {
            FreeError::Misaligned
        };
        assert_eq!(scene.free(pfn, wrong), expected);
    });
}

#[test]
fn a_free_of_the_middle_of_a_block_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let (head, actual) = loop {
            let (pfn, order) = scene.any_live();
            if order > Order::ZERO {
                break (pfn, order);
            }
        };
        let inside = 1 + scene.random.below(actual.frames() - 1);
        let error = scene.free(head.saturating_add(inside), Order::ZERO);
        assert_eq!(error, FreeError::Interior { head });
    });
}

#[test]
fn a_free_of_reserved_memory_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let Found { pfn, .. } = scene.any(is(mm::frame::FrameState::Reserved));
        assert_eq!(scene.free(pfn, Order::ZERO), FreeError::Reserved);
    });
}

#[test]
fn a_free_of_what_is_no_memory_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let number = match scene.random.below(3) {
            0 => ((8 * MIB) >> 12) + scene.random.below((2 * MIB) >> 12),
            1 => ((16 * MIB) >> 12) + scene.random.below(1 << 40),
            _ => scene.random.next_u64() | 1 << 63,
        };
        let error = scene.free(Pfn::new(number), Order::ZERO);
        assert_eq!(error, FreeError::NotPresent);
    });
}

#[test]
fn a_free_at_a_crooked_number_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let order = order(1 + scene.random.below(10));
        let (pfn, _) = scene.any_live();
        let crooked = pfn
            .align_down(order)
            .saturating_add(1 + scene.random.below(order.frames() - 1));
        assert_eq!(scene.free(crooked, order), FreeError::Misaligned);
    });
}

#[test]
fn a_free_of_a_shared_block_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let pfn = scene.shared[scene.random.below_index(scene.shared.len())];
        let order = scene.machine.page(pfn).unwrap().order();
        assert_eq!(scene.free(pfn, order), FreeError::Shared);
    });
}

#[test]
fn a_put_without_a_reference_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let shared: Vec<_> = scene.shared.clone();
        let Found { pfn, .. } = scene.any(|found| !shared.contains(&found.pfn));
        // SAFETY: deliberately none: nobody holds a reference to what is not shared.
        let error = unsafe { scene.machine.put_page(pfn) }.unwrap_err();
        assert!(matches!(
            error,
            Corruption::BadRecord { pfn: at, check: Check::State, .. } if at == pfn
        ));
        assert_eq!(scene.machine.get_page(pfn), None);
    });
}

#[test]
fn a_free_at_a_foreign_address_is_refused() {
    Scene::<Usual>::new().repeat(|scene| {
        let elsewhere = Box::new(0_u8);
        let foreign = NonNull::from(&*elsewhere);
        // SAFETY: deliberately none: the address is not even in the direct map.
        let error = unsafe { scene.machine.free_pages_at(foreign, Order::ZERO) };
        assert_eq!(error, Err(FreeError::NotPresent));

        let (pfn, order) = scene.any_live();
        let block = mm::addr::PfnRange::block(pfn, order);
        let inside = scene.machine.hardware().ram().at(block.addrs()).unwrap();
        let crooked = inside.map_addr(|addr| addr.checked_add(8).unwrap());
        // SAFETY: deliberately none: the address is not that of a page.
        let error = unsafe { scene.machine.free_pages_at(crooked, order) };
        assert_eq!(error, Err(FreeError::Misaligned));
    });
}

#[test]
fn a_request_that_contradicts_itself_is_refused() {
    let cases = [
        (Gfp::DMA | Gfp::DMA32, 0, GfpError::ManyZones),
        (Gfp::DMA | Gfp::HIGHMEM, 0, GfpError::ManyZones),
        (
            Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE,
            0,
            GfpError::ManyZones,
        ),
        (Gfp::MOVABLE | Gfp::RECLAIMABLE, 0, GfpError::ManyTypes),
        (
            Gfp::KERNEL | Gfp::NOFAIL | Gfp::NORETRY,
            0,
            GfpError::NofailMayFail,
        ),
        (
            Gfp::KERNEL | Gfp::NOFAIL | Gfp::RETRY_MAYFAIL,
            0,
            GfpError::NofailMayFail,
        ),
        (Gfp::ATOMIC | Gfp::NOFAIL, 0, GfpError::NofailImpossible),
        (Gfp::KERNEL | Gfp::NOFAIL, 2, GfpError::NofailImpossible),
        (Gfp::from_bits_retain(1 << 31), 0, GfpError::UnknownBits),
    ];
    let mut turn = 0;
    Scene::<Usual>::new().repeat(|scene| {
        let (gfp, number, expected) = cases[turn % cases.len()];
        turn += 1;
        let refused = AllocError::Flags(expected);
        let machine = &scene.machine;
        assert_eq!(machine.alloc_pages(gfp, order(number)), Err(refused));
        assert_eq!(
            machine.alloc_block(gfp, order(number)).unwrap_err(),
            refused
        );
        if number == 0 {
            assert_eq!(machine.alloc_pages_bulk(gfp, &mut [None; 4]), Err(refused));
        }
    });
}

fn kib(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start << 10), size << 10)
}

#[test]
fn reserved_memory_is_given_back_to_its_own_node_only() {
    let mut machine = Machine::<Usual>::new()
        .ram(0, 16 * MIB)
        .reserve(5 * MIB, 64 << 10)
        .boot();
    // SAFETY: reserved on the machine, whose own memblock is gone; nobody uses it.
    let ram = unsafe { machine.hardware().early_ram(kib(5 << 10, 64)) };
    let (one, other) = ram.split_at(32 << 10);

    let before = state_hash(&machine);
    let whole = one.range();
    let (refused, one) = machine.free_early(NodeId(1), one).unwrap_err();
    assert_eq!(refused, FreeEarlyError::OutsideNode(whole.whole_frames()));
    assert_eq!((one.range(), state_hash(&machine)), (whole, before));

    let managed = machine.managed_frames();
    machine.free_early(NodeId(0), other).unwrap();
    assert_eq!(machine.managed_frames(), managed + 8);
    // What was refused is whole: it can go where it belongs.
    machine.free_early(NodeId(0), one).unwrap();
    assert_eq!(machine.managed_frames(), managed + 16);
    machine.check();
    machine.rebase();
    machine.finish();
}

#[test]
fn early_memory_that_was_handed_over_in_part_comes_back_whole() {
    let machine = Machine::<Usual>::new()
        .ram(0, 16 * MIB)
        .reserve(5 * MIB, 64 << 10)
        .boot();
    // SAFETY: the upper half was handed over as the machine came up, so it must be refused.
    let ram = unsafe { machine.hardware().early_ram(kib(5 << 10, 128)) };
    let (range, before) = (ram.range(), state_hash(&machine));
    let (refused, ram) = machine.free_early(NodeId(0), ram).unwrap_err();
    let first = Pfn::new((5 * MIB + (64 << 10)) >> 12);
    assert_eq!(refused, FreeEarlyError::NotReserved(first));
    assert_eq!((ram.range(), state_hash(&machine)), (range, before));
    machine.finish();
}
