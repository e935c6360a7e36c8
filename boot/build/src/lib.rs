//! Build-time half of `boot`.
