//! A whole process on this allocator: everything that the test harness, the standard library and programs that other
//! people wrote allocate comes from `kmalloc` of a machine in the process, on as many CPUs as there are threads.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use mm::adapters::{EarlyPages, Home, KernelHeap};
use mm::addr::{PhysAddr, PhysRange, VirtAddr};
use mm::platform::{CpuId, IrqState, Platform};
use mm::report::Corruption;
use mm::system::Memory;
use mm_programs::PROGRAMS;
use mm_tests::lean::{self, Lean};

/// Threads that there can be, those that have ended included.
const CPUS: u32 = 64;
const MIB: usize = 1 << 20;

/// A machine on which each thread is a CPU of its own, with the profile `hardened`.
struct Process(Lean);

impl AsRef<Lean> for Process {
    fn as_ref(&self) -> &Lean {
        &self.0
    }
}

thread_local! {
    static CPU: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The number of this thread: no two have the same, ever.
fn cpu() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    CPU.get().unwrap_or_else(|| {
        let new = NEXT.fetch_add(1, Ordering::Relaxed);
        if new >= CPUS {
            // A panic would allocate.
            std::process::abort();
        }
        CPU.set(Some(new));
        new
    })
}

// SAFETY: (1, 2, 5, 6) as `Lean`, which answers; (3, 8) nothing interrupts a thread or runs on its CPU; (4, 9) every
// thread has a number of its own, below `CPUS`; (10) there are no anchors.
unsafe impl Platform for Process {
    fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
        self.0.direct_map(range)
    }

    fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.0.virt_to_phys(addr)
    }

    fn current_cpu(&self) -> CpuId {
        CpuId(cpu())
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    /// Threads that have ended, or do not allocate, answer nobody.
    fn relax(&self, _: u32) -> bool {
        false
    }

    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn random_seed(&self) -> u64 {
        0x5eed
    }

    fn corruption(&self, report: &Corruption) {
        eprintln!("corruption: {report}");
        std::process::abort();
    }
}

static MEMORY: Memory<Process> = Memory::new(Process(Lean::new()));

#[derive(Clone, Copy)]
struct Here;

// SAFETY: a static is the same every time.
unsafe impl Home for Here {
    type P = Process;

    fn memory(&self) -> &Memory<Process> {
        &MEMORY
    }
}

/// 16 MiB for the harness, until the test brings memory up.
static EARLY: EarlyPages<4096> = EarlyPages::new();

#[global_allocator]
static HEAP: KernelHeap<Here, 4096> = KernelHeap::new(Here, &EARLY);

fn ksize<T>(list: &[T]) -> Option<usize> {
    MEMORY.ksize(NonNull::from(list).cast())
}

/// Frames that are free, or that caches have.
fn frames() -> u64 {
    MEMORY.shrink_caches();
    MEMORY.drain_all_pages();
    let mut frames = MEMORY.free_frames();
    MEMORY.for_each_cache(|_, cache| frames += cache.pages);
    frames
}

/// Two threads run all programs, and send each other strings to be freed there.
fn run_programs() {
    thread::scope(|scope| {
        let (to_second, from_first) = sync_channel::<Vec<String>>(4);
        let (to_first, from_second) = sync_channel::<Vec<String>>(4);
        for (number, send, receive) in [(1, to_second, from_second), (2, to_first, from_first)] {
            scope.spawn(move || {
                for (name, program) in PROGRAMS {
                    let words = (0..10_000).map(|word| format!("{name} {word} from {number}"));
                    send.send(words.collect()).unwrap();
                    let outcome = program(10 * MIB, number);
                    let outcome = outcome.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
                    assert!(outcome.bytes >= 10 * MIB && outcome.items > 10_000);
                    println!("{name}, thread {number}: {outcome:?}");
                    let words = receive.recv().unwrap();
                    let other = 3 - number;
                    assert_eq!(words[9_999], format!("{name} 9999 from {other}"));
                }
                // What this CPU has at hand nobody else would get any more.
                let _ = frames();
            });
        }
    });
}

#[test]
fn a_process_runs_on_kmalloc() {
    let early = vec![7_u8; 100];
    assert_eq!(ksize(&early), None, "memory is not up yet");
    lean::bring_up(&MEMORY, 1024 * MIB, 0);
    let numbers: Vec<u64> = (0..100).collect();
    assert!(ksize(&numbers).is_some_and(|size| size >= 800));

    let before = frames();
    run_programs();
    run_programs();
    let after = frames();
    // What the library keeps for itself is small: thread-local things, the harness's output.
    assert!(
        before - after < 200,
        "{before} frames free before, {after} after"
    );
    MEMORY.validate().unwrap();

    let mut large: Vec<u8> = Vec::new();
    assert!(large.try_reserve(2048 * MIB).is_err());
    assert!(large.try_reserve(isize::MAX as usize).is_err());
    large.resize(100 * MIB, 1);
    assert!(ksize(&large).is_some_and(|size| size >= 100 * MIB));
    drop(large);
    let huge = Layout::from_size_align(10, 2 * MIB).unwrap();
    // SAFETY: the size is not zero.
    let block = unsafe { HEAP.alloc_zeroed(huge) };
    assert!(!block.is_null() && block.addr() % (2 * MIB) == 0);
    // SAFETY: as it was allocated.
    unsafe { HEAP.dealloc(block, huge) };
    assert!(early.iter().all(|&byte| byte == 7) && numbers.into_iter().eq(0..100));
    drop(early);
    assert!(
        HEAP.early_usage().used_bytes > 0,
        "the harness has some of it"
    );
    assert_eq!(MEMORY.quarantined_frames(), 0);
}
