//! Git repositories: one bare copy per remote, asked for revisions and read without a working tree.

pub mod error;
pub mod url;

pub use error::RepoError;
