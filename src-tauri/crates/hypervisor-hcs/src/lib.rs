//! The hcs backend.
