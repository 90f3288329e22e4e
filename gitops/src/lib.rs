//! Tidegate.
pub mod cache;
pub mod diff;
pub mod engine;
pub mod glob;
pub mod health;
pub mod normalize;
pub mod object;
pub mod project;
pub mod render;
pub mod repo;
pub mod secret;
pub mod source;
pub mod sync;
pub mod tracking;
pub mod webhook;
pub mod window;
