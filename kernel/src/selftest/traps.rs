//! Exceptions and interrupts: taken, reported, survived.
#![expect(
    unsafe_code,
    reason = "provoking an exception abandons the code that raised it"
)]

use crate::arch::expect::{ExpectError, Fault, expect_fault};
use crate::arch::pin::Pin;
use crate::arch::step::single_step;
use crate::arch::trap::{self, Handled, TrapFrame, vector};
use crate::arch::{idt, irq, local, probe};
use crate::ktest::Failure;
use crate::{ktest, ktest_assert, ktest_eq};
use core::sync::atomic::{AtomicU64, Ordering};

/// An address in the hole below the direct map: nothing is mapped there in any layout.
const HOLE: u64 = 0xffff_8000_0012_3456;

fn fault_of(vector: u8, body: impl FnOnce()) -> Result<Fault, Failure> {
    // SAFETY: the bodies used here own nothing and only execute the one faulting instruction.
    unsafe { expect_fault(vector, body) }.map_err(Failure::new)
}

fn read(address: u64) {
    // SAFETY: the tests pass addresses that fault.
    unsafe { probe::touch(address) };
}

fn write(address: u64) {
    // SAFETY: the tests pass addresses that fault.
    unsafe { probe::poke(address) };
}

/// What a write to an address raises.
pub(super) fn fault_of_a_write(address: u64) -> Result<Fault, Failure> {
    fault_of(vector::PAGE_FAULT, || write(address))
}

/// An undefined instruction while a pin is held that will not be dropped.
pub(super) fn fault_under_a_pin() -> Result<Fault, Failure> {
    fault_of(vector::INVALID_OPCODE, || {
        let _pin = Pin::new();
        probe::undefined();
    })
}

