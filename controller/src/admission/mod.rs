//! The validating admission webhook: a mistake is refused when an object is applied, not found when it is reconciled.
//!
//! [`problems`] says what is wrong with an object by itself; `lint` uses it as well. [`review`] answers an
//! AdmissionReview. Both are pure, so that an answer needs no cluster and takes no time. [`serve`] puts them behind TLS,
//! on every replica, whether it leads or stands by.

mod certificates;
mod check;
mod review;
mod server;

pub use certificates::CertificateError;
pub use check::{Finding, problems};
pub use review::{Unreadable, review};
pub use server::serve;
