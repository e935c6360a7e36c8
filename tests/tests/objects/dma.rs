//! Buffers for devices: where they may lie, what becomes of memory, and pools of small ones.

use std::thread;

use mm::addr::Order;
use mm::buddy::Gfp;
use mm::slab::{CacheError, ShapeError};
use mm::system::{AllocError, DmaError, DmaPool, DmaRequest};
use mm_tests::for_four_configs;
use mm_tests::seed::{Random, seed};
use mm_tests::sim::{Listed, Machine, SimConfig, Usual};

const MIB: u64 = 1 << 20;

for_four_configs! {
    buffers_lie_as_they_were_asked_for,
    pools_lie_as_they_were_asked_for,
    all_cpus_have_buffers_and_pools,
}

/// Four MiB below each power of two that a mask ends at, and some at the bottom.
fn steps() -> Machine<Usual> {
    let mut builder = Machine::<Usual>::new().ram(0, 8 * MIB);
    for bits in 24..=37 {
        builder = builder.ram((1 << bits) - 4 * MIB, 4 * MIB);
    }
    builder.boot()
}

/// What a device reaches is used up to the last block, whichever zone it is in, and all comes back.
#[test]
fn every_block_below_a_mask_is_found() {
    let machine = steps();
    let bytes = 64 << 10;
    for bits in 24..=36 {
        let below = |end: u64| {
            let pages = end >> 12;
            let table = machine.frames().unwrap();
            let heads = (0..pages).step_by(16).map(mm::addr::Pfn::new);
            let is_free = |pfn: &mm::addr::Pfn| {
                let head = table.head(*pfn);
                head.is_some_and(|head| {
                    let word = head.frame().word();
                    word.is(mm::frame::FrameState::Free) && word.order() >= Order::new(4).unwrap()
                })
            };
            heads.filter(is_free).count()
        };
        machine.drain_all_pages();
        // Frames are looked at one by one: not so many of a map with holes.
        let expected = if bits <= 30 {
            Some(below(1 << bits))
        } else {
            None
        };
        let request = DmaRequest::new(bytes).bits(bits);
        let mut buffers = Vec::new();
        let error = loop {
            match machine.dma_alloc(request, Gfp::KERNEL | Gfp::NOWARN) {
                Ok(buffer) => buffers.push(buffer),
                Err(error) => break error,
            }
        };
        assert_eq!(error, DmaError::Alloc(AllocError::OutOfMemory));
        for buffer in &mut buffers {
            let last = buffer.addr().as_u64() + bytes - 1;
            assert!(last < 1 << bits, "{bits}: {buffer:?}");
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(0xdd);
        }
        if let Some(expected) = expected {
            assert_eq!(buffers.len(), expected, "{bits}");
        }
        let least = (u64::from(bits) - 23) * 4 * MIB * 8 / 10 / bytes;
        assert!(buffers.len() as u64 >= least, "{bits}: {}", buffers.len());
        drop(buffers);
        machine.check();
    }
    machine.finish();
}

#[test]
fn who_may_not_sleep_gets_what_the_zones_give() {
    let machine = steps();
    let mut buffers = Vec::new();
    let request = DmaRequest::new(4096).bits(28);
    while let Ok(buffer) = machine.dma_alloc(request, Gfp::NOWAIT) {
        assert!(buffer.addr().as_u64() < 1 << 28);
        buffers.push(buffer);
    }
    assert!(buffers.len() > 100, "the DMA zone has some");
    drop(buffers);
    machine.finish();
}

/// Whether no multiple of a boundary, if there is one, lies inside.
fn lies_within(boundary: u64, first: u64, bytes: u64) -> bool {
    let cell = |address: u64| address.checked_div(boundary);
    cell(first) == cell(first + bytes - 1)
}

/// A request for so many bytes with some boundary, which is told, and within so many bits.
fn wished(random: &mut Random, bytes: u64, align: u64) -> (DmaRequest, u64, u32) {
    let boundary = match random.below(3) {
        0 => 0,
        _ => bytes.next_power_of_two() << random.below(4),
    };
    let bits = 24 + random.below(12) as u32;
    let request = DmaRequest::new(bytes)
        .bits(bits)
        .align(align)
        .boundary(boundary);
    (request, boundary, bits)
}

fn buffers_lie_as_they_were_asked_for<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let mut random = Random::new(seed("objects_dma"));
    let mut live = Vec::new();
    for step in 0..1_500_u32 {
        if live.len() > 40 || random.below(3) == 0 && !live.is_empty() {
            let which = random.below_index(live.len());
            let (buffer, byte): (mm::system::DmaBuffer<_>, u8) = live.swap_remove(which);
            assert!(buffer.iter().all(|&found| found == byte));
            continue;
        }
        let largest = 1 << random.below(17);
        let bytes = 1 + random.below(largest);
        let align = 1 << random.below(18);
        let (request, boundary, bits) = wished(&mut random, bytes, align);
        let gfp = if random.below(2) == 0 {
            Gfp::KERNEL
        } else {
            Gfp::NOWAIT
        };
        let Ok(mut buffer) = machine.dma_alloc(request, gfp) else {
            continue;
        };
        let first = buffer.addr().as_u64();
        assert_eq!(buffer.len() as u64, bytes);
        assert!(
            first % align == 0 && first + bytes <= 1 << bits,
            "{request:?}"
        );
        assert!(lies_within(boundary, first, bytes), "{request:?}");
        assert!(buffer.iter().all(|&byte| byte == 0));
        let byte = step.to_le_bytes()[0];
        buffer.fill(byte);
        live.push((buffer, byte));
    }
    assert!(!live.is_empty());
    drop(live);
    machine.finish();
}

