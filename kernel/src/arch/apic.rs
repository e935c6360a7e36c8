//! The local APIC of each CPU: interrupts between CPUs, and a timer (SDM vol. 3A, chapter 12).
//!
//! The registers are memory, at the same address on each CPU, each seeing its own, mapped uncached in a
//! slot of the fixmap. A firmware that has switched the APICs to x2APIC mode, where
//! there are no such registers, leaves the kernel with one CPU.

use super::irq::IrqGuard;
use super::time::{self, NS_PER_SECOND};
use super::trap::{Handled, TrapFrame, set_handler};
use super::{cpu, smp};
use crate::memory::fixmap;
use crate::num::to_usize;
use core::fmt;
use core::hint::spin_loop;
use mm::addr::PhysAddr;
use spin::Once;
use x86_64::registers::model_specific::Msr;

/// Vectors of the kernel's own interrupts; the highest ones, so that they come first.
pub mod vector {
    /// The timer of a CPU.
    pub const TIMER: u8 = 0xec;
    /// Somebody waits for this CPU to flush its TLB.
    pub const TLB: u8 = 0xfa;
    /// Somebody has left a call in this CPU's inbox.
    pub const CALL: u8 = 0xfb;
    /// Somebody has given this CPU a thread to run, or wants it to let one go.
    pub const RESCHEDULE: u8 = 0xfd;
    /// The APIC found an error.
    pub const ERROR: u8 = 0xfe;
    /// An interrupt went away before it was delivered; no end of interrupt is due.
    pub const SPURIOUS: u8 = 0xff;
}

const BASE_MSR: u32 = 0x1b;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Registers by their offset.
mod register {
    pub(super) const ID: u32 = 0x20;
    pub(super) const TASK_PRIORITY: u32 = 0x80;
    pub(super) const EOI: u32 = 0xb0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const ERROR_STATUS: u32 = 0x280;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const COMMAND_TARGET: u32 = 0x310;
    pub(super) const LVT_TIMER: u32 = 0x320;
    pub(super) const LVT_LINT0: u32 = 0x350;
    pub(super) const LVT_LINT1: u32 = 0x360;
    pub(super) const LVT_ERROR: u32 = 0x370;
    pub(super) const TIMER_INITIAL: u32 = 0x380;
    pub(super) const TIMER_CURRENT: u32 = 0x390;
    pub(super) const TIMER_DIVIDE: u32 = 0x3e0;
}

const SOFTWARE_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const DIVIDE_BY_16: u32 = 3;
const DELIVERY_PENDING: u32 = 1 << 12;
const LEVEL_ASSERT: u32 = 1 << 14;

/// How often a pending delivery is looked at before it counts as stuck.
const PATIENCE: u32 = 1_000_000;
/// The timer is measured for a second divided by this.
const CALIBRATION: u64 = 200;

/// Where the registers are mapped; set once an APIC is in use.
static REGISTERS: Once<u64> = Once::new();
/// Ticks of the timer per second.
static TIMER_RATE: Once<u64> = Once::new();

/// Why there is no local APIC to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicError {
    /// CPUID says that there is none.
    Missing,
    /// The firmware has switched it to x2APIC mode.
    X2Apic,
    /// Its registers cannot be mapped.
    OutOfReach(u64),
}

impl fmt::Display for ApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the CPU has no local APIC"),
            Self::X2Apic => f.write_str("the firmware left the local APICs in x2APIC mode"),
            Self::OutOfReach(at) => {
                write!(f, "the local APIC's registers at {at:#x} are not mapped")
            }
        }
    }
}

/// An interrupt could not be sent: the one before it is still on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an interrupt to another CPU was not delivered")
    }
}

/// What to send to another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An interrupt.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Stop, and wait for a start-up message.
    Init,
    /// Start in real mode, in the page with this number.
    StartUp(u8),
}

