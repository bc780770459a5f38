//! The guest's only unsafe.
