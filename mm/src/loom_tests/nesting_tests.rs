//! What an interrupt or NMI finds of an [`OwnerCell`], whatever the compiler makes of its source.
//!
//! On one CPU a nested context comes between two instructions and is gone before the next. The
//! instructions come in the order of the source only as far as the language says so: accesses of different
//! places may change places unless a compiler fence stands between them, and a value may be read before it
//! is known that it is needed. The model takes note of what the cell's own code does, makes every order
//! that is allowed of it, and puts a nested context at every place in each. No compiler shows
//! most of these orders; it is free to.

use loom::sync::Arc;

use crate::sync::OwnerCell;
use crate::sync::recorded_for_tests::{Step, note, take};

/// What the owner does: enters, adds one, leaves, and looks whether it is to drain.
fn steps() -> Vec<Step> {
    let found = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let out = std::sync::Arc::clone(&found);
    loom::model(move || {
        let cell = Arc::new(OwnerCell::new(0_u32, ()));
        take();
        // SAFETY: one thread.
        let mut entered = unsafe { cell.enter() }.unwrap();
        *entered.parts().0 += 1;
        note(Step::Read);
        note(Step::Write);
        drop(entered);
        let _ = cell.is_drain_wanted();
        *out.lock().unwrap() = take();
    });
    found.lock().unwrap().clone()
}

/// Whether `later` may not come before `earlier`, which stands before it in the source.
fn is_bound(earlier: Step, later: Step) -> bool {
    match (earlier, later) {
        (Step::Fence, _) | (_, Step::Fence) | (Step::Read, Step::Write) => true,
        // Nothing is written on the strength of a guess.
        (Step::Load(_), Step::Store(..) | Step::Write) => true,
        (Step::Load(one) | Step::Store(one, _), Step::Load(other) | Step::Store(other, _)) => {
            one == other
        }
        (Step::Read | Step::Write, Step::Read | Step::Write) => true,
        _ => false,
    }
}

/// Every order that the steps may come in.
fn orders(rest: &[Step], order: &mut Vec<Step>, each: &mut impl FnMut(&[Step])) {
    if rest.is_empty() {
        return each(order);
    }
    for (place, &step) in rest.iter().enumerate() {
        if rest[..place]
            .iter()
            .all(|&earlier| !is_bound(earlier, step))
        {
            let mut left = rest.to_vec();
            order.push(left.remove(place));
            orders(&left, order, each);
            order.pop();
        }
    }
}

/// Runs an order with a nested context before the step `at`. It adds one as well if it finds the cell
/// free, and wants it drained otherwise. Answers whether something went wrong.
fn fails(order: &[Step], at: usize, (busy_place, drain_place): (usize, usize)) -> bool {
    let (mut busy, mut drain, mut value, mut register) = (false, false, 0, 0);
    let (mut wanted, mut is_seen) = (1, false);
    for (place, step) in order.iter().enumerate() {
        if place == at {
            if busy {
                drain = true;
            } else {
                value += 1;
                wanted = 2;
            }
        }
        match *step {
            Step::Store(flag, set) if flag == busy_place => busy = set,
            Step::Load(flag) if flag == drain_place => is_seen = drain,
            Step::Read => register = value,
            Step::Write => value = register + 1,
            _ => {}
        }
    }
    value != wanted || drain != is_seen || busy
}

#[test]
fn a_nested_context_finds_the_value_whole_or_the_cell_busy_in_every_order_of_steps() {
    let steps = steps();
    println!("{steps:?}");
    let places = steps.iter().filter_map(|step| match step {
        Step::Load(place) => Some(*place),
        _ => None,
    });
    let places: Vec<_> = places.collect();
    let [busy, drain] = places[..] else {
        panic!("the owner looks at two flags, not {places:?}");
    };
    let mut count = 0;
    orders(&steps, &mut Vec::new(), &mut |order| {
        count += 1;
        for at in 0..order.len() {
            assert!(
                !fails(order, at, (busy, drain)),
                "before step {at} of {order:?}"
            );
        }
    });
    assert!(count > 0);
}

/// The model can fail: without fences some orders lose what a nested context did.
#[test]
fn without_fences_some_order_fails() {
    let steps: Vec<_> = steps()
        .into_iter()
        .filter(|step| *step != Step::Fence)
        .collect();
    let flag = |step: &Step| match step {
        Step::Load(place) => Some(*place),
        _ => None,
    };
    let places: Vec<_> = steps.iter().filter_map(flag).collect();
    let mut failed = 0;
    orders(&steps, &mut Vec::new(), &mut |order| {
        let places = (places[0], places[1]);
        failed += usize::from((0..order.len()).any(|at| fails(order, at, places)));
    });
    assert!(failed > 0);
}
