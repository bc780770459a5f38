//! `/images`.
