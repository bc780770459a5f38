//! References, content store, layers.
