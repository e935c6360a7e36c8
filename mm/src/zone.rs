//! Nodes and zones.
#![forbid(unsafe_code)]

mod kind;
pub mod plan;

pub use kind::ZoneKind;
