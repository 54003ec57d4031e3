use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::client::{ClientError, ErrorBody, ErrorCode};

/// A failed call: JSON `{error, fix, code, exit}` with a fitting status.
pub(super) struct ApiError(pub(super) ClientError);

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        ApiError(error)
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        let fix = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "send smaller bodies",
            _ => "",
        };
        ApiError(ClientError::new(ErrorCode::Usage, rejection.body_text(), fix))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(ErrorBody::from(&self.0))).into_response()
    }
}

const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Usage => StatusCode::BAD_REQUEST,
        ErrorCode::WrongKey => StatusCode::UNAUTHORIZED,
        ErrorCode::Budget => StatusCode::PAYMENT_REQUIRED,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Exists => StatusCode::CONFLICT,
        ErrorCode::Fatal => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::NoRoute | ErrorCode::Unreachable | ErrorCode::Severed | ErrorCode::Verification => {
            StatusCode::BAD_GATEWAY
        }
        ErrorCode::Retryable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Other | ErrorCode::PortInUse | ErrorCode::CorruptStore | ErrorCode::Foreign => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
