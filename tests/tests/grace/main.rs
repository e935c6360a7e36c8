//! Grace periods, and pages for contexts that must not wait.

mod nmi;
mod periods;
