//! Which pages may open WebSockets.
//!
//! Browsers let any page do so and read everything, whatever the answer's headers say; they only tell where the page comes
//! from (RFC 6455 §10.2). So what CORS does for other routes has to be done here.

use actix_web::{
    Error as ActixError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web,
};

use crate::{config, error::Error};

/// Lets through what no browser sends, pages of this server, and pages of the origins in `CORS_ORIGINS`.
///
/// # Errors
/// [`Error::ForeignOrigin`] for all others.
pub async fn allowed_origin<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, ActixError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let allowed = request.app_data::<web::Data<config::Cors>>().map(|cors| &***cors);
    if let (Some(origin), Some(config::Cors::Only(origins))) = (header(header::ORIGIN), allowed) {
        let is_own = origin.split_once("://").map(|(_, host)| host) == header(header::HOST);
        if !is_own && !origins.iter().any(|allowed| allowed == origin) {
            return Err(Error::ForeignOrigin { origin: origin.to_owned() }.into());
        }
    }
    next.call(request).await
}
