//! Errors as answers: each gets its status here and nowhere else.

use actix_cors::CorsError;
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
};

use super::guard::{is_navigation, login_address};
use crate::{error::Error, ui, wire::error_body::ErrorBody};

/// When a client may try again, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// How to log in where no page can be shown (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"Image Streamer\", charset=\"UTF-8\"";
/// The same with an API key (RFC 6750), for which no browser has a dialog.
const KEY_CHALLENGE: &str = "Bearer realm=\"Image Streamer\"";

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadSession
            | Self::BadTimestamp
            | Self::BadQuery { .. }
            | Self::BadMessage { .. }
            | Self::TooManySubscriptions { .. }
            | Self::EmptyBody
            | Self::BodyCutOff
            | Self::NoFile
            | Self::TooManyFiles
            | Self::BadMultipart(_)
            | Self::BadLink(_)
            | Self::UnknownClient
            | Self::BadForm => StatusCode::BAD_REQUEST,
            Self::LoginNeeded | Self::AuthenticateFirst | Self::BadCredentials | Self::BadToken => {
                StatusCode::UNAUTHORIZED
            }
            Self::BodyStalled { .. } | Self::StreamStalled { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } | Self::CommandTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotWebSocket(_) => StatusCode::UPGRADE_REQUIRED,
            Self::CrossSite { .. }
            | Self::Forbidden { .. }
            | Self::AdminNeeded
            | Self::UserNeeded
            | Self::RightEnded => StatusCode::FORBIDDEN,
            Self::TooManyLogins { .. } | Self::ClientLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TakenOver
            | Self::NoVehicle
            | Self::NotDriving { .. }
            | Self::WheelTaken { .. }
            | Self::LeaseEnded { .. }
            | Self::PollReplaced => StatusCode::CONFLICT,
            Self::NoAsset => StatusCode::NOT_FOUND,
            Self::NoConnection => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotAnImage { .. } | Self::NotAStream(_) | Self::WrongType { .. } | Self::WrongContentType => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Busy { .. }
            | Self::LoginsWait { .. }
            | Self::TooManySessions { .. }
            | Self::TooManyPhones { .. }
            | Self::CommandLate { .. }
            | Self::ControlFull { .. }
            | Self::Prefetch
            | Self::StoreUnavailable(_)
            | Self::StoreFull(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        tracing::debug!(code = self.code(), error = %self, cause = std::error::Error::source(self), "refused");
        let mut response = answer(status, self.code(), self.to_string());
        match self {
            Self::TooManyLogins { retry_after } | Self::LoginsWait { retry_after } => {
                response.headers_mut().insert(header::RETRY_AFTER, retry_after.as_secs().into());
            }
            _ if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            }
            _ => {}
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            response.head_mut().set_connection_type(ConnectionType::Close);
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

fn answer(status: StatusCode, code: &str, message: String) -> HttpResponse {
    HttpResponse::build(status).insert_header((header::CACHE_CONTROL, "no-store")).json(ErrorBody::new(code, message))
}

/// Gives errors the form that suits whoever asks: a person who has followed a link sees a page; a page's own script is not
/// answered by the browser's dialog for passwords, but can tell itself what there is to do; a preflight that the CORS layer
/// refuses is told as every other error is.
///
/// # Errors
/// The service's own.
pub async fn as_asked<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let mut response = next.call(request).await?;
    let Some(error) = response.response().error() else { return Ok(response.map_into_left_body()) };
    if let Some(refused) = error.as_error::<CorsError>() {
        let refused = answer(StatusCode::BAD_REQUEST, "bad_preflight", refused.to_string());
        return Ok(response.into_response(refused.map_into_right_body()));
    }
    if let Some(error) = error.as_error::<Error>().filter(|_| is_navigation(response.request().head())) {
        let page = page_of(error, response.request(), response.headers());
        return Ok(response.into_response(page.map_into_right_body()));
    }
    if response.headers().contains_key(header::WWW_AUTHENTICATE) && is_script(response.request().headers()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(KEY_CHALLENGE));
    }
    Ok(response.map_into_left_body())
}

/// An error as a page, with what its answer as JSON has in its head for the browser.
fn page_of(error: &Error, request: &HttpRequest, head: &HeaderMap) -> HttpResponse {
    let status = error.status_code();
    let may_help = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let login = may_help.then(|| login_address(request));
    let mut page = ui::error_page(request, status, &error.to_string(), login.as_deref());
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        // A browser answers the challenge with a form of its own: only where that is how it has logged in.
        let is_wanted = name != header::WWW_AUTHENTICATE || matches!(error, Error::BadCredentials);
        if let Some(value) = head.get(&name).filter(|_| is_wanted) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// Whether a page's script asks: it says so, or it opens a WebSocket, for which browsers tell the page's origin.
fn is_script(headers: &HeaderMap) -> bool {
    headers.contains_key(HeaderName::from_static("x-requested-with"))
        || (headers.contains_key(header::UPGRADE) && headers.contains_key(header::ORIGIN))
}

/// The answer to paths that lead nowhere.
pub(super) async fn no_route(request: HttpRequest) -> HttpResponse {
    let message = format!("there is nothing at {}: GET /openapi.json describes every route", request.path());
    match is_navigation(request.head()) {
        true => ui::error_page(&request, StatusCode::NOT_FOUND, &message, None),
        false => answer(StatusCode::NOT_FOUND, "not_found", message),
    }
}

/// The answer to methods that a path does not have.
pub(super) fn wrong_method(methods: &str) -> HttpResponse {
    let message = format!("this route answers to {methods}");
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    if let Ok(methods) = HeaderValue::from_str(methods) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}
