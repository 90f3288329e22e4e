//! The engine: from an Application's sources to manifests, at a cost that follows what a commit changed.
//!
//! The application controller calls three things (all `&self`, all safe to call concurrently):
//!
//! - `Engine::manifests(&ManifestRequest) -> Result<Manifests, SourceError>`
//! - `Engine::set_repositories(Repositories)` whenever a repository Secret or a trust ConfigMap changed
//! - `Engine::invalidate(&str)` when a webhook says that a repository has news

mod request;

pub use request::{Freshness, ManifestRequest, Manifests, RevisionMetadata, SourceManifests};
