//! Tidegate.
pub mod engine;
pub mod repo;
pub mod secret;
pub mod source;
pub mod diff;
pub mod glob;
pub mod normalize;
pub mod object;
pub mod tracking;
pub mod cache;
pub mod health;
pub mod project;
pub mod sync;
pub mod window;
pub mod render;
pub mod webhook;
