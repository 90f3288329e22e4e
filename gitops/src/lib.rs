//! Tidegate.
pub mod engine;
pub mod repo;
pub mod secret;
pub mod source;
pub mod cache;
pub mod render;
pub mod webhook;
