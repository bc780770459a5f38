//! The qemu backend.
