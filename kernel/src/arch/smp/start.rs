//! Starting the other CPUs, one after the other (SDM vol. 3A, "MP Initialization").

use super::super::apic::{self, ApicError, Message};
use super::super::local::{self, CpuLocal, IST_STACK_BYTES, Stacks};
use super::super::stack::StackExtent;
use super::super::{anchor, cpu, idt, percpu, registers, time};
use super::trampoline::{Trampoline, TrampolineError, use_kernel_tables};
use super::{LOW_PAGE, MAX_CPUS, RECORDS, Record, State, count, publish};
use crate::memory::stacks;
use crate::memory::{Kernel, MEMORY, Pages};
use crate::num::to_u64;
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::CpuId;
use mm::system::{AllocError, VmallocError};

/// Bytes of the main stack of a CPU that is not the boot CPU: its idle thread's.
const MAIN_STACK_BYTES: u64 = 32 * 1024;
/// Between INIT and the first start-up message, on real machines, in microseconds.
const INIT_US: u64 = 10_000;
/// Between the two start-up messages.
const START_UP_US: u64 = 200;
/// Time to answer.
const PATIENCE_US: u64 = 5_000_000;
/// Time for a CPU that runs already to say that it is ready.
const READY_US: u64 = 60_000_000;

/// The boot CPU's CR3, for all others.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// What firmware and command line say about the machine's CPUs.
#[derive(Debug)]
pub(crate) struct Firmware<'a> {
    /// Where physical memory is mapped.
    pub(crate) offset: u64,
    /// The CPUs of the MADT, in its order.
    pub(crate) cpus: &'a [acpi_tables::madt::CpuEntry],
    /// No more CPUs than this, the boot CPU included.
    pub(crate) most: u32,
    /// Treat the CPU with this APIC identifier as if it did not answer: for tests.
    pub(crate) deaf: Option<u32>,
}

/// Why no CPU but the first can take part.
#[derive(Debug)]
pub(crate) enum SmpError {
    /// There is no APIC to reach them with.
    Apic(ApicError),
    /// No page below 1 MiB is free.
    NoLowPage,
    /// The page below 1 MiB cannot be used.
    Trampoline(TrampolineError),
}

impl fmt::Display for SmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apic(error) => error.fmt(f),
            Self::NoLowPage => f.write_str("no page between 64 KiB and 640 KiB is usable"),
            Self::Trampoline(error) => error.fmt(f),
        }
    }
}

/// Switches the APIC on and starts all CPUs that can be. What goes wrong with one of them is
/// logged, and it is left out.
///
/// # Errors
/// Why no other CPU could be started at all.
pub(crate) fn bring_up(firmware: &Firmware<'_>) -> Result<(), SmpError> {
    let outcome = start_all(firmware);
    let me = local::boot_cpu().apic_id();
    let mut records = RECORDS.lock();
    if !records.iter().any(|record| record.apic_id == me) {
        // A table that does not name the CPU that reads it is wrong, but here the CPU is.
        let state = State::Online(0);
        records.insert(0, Record { apic_id: me, state });
    }
    outcome
}

fn start_all(firmware: &Firmware<'_>) -> Result<(), SmpError> {
    let apic = apic::init();
    if apic.is_ok() {
        let boot_cpu = local::boot_cpu();
        boot_cpu.set_apic_id(apic::id());
        boot_cpu.set_online();
    }
    classify(firmware);
    apic.map_err(SmpError::Apic)?;
    if !RECORDS.lock().iter().any(is_waiting) {
        // Nobody starts: the page is as good as closed, with the rest of the first MiB.
        let unused = LOW_PAGE.lock().take();
        let _range = unused.map(mm::mem::EarlyRam::leak);
        return Ok(());
    }
    let page = LOW_PAGE.lock().take().ok_or(SmpError::NoLowPage)?;
    log::info!("smp: other CPUs start in {}", page.range());
    ROOT.store(registers::control().cr3, Ordering::Relaxed);
    let mut trampoline = Trampoline::open(page, firmware.offset).map_err(SmpError::Trampoline)?;
    start_waiting(firmware, &mut trampoline);
    let range = trampoline.close();
    log::debug!("smp: {range} goes back to the reserved first MiB");
    Ok(())
}

/// `LeftOut` is also the state of those that nothing was decided about yet.
fn is_waiting(record: &Record) -> bool {
    record.state == State::LeftOut
}