#[test]
fn buffers_that_cannot_be_are_refused() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let new = DmaRequest::new;
    let cases = [
        (new(0), DmaError::Empty),
        (new(5 * MIB), DmaError::TooLarge),
        (new(1).align(8 * MIB), DmaError::TooLarge),
        (new(1).align(48), DmaError::Align),
        (new(1).align(0), DmaError::Align),
        (new(100).boundary(96), DmaError::Boundary),
        (new(100).boundary(64), DmaError::Boundary),
        (new(100).bits(8), DmaError::Alloc(AllocError::OutOfMemory)),
    ];
    for (request, error) in cases {
        let refused = machine.dma_alloc(request, Gfp::KERNEL | Gfp::NOWARN);
        assert_eq!(refused.err(), Some(error), "{request:?}");
    }
    // Only what is used of an aligned buffer stays.
    machine.drain_all_pages();
    let before = machine.free_frames();
    let buffer = machine
        .dma_alloc(new(5000).align(MIB), Gfp::KERNEL)
        .unwrap();
    machine.drain_all_pages();
    assert_eq!(before - machine.free_frames(), 2);
    drop(buffer);
    machine.finish();
}

fn pools_lie_as_they_were_asked_for<C: SimConfig>() {
    let machine = Machine::<C>::with_ram(64 * MIB);
    let mut random = Random::new(seed("objects_dma_pools"));
    for _ in 0..60 {
        let bytes = 1 + random.below(3000);
        let align = 1 << random.below(9);
        let (request, boundary, bits) = wished(&mut random, bytes, align);
        let pool = DmaPool::create(&*machine, "pool", request).unwrap();
        let mut live = Vec::new();
        for number in 0..100_u8 {
            let mut buffer = pool.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
            let first = buffer.addr().as_u64();
            assert_eq!(buffer.len() as u64, bytes);
            assert!(
                first % align == 0 && first + bytes <= 1 << bits,
                "{request:?}"
            );
            assert!(
                lies_within(boundary, first, bytes),
                "{request:?}: {buffer:?}"
            );
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(number);
            live.push(buffer);
        }
        for (number, buffer) in (0..).zip(&live) {
            assert!(buffer.iter().all(|&byte| byte == number));
        }
        let (left, pool) = pool.destroy().unwrap_err();
        assert_eq!(left, 100);
        drop(live);
        pool.destroy().unwrap();
    }
    machine.check();
    machine.validate_caches().unwrap();
    machine.abandon();
}

#[test]
fn pools_that_cannot_be_are_refused() {
    let machine = Machine::<Listed<Usual>>::with_ram(32 * MIB);
    let new = DmaRequest::new;
    let cases = [
        (new(0), ShapeError::Empty),
        (new(8).align(24), ShapeError::Align),
        (new(8).align(8192), ShapeError::Align),
        (new(8).boundary(24), ShapeError::Align),
        (new(100).boundary(64), ShapeError::TooLarge),
    ];
    for (request, error) in cases {
        let refused = DmaPool::create(&*machine, "none", request);
        assert_eq!(refused.err(), Some(CacheError::Shape(error)), "{request:?}");
    }
    machine.finish();
}

fn all_cpus_have_buffers_and_pools<C: SimConfig>() {
    let machine = Machine::<C>::new().ram(0, 64 * MIB).cpus(5).boot();
    let request = DmaRequest::new(96).bits(26).boundary(4096);
    let pool = DmaPool::create(&*machine, "shared", request).unwrap();
    thread::scope(|scope| {
        for cpu in 1..5_u32 {
            let (machine, pool) = (&machine, &pool);
            scope.spawn(move || {
                let _here = machine.cpu(cpu);
                let mut random = Random::new(seed("objects_dma_cpus") ^ u64::from(cpu));
                let (mut buffers, mut small) = (Vec::new(), Vec::new());
                for _ in 0..800 {
                    let bytes = 1 + random.below(30_000);
                    let request = DmaRequest::new(bytes).bits(25).align(512);
                    if let Ok(buffer) = machine.dma_alloc(request, Gfp::KERNEL | Gfp::NOWARN) {
                        assert!(buffer.addr().as_u64() < 32 * MIB);
                        buffers.push(buffer);
                    }
                    small.extend(pool.alloc(Gfp::KERNEL));
                    if buffers.len() > 10 {
                        drop(buffers.swap_remove(random.below(10) as usize));
                    }
                    if small.len() > 100 {
                        drop(small.swap_remove(random.below(100) as usize));
                    }
                }
            });
        }
    });
    pool.destroy().unwrap();
    machine.check();
    machine.validate_caches().unwrap();
    machine.abandon();
}
