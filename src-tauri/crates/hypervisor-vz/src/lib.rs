//! The vz backend.
