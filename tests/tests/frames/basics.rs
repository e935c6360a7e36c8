//! The same core cases in every profile and on every memory model.

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::system::AllocError;
use mm_tests::for_every_config;
use mm_tests::oracles::Owners;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

for_every_config! {
    every_order_is_handed_out_aligned_and_comes_back,
    all_memory_can_be_handed_out_and_comes_back,
    random_orders_in_random_order_leave_no_trace,
}

fn every_order_is_handed_out_aligned_and_comes_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    for order in Order::all() {
        let mut block = machine.alloc_block(Gfp::KERNEL, order).unwrap();
        assert_eq!(block.order(), order);
        assert!(block.pfn().is_aligned(order));
        let size = order.bytes() as usize;
        assert_eq!(block.bytes_mut().len(), size);
        block.bytes_mut().fill(0x5a);
        machine.check();
    }
    machine.finish();
}

fn all_memory_can_be_handed_out_and_comes_back<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(32 * MIB);
    let mut blocks = Vec::new();
    let refused = loop {
        match machine.alloc_block(Gfp::KERNEL | Gfp::MEMALLOC, Order::ZERO) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AllocError::OutOfMemory);
    assert_eq!(blocks.len() as u64, machine.managed_frames());
    assert_eq!(machine.free_frames(), 0);
    machine.check();
    drop(blocks);
    machine.finish();
}

fn random_orders_in_random_order_leave_no_trace<C: SimConfig>() {
    let machine = Machine::<C>::new()
        .ram(0, 24 * MIB)
        .ram(32 * MIB, 40 * MIB)
        .kernelcore(32 * MIB)
        .boot();
    let zeroed = machine.options().unwrap().init_on_alloc;
    let mut owners = if zeroed {
        Owners::of_zeroed()
    } else {
        Owners::new()
    };
    let ram = machine.hardware().ram();
    let mut random = Random::new(seed("random_orders"));
    let mut live = Vec::new();
    for _ in 0..4_000 {
        if random.below(100) < 45 && !live.is_empty() {
            let block: mm::system::Block<_> = live.swap_remove(random.below_index(live.len()));
            owners.giving(ram, block.pfn());
            continue;
        }
        let order = Order::new(random.below(11) as u8).unwrap();
        let order = if random.below(4) == 0 {
            order
        } else {
            Order::ZERO
        };
        let gfp = [
            Gfp::KERNEL,
            Gfp::HIGHUSER_MOVABLE,
            Gfp::KERNEL | Gfp::RECLAIMABLE,
        ];
        let gfp = gfp[random.below_index(3)];
        if let Ok(block) = machine.alloc_block(gfp, order) {
            owners.took(ram, block.frames());
            live.push(block);
        }
    }
    machine.check();
    for block in live {
        owners.giving(ram, block.pfn());
    }
    machine.finish();
}

/// The last reference to a compound page gives it to its destructor, once, as an owned block.
#[test]
fn the_last_reference_calls_the_destructor() {
    use mm::system::{Block, Destructor, Home};
    use std::cell::RefCell;

    thread_local! {
        static DESTROYED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    struct Noted;
    impl<H: Home> Destructor<H> for Noted {
        fn destroy(mut block: Block<H>) {
            block.bytes_mut()[0] = 1;
            DESTROYED.with_borrow_mut(|all| all.push(block.pfn().as_u64()));
        }
    }

    let machine = Machine::<Usual>::with_ram(16 * MIB);
    let block = machine
        .alloc_block(Gfp::KERNEL | Gfp::COMP, Order::new(3).unwrap())
        .unwrap();
    let pfn = block.pfn().as_u64();
    let first = block.share_with::<Noted>().unwrap();
    let second = first.clone();
    drop(first);
    DESTROYED.with_borrow(|all| assert!(all.is_empty()));
    drop(second);
    DESTROYED.with_borrow(|all| assert_eq!(*all, [pfn]));
    machine.finish();
}
