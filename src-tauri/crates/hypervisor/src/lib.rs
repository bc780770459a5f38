//! What a hypervisor backend must do.