ktest! {
    fn every_vector_has_a_handler_on_an_interrupt_stack() {
        ktest_eq!(idt::complete_vectors(), 256);
        Ok(())
    }

    fn a_breakpoint_returns() {
        let before = local::current().count(vector::BREAKPOINT);
        probe::breakpoint();
        ktest_eq!(local::current().count(vector::BREAKPOINT), before.saturating_add(1));
        Ok(())
    }

    fn every_interrupt_vector_returns_and_is_counted() {
        for vector in vector::FIRST_INTERRUPT..=u8::MAX {
            // None from outside comes in between.
            let masked = irq::IrqGuard::new();
            let before = local::current().count(vector);
            let returned = probe::software_interrupt(vector);
            let after = local::current().count(vector);
            drop(masked);
            ktest_assert!(returned);
            ktest_eq!(after, before.saturating_add(1));
        }
        Ok(())
    }

    fn a_software_interrupt_without_its_error_code_is_refused() {
        ktest_assert!(!probe::software_interrupt(vector::PAGE_FAULT));
        ktest_assert!(!probe::software_interrupt(vector::DOUBLE_FAULT));
        Ok(())
    }

    fn red_zone_and_registers_survive_an_interrupt() {
        fn handler(_: &mut TrapFrame) -> Handled {
            probe::clobber_sse();
            Handled::Yes
        }
        // SAFETY: the handler takes no lock and leaves the frame alone.
        unsafe { trap::set_handler(probe::PROBE_VECTOR, Some(handler)) };
        let changed = (
            probe::words_changed_by_interrupt(),
            probe::registers_changed_by_interrupt(),
        );
        // SAFETY: taking a handler away is always possible.
        unsafe { trap::set_handler(probe::PROBE_VECTOR, None) };
        ktest_eq!(changed, (0, 0));
        Ok(())
    }

    fn an_expected_invalid_opcode_comes_back() {
        let fault = fault_of(vector::INVALID_OPCODE, probe::undefined)?;
        ktest_eq!(fault.error_code, 0);
        ktest_assert!(fault.rip > 0xffff_8000_0000_0000);
        Ok(())
    }

    fn an_expected_page_fault_tells_address_and_kind() {
        let fault = fault_of(vector::PAGE_FAULT, || read(HOLE))?;
        ktest_eq!((fault.address, fault.error_code), (HOLE, 0));
        let fault = fault_of(vector::PAGE_FAULT, || write(HOLE))?;
        ktest_eq!((fault.address, fault.error_code), (HOLE, 2));
        Ok(())
    }

    fn a_non_canonical_address_is_a_general_protection_fault() {
        let fault = fault_of(vector::GENERAL_PROTECTION, || read(0x8000_0000_0000_0000))?;
        ktest_eq!(fault.error_code, 0);
        Ok(())
    }

    fn expectations_that_do_not_come_true_are_errors() {
        // SAFETY: the body does nothing at all.
        let result = unsafe { expect_fault(vector::PAGE_FAULT, || ()) };
        ktest_eq!(result, Err(ExpectError::NoFault));
        // And the expectation is over: the same one works again.
        fault_of(vector::PAGE_FAULT, || read(HOLE))?;
        Ok(())
    }

    fn guard_pages_guard() {
        for (name, stack) in local::current().stacks() {
            for address in [stack.guard, stack.bottom.saturating_sub(1)] {
                let fault = fault_of(vector::PAGE_FAULT, || write(address))
                    .map_err(|error| Failure::new(format_args!("{name} stack: {error}")))?;
                ktest_eq!((fault.address, fault.error_code), (address, 2));
            }
            // The first word above the guard is part of the stack.
            ktest_assert!(stack.read_word(stack.bottom).is_some());
            ktest_assert!(stack.read_word(stack.bottom.saturating_sub(8)).is_none());
        }
        Ok(())
    }

    fn tests_run_on_the_main_stack() {
        let here = crate::arch::registers::stack_pointer();
        ktest_assert!(local::current().main_stack().holds(here, 8));
        Ok(())
    }

    fn a_registered_handler_is_called_with_the_frame() {
        static SEEN: AtomicU64 = AtomicU64::new(0);
        fn handler(frame: &mut TrapFrame) -> Handled {
            SEEN.store(frame.vector, Ordering::Relaxed);
            Handled::Yes
        }
        // SAFETY: the handler takes no lock and leaves the frame alone.
        unsafe { trap::set_handler(0xe0, Some(handler)) };
        ktest_assert!(probe::software_interrupt(0xe0));
        // SAFETY: taking a handler away is always possible.
        unsafe { trap::set_handler(0xe0, None) };
        ktest_eq!(SEEN.load(Ordering::Relaxed), 0xe0);
        Ok(())
    }

    fn single_stepping_stops_after_every_instruction() {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        static NOPS: AtomicU64 = AtomicU64::new(0);
        fn handler(frame: &mut TrapFrame) -> Handled {
            STEPS.fetch_add(1, Ordering::Relaxed);
            if probe::is_in_thirty_nops(frame.rip) {
                NOPS.fetch_add(1, Ordering::Relaxed);
            }
            Handled::Yes
        }
        STEPS.store(0, Ordering::Relaxed);
        NOPS.store(0, Ordering::Relaxed);
        // SAFETY: the handler takes no lock and leaves the frame alone.
        let result = unsafe { single_step(handler, || { probe::thirty_nops(); 7 }) };
        ktest_eq!(result, 7);
        // The first of the thirty is stepped to from the call, so each is stopped at once.
        ktest_eq!(NOPS.load(Ordering::Relaxed), 30);
        // And nothing is stepped any more.
        let steps = STEPS.load(Ordering::Relaxed);
        probe::thirty_nops();
        ktest_eq!(STEPS.load(Ordering::Relaxed), steps);
        Ok(())
    }

    fn interrupt_guards_nest() {
        let outer = irq::save();
        let inner = irq::save();
        ktest_assert!(!inner.were_enabled());
        irq::restore(inner);
        let still_off = irq::save();
        ktest_assert!(!still_off.were_enabled());
        irq::restore(still_off);
        irq::restore(outer);
        ktest_assert!(irq::without(|| true));
        Ok(())
    }
}