impl Message {
    /// The low word of the interrupt command register.
    const fn command(self) -> u32 {
        let [mode, vector] = match self {
            Self::Interrupt(vector) => [0, vector],
            Self::Nmi => [4, 0],
            Self::Init => [5, 0],
            Self::StartUp(page) => [6, page],
        };
        u32::from_le_bytes([vector, mode, 0, 0]) | LEVEL_ASSERT
    }
}

/// Switches the boot CPU's APIC on.
///
/// # Errors
/// [`ApicError`]; the kernel then runs on this CPU alone and has no timer.
pub(crate) fn init() -> Result<(), ApicError> {
    if cpu::cpuid(1).edx & (1 << 9) == 0 {
        return Err(ApicError::Missing);
    }
    // SAFETY: a CPU with an APIC and MSRs, which `cpu::check` asks for, has this one.
    let base = unsafe { Msr::new(BASE_MSR).read() };
    if base & BASE_X2APIC != 0 {
        return Err(ApicError::X2Apic);
    }
    let physical = base & BASE_ADDRESS;
    if physical == 0 {
        return Err(ApicError::OutOfReach(physical));
    }
    let registers = fixmap::map_device(fixmap::Slot::LocalApic, PhysAddr::new(physical));
    let registers = registers.ok_or(ApicError::OutOfReach(physical))?;
    REGISTERS.call_once(|| registers);
    // SAFETY: the handlers take no lock that code with interrupts on holds, and leave the frame.
    unsafe { set_handler(vector::CALL, Some(on_call)) };
    // SAFETY: as above.
    unsafe { set_handler(vector::TLB, Some(on_tlb)) };
    // SAFETY: as above.
    unsafe { set_handler(vector::TIMER, Some(on_timer)) };
    // SAFETY: as above.
    unsafe { set_handler(vector::RESCHEDULE, Some(on_reschedule)) };
    // SAFETY: as above.
    unsafe { set_handler(vector::ERROR, Some(on_error)) };
    // SAFETY: as above.
    unsafe { set_handler(vector::SPURIOUS, Some(|_| Handled::Yes)) };
    enable();
    Ok(())
}

/// Whether this machine has an APIC that the kernel uses.
#[must_use]
pub fn is_in_use() -> bool {
    REGISTERS.is_completed()
}

/// Switches the current CPU's APIC on: every local source masked but errors.
pub(super) fn enable() {
    let mut base = Msr::new(BASE_MSR);
    // SAFETY: the register exists (`init`).
    let value = unsafe { base.read() };
    // SAFETY: sets the enable bit and keeps the address.
    unsafe { base.write(value | BASE_ENABLE) };

    write(register::TASK_PRIORITY, 0);
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vector::TIMER));
    // The PICs are masked, and an NMI button is wired to the boot CPU at most.
    write(register::LVT_LINT0, LVT_MASKED);
    write(register::LVT_LINT1, LVT_MASKED);
    write(register::LVT_ERROR, u32::from(vector::ERROR));
    write(register::ERROR_STATUS, 0);
    write(
        register::SPURIOUS,
        SOFTWARE_ENABLE | u32::from(vector::SPURIOUS),
    );
}

/// The current CPU's identifier; 0 without an APIC.
#[must_use]
pub fn id() -> u32 {
    read(register::ID) >> 24
}

/// Tells the APIC that the interrupt being handled is done with.
pub(super) fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// Sends a message to the CPU with an identifier.
///
/// # Errors
/// The APIC did not get the message, or the one before it, out.
pub(super) fn send(apic_id: u32, message: Message) -> Result<(), Stuck> {
    // The two words belong together, whatever a handler sends.
    let _irq = IrqGuard::new();
    wait_for_delivery()?;
    write(register::COMMAND_TARGET, apic_id.wrapping_shl(24));
    write(register::COMMAND, message.command());
    wait_for_delivery()
}

/// Has a CPU look at its queue of threads.
///
/// # Errors
/// As for any message: the interrupt did not get out.
pub(crate) fn send_reschedule(apic_id: u32) -> Result<(), Stuck> {
    send(apic_id, Message::Interrupt(vector::RESCHEDULE))
}

