//! `/networks`.