/// Writes down every CPU that the firmware names, once.
fn classify(firmware: &Firmware<'_>) {
    let me = local::boot_cpu().apic_id();
    let mut records = RECORDS.lock();
    for entry in firmware.cpus {
        let apic_id = entry.apic_id;
        if records.iter().any(|record| record.apic_id == apic_id) {
            log::warn!("smp: the MADT names the CPU with APIC id {apic_id} twice");
            continue;
        }
        let state = if apic_id == me {
            State::Online(0)
        } else if !entry.is_enabled {
            State::Disabled
        } else if apic_id >= to_u32(MAX_CPUS) {
            State::OutOfReach
        } else {
            State::LeftOut
        };
        records.push(Record { apic_id, state });
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn start_waiting(firmware: &Firmware<'_>, trampoline: &mut Trampoline) {
    let most = firmware.most.min(to_u32(MAX_CPUS));
    let records = RECORDS.lock().clone();
    // A CPU that did not come leaves its state to the next one, which gets the same number.
    let mut spare: Option<&'static CpuLocal> = None;
    for (index, record) in records.iter().enumerate() {
        if !is_waiting(record) || count() >= most {
            continue;
        }
        let apic_id = record.apic_id;
        let prepared = match spare.take() {
            Some(cpu) => Ok(cpu),
            None => prepare(count()),
        };
        let state = match prepared {
            Err(error) => {
                log::warn!("smp: CPU with APIC id {apic_id}: {error}");
                State::NoMemory
            }
            Ok(cpu) => match start(trampoline, cpu, apic_id, firmware.deaf == Some(apic_id)) {
                Answer::Ready => {
                    publish(cpu);
                    State::Online(cpu.id())
                }
                Answer::Never => {
                    log::warn!("smp: CPU with APIC id {apic_id} does not answer");
                    spare = Some(cpu);
                    State::NoAnswer
                }
                Answer::Lost => {
                    // It may still be running on what it was given.
                    trampoline.keep_tables();
                    log::warn!("smp: CPU with APIC id {apic_id} started and got lost");
                    State::NoAnswer
                }
            },
        };
        if let Some(record) = RECORDS.lock().get_mut(index) {
            record.state = state;
        }
    }
}

/// How a CPU answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ready,
    /// Not at all, and it will not come in any more.
    Never,
    /// It began, and said no more.
    Lost,
}

/// Makes the state and the stacks of the CPU with number `id`.
fn prepare(id: u32) -> Result<&'static CpuLocal, VmallocError> {
    let bytes = size_of::<CpuLocal>().saturating_add(percpu::bytes());
    let order = Order::for_bytes(to_u64(bytes)).unwrap_or(Order::MAX);
    let mut pages = Pages::alloc(Kernel, Gfp::KERNEL, order).map_err(VmallocError::Alloc)?;
    let place = pages.bytes_mut().as_mut_ptr().cast::<CpuLocal>();
    let _pfn = pages.into_raw();
    // SAFETY: pages that were allocated just now and are never given back, large enough and
    // aligned to far more than the type.
    unsafe { place.write(CpuLocal::new(id)) };
    // SAFETY: initialised in the line before; nobody else has the address.
    let cpu: &'static CpuLocal = unsafe { &*place };
    // SAFETY: the pages are as large as that, and nobody else has the address.
    unsafe { percpu::init(cpu) };

    let main = stacks::allocate(MAIN_STACK_BYTES)?;
    let mut interrupt = [StackExtent::NONE; 7];
    for stack in &mut interrupt {
        *stack = stacks::allocate(to_u64(IST_STACK_BYTES))?;
    }
    cpu.set_stacks(Stacks { main, interrupt });
    anchor::set(cpu, MEMORY.anchor(CpuId(id)));
    crate::memory::events::begin_on(cpu);
    percpu::set_offset(cpu, MEMORY.percpu_offset(CpuId(id)));
    crate::sched::prepare_cpu(cpu).map_err(|_| VmallocError::Alloc(AllocError::OutOfMemory))?;
    Ok(cpu)
}

/// Starts one CPU and waits for it.
fn start(
    trampoline: &mut Trampoline,
    cpu: &'static CpuLocal,
    apic_id: u32,
    is_deaf: bool,
) -> Answer {
    cpu.set_apic_id(apic_id);
    trampoline.expect(apic_id, cpu, enter);
    let start_up = Message::StartUp(trampoline.page_number());
    let init_us = if cpu::is_virtual() { 0 } else { INIT_US };
    let steps = [
        (Message::Init, init_us),
        (start_up, START_UP_US),
        (start_up, PATIENCE_US),
    ];
    for (message, us) in steps {
        // What cannot be sent is not answered either.
        let sent = is_deaf || apic::send(apic_id, message).is_ok();
        if sent && wait_online(cpu, us) {
            return Answer::Ready;
        }
    }
    if trampoline.give_up(apic_id) {
        Answer::Never
    } else if wait_online(cpu, READY_US) {
        Answer::Ready
    } else {
        Answer::Lost
    }
}

fn wait_online(cpu: &CpuLocal, us: u64) -> bool {
    let ticks = time::rate()
        .unwrap_or(time::NS_PER_SECOND)
        .checked_div(1_000_000)
        .unwrap_or(1)
        .saturating_mul(us);
    let start = time::tsc();
    loop {
        if cpu.is_online() {
            return true;
        }
        if time::tsc().wrapping_sub(start) >= ticks {
            return false;
        }
        spin_loop();
    }
}

/// Where the trampoline leads: on the CPU's main stack, interrupts off.
extern "sysv64" fn enter(cpu: &'static CpuLocal) -> ! {
    use_kernel_tables(ROOT.load(Ordering::Relaxed));
    cpu.adopt();
    idt::load();
    cpu::init();
    apic::enable();
    crate::memory::tlb::cpu_starts();
    cpu.set_online();
    crate::sched::idle::run()
}