fn wait_for_delivery() -> Result<(), Stuck> {
    for _ in 0..PATIENCE {
        if read(register::COMMAND) & DELIVERY_PENDING == 0 {
            return Ok(());
        }
        spin_loop();
    }
    Err(Stuck)
}

fn on_call(_: &mut TrapFrame) -> Handled {
    // First: a call that comes while the others are served must raise a new interrupt.
    end_of_interrupt();
    smp::call::serve();
    Handled::Yes
}

fn on_tlb(_: &mut TrapFrame) -> Handled {
    // As above.
    end_of_interrupt();
    crate::memory::tlb::catch_up();
    Handled::Yes
}

fn on_timer(_: &mut TrapFrame) -> Handled {
    end_of_interrupt();
    crate::sched::tick::on_timer();
    Handled::Yes
}

fn on_reschedule(_: &mut TrapFrame) -> Handled {
    end_of_interrupt();
    crate::sched::tick::on_reschedule();
    Handled::Yes
}

fn on_error(_: &mut TrapFrame) -> Handled {
    // Writing latches what happened; counted, and shown in /proc/interrupts.
    write(register::ERROR_STATUS, 0);
    end_of_interrupt();
    Handled::Yes
}

/// Ticks of the timer per second, measured against the TSC the first time.
///
/// # Context
/// Any but NMI, on a CPU whose timer does not run; the first time takes five milliseconds.
#[must_use]
pub fn timer_rate() -> u64 {
    *TIMER_RATE.call_once(measure_timer)
}

fn measure_timer() -> u64 {
    let _irq = IrqGuard::new();
    let window = time::rate()
        .unwrap_or(NS_PER_SECOND)
        .checked_div(CALIBRATION)
        .unwrap_or(1);
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vector::TIMER));
    write(register::TIMER_DIVIDE, DIVIDE_BY_16);
    write(register::TIMER_INITIAL, u32::MAX);
    let start = time::tsc();
    while time::tsc().wrapping_sub(start) < window {
        spin_loop();
    }
    let left = read(register::TIMER_CURRENT);
    let took = time::tsc().wrapping_sub(start).max(1);
    write(register::TIMER_INITIAL, 0);
    let ticks = u128::from(u32::MAX.wrapping_sub(left));
    let rate = ticks
        .saturating_mul(u128::from(time::rate().unwrap_or(NS_PER_SECOND)))
        .checked_div(u128::from(took))
        .unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX).max(1)
}

/// Starts the current CPU's timer: interrupt [`vector::TIMER`] comes once, after `ns` nanoseconds,
/// which is cut to what the timer can count (about a minute). Without an APIC nothing happens.
///
/// # Context
/// Any but NMI, interrupts off: the timer is the scheduler's.
pub(crate) fn start_timer(ns: u64) {
    let ticks = u128::from(ns)
        .saturating_mul(u128::from(timer_rate()))
        .checked_div(u128::from(NS_PER_SECOND))
        .unwrap_or(0);
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX).max(1);
    write(register::TIMER_DIVIDE, DIVIDE_BY_16);
    write(register::LVT_TIMER, u32::from(vector::TIMER));
    write(register::TIMER_INITIAL, ticks);
}

/// Stops the current CPU's timer; an interrupt that is on its way may still come.
pub(crate) fn stop_timer() {
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vector::TIMER));
    write(register::TIMER_INITIAL, 0);
}

fn place(register: u32) -> Option<*mut u32> {
    let base = *REGISTERS.get()?;
    let address = base.wrapping_add(u64::from(register));
    Some(core::ptr::with_exposed_provenance_mut(to_usize(address)))
}

fn read(register: u32) -> u32 {
    // SAFETY: `init` checked that the registers are mapped; the ones read here have no side
    // effect.
    place(register).map_or(0, |place| unsafe { place.read_volatile() })
}

fn write(register: u32, value: u32) {
    if let Some(place) = place(register) {
        // SAFETY: as in `read`; this module is the only one that writes them, each CPU its own.
        unsafe { place.write_volatile(value) };
    }
}
