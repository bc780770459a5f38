//! The Docker Engine API's types.
