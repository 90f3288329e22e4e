//! Tidegate.
pub mod engine;
pub mod repo;
pub mod secret;
pub mod source;
