//! OCI spec to running process.
