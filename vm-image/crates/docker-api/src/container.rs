//! `/containers`.
