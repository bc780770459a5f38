//! The life of the machine.
