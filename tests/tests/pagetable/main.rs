//! Page tables on a simulated machine: against a map of what should be there.

mod against_the_model;
mod basics;
mod borders;
mod check;
mod concurrency;
mod crate_x86_64;
mod failing;
mod mixed;
mod model;
mod oracle;
mod protect;
mod ranges;
mod receipts;
mod waiters;
mod walkers;
