//! The guest's only unsafe.

pub mod netns;
