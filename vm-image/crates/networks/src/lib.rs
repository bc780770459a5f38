//! Drivers, addresses, published ports.
