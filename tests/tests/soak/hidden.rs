//! R13: with `debug_pagealloc=on` whoever reads or writes a free page has a fault at just that address. The faults are real ones of
//! the host, in a process of their own: its handler takes note, gives the page back, and the access is done again.

use std::env;
use std::ffi::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mm::addr::{Order, PfnRange, PhysRange, VirtAddr};
use mm::buddy::Gfp;
use mm::config::PAGE_SIZE;
use mm::platform::{PageAccess, Platform};
use mm::report::{AccessKind, Corruption};
use mm::system::DebugPagealloc;
use mm_tests::seed::{Random, cases, seed};
use mm_tests::sim::{Listed, Machine, Plain, SimConfig, Usual, Vmemmap};
use rustix::mm::{MprotectFlags, mprotect};

const MIB: u64 = 1 << 20;
/// Tells the program that it is the process which faults, and how.
const CHILD: &str = "MM_FAULTS";

const SIGSEGV: c_int = 11;
const SA_SIGINFO: c_int = 4;

/// That of Linux on x86_64, as far as it is read: number, error, code, padding, and the address.
#[repr(C)]
struct SigInfo {
    head: [c_int; 4],
    address: usize,
}

/// `struct sigaction` of glibc on x86_64.
#[repr(C)]
struct SigAction {
    handler: extern "C" fn(c_int, *const SigInfo, *const c_void),
    mask: [u64; 16],
    flags: c_int,
    restorer: usize,
}

unsafe extern "C" {
    fn sigaction(signal: c_int, action: *const SigAction, old: *mut SigAction) -> c_int;
}

static FAULTS: AtomicU64 = AtomicU64::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn fault(_: c_int, info: *const SigInfo, _: *const c_void) {
    // SAFETY: the kernel's, for as long as the handler runs.
    let address = unsafe { (*info).address };
    ADDRESS.store(address, Ordering::SeqCst);
    // The same address again: it was not the page's rights.
    if FAULTS.fetch_add(1, Ordering::SeqCst) > 1_000_000 {
        std::process::abort();
    }
    let page = address & !(PAGE_SIZE as usize - 1);
    let both = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: the test's RAM, or the process ends.
    let given = unsafe { mprotect(std::ptr::with_exposed_provenance_mut(page), 4096, both) };
    if given.is_err() {
        std::process::abort();
    }
}

fn catch_faults() {
    let action = SigAction {
        handler: fault,
        mask: [0; 16],
        flags: SA_SIGINFO,
        restorer: 0,
    };
    // SAFETY: the handler does only what a handler may.
    let outcome = unsafe { sigaction(SIGSEGV, &raw const action, std::ptr::null_mut()) };
    assert_eq!(outcome, 0);
}

/// Blocks come and go; after each that goes, a byte of it is touched. Answers how often that was.
fn touch_free_pages<C: SimConfig>(times: u64) -> u64 {
    let machine = Machine::<C>::new()
        .ram(0, 32 * MIB)
        .options(|options| options.debug_pagealloc = DebugPagealloc::On)
        .boot();
    let hardware = machine.hardware();
    let mut random = Random::new(seed("hidden"));
    let mut live = Vec::new();
    for time in 0..times {
        for _ in 0..8 {
            let order = Order::new(random.below(5) as u8).unwrap();
            live.push(machine.alloc_block(Gfp::KERNEL, order).unwrap());
        }
        while live.len() > 30 {
            drop(live.swap_remove(random.below_index(live.len())));
        }
        let block = live.swap_remove(random.below_index(live.len()));
        let (first, order) = (block.pfn(), block.order());
        drop(block);
        if random.below(4) == 0 {
            machine.drain_all_pages();
        }
        let pfn = first.saturating_add(random.below(order.frames()));
        let offset = random.below(PAGE_SIZE);
        let page = PhysRange::from_size(pfn.addr(), PAGE_SIZE);
        let at = hardware.direct_map(page).unwrap();
        // SAFETY: a byte of that page.
        let byte = unsafe { at.add(offset as usize) };
        let kind = [AccessKind::Read, AccessKind::Write][random.below_index(2)];
        let before = FAULTS.load(Ordering::SeqCst);
        match kind {
            // SAFETY: RAM, once the handler has given it back.
            AccessKind::Write => unsafe { byte.write_volatile(0x5a) },
            // SAFETY: as above.
            _ => drop(unsafe { byte.read_volatile() }),
        }
        assert_eq!(FAULTS.load(Ordering::SeqCst), before + 1, "{time}: {pfn}");
        let address = ADDRESS.load(Ordering::SeqCst);
        assert_eq!(address, byte.as_ptr().addr(), "{time}: {pfn}");
        // What a kernel's handler does: it asks what the address is.
        let address = VirtAddr::new(address as u64);
        assert!(machine.free_page_fault(address, kind));
        let reports = hardware.take_reports();
        let [Corruption::FreePage(found)] = reports.as_slice() else {
            panic!("{reports:?}");
        };
        assert_eq!(
            (found.pfn, u64::from(found.offset), found.kind),
            (pfn, offset, kind)
        );
        hardware.protect_free_pages(PfnRange::block(pfn, Order::ZERO), PageAccess::None);
    }
    drop(live);
    machine.finish();
    FAULTS.load(Ordering::SeqCst)
}

/// This program again, as the process that faults.
fn child(how: &str) -> std::process::Output {
    let program = env::current_exe().unwrap();
    let name = "hidden::who_touches_a_free_page_faults_at_just_that_address";
    let mut command = Command::new(program);
    command
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, how);
    command.output().unwrap()
}

#[test]
fn who_touches_a_free_page_faults_at_just_that_address() {
    let times = cases(1_000);
    match env::var(CHILD).as_deref() {
        Ok("caught") => {
            catch_faults();
            let lists = touch_free_pages::<Listed<Usual>>(times);
            let all = touch_free_pages::<(Plain, Vmemmap)>(times);
            assert_eq!((lists, all), (times, 2 * times));
            println!("faults: {all} of {} accesses", 2 * times);
        }
        Ok(_) => drop(touch_free_pages::<Usual>(times)),
        Err(_) => {
            let caught = child("caught");
            let text = String::from_utf8_lossy(&caught.stdout);
            assert!(caught.status.success(), "{caught:?}");
            let line = format!("faults: {} of {} accesses", 2 * times, 2 * times);
            assert!(text.contains(&line), "{text}");
            println!("{line}");
            // Nobody takes care of it: the first access ends the process.
            assert_eq!(child("alone").status.signal(), Some(SIGSEGV));
        }
    }
}
