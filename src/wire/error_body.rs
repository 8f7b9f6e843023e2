//! The JSON of every error: `{"error":{"code","message"}}`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;

/// The form of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A stable name for programs.
    #[schema(example = "not_an_image")]
    code: String,
    /// For people: what was wrong, the limit or the expected form, and what to do.
    message: String,
}

impl ErrorBody {
    /// The body for one error.
    #[must_use]
    pub fn new(code: &str, message: String) -> Self {
        Self { error: ErrorDetail { code: code.to_owned(), message } }
    }

    /// That of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
