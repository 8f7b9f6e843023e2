//! What can be set, by environment variables.

use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use image_streamer::{config::Carried, placeholder, session::SessionId};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// The texts as they are in the environment.
#[derive(Deserialize)]
struct Environment {
    server_url: Option<String>,
    test_session: Option<String>,
    interval_ms: Option<u64>,
    nodata_height: Option<u32>,
    nodata_aspect_ratio: Option<String>,
    mimetype: Option<String>,
    form: Option<String>,
}

/// What the tester does.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `SERVER_URL`, without name and password and without a slash at its end.
    pub(crate) server: String,
    /// The `Authorization` that its name and password make, if there are any.
    pub(crate) authorization: Option<String>,
    /// `TEST_SESSION`; without it the server is asked for a new one.
    pub(crate) session: Option<SessionId>,
    /// `INTERVAL_MS`: from one picture to the next.
    pub(crate) interval: Duration,
    /// `NODATA_HEIGHT` and `NODATA_ASPECT_RATIO`: the size of the pictures.
    pub(crate) size: placeholder::Size,
    /// JPEG or PNG, so that a server with this `MIMETYPE` takes it.
    pub(crate) format: placeholder::Format,
    /// `FORM=1`: send multipart forms.
    pub(crate) form: bool,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the variable that is wrong and what is allowed.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        // A variable that is set to nothing counts as not set.
        let set =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let env: Environment = envy::from_iter(set.filter(|(_, value)| !value.is_empty()))
            .context("INTERVAL_MS and NODATA_HEIGHT are whole numbers")?;

        let height = env.nodata_height.unwrap_or(720);
        let ratio = env.nodata_aspect_ratio.as_deref().unwrap_or("0.5625");
        let size = placeholder::parse_ratio(ratio).and_then(|ratio| placeholder::Size::from_height(height, ratio));
        let carried: Result<Carried, ()> = env.mimetype.as_deref().unwrap_or("image/jpeg").parse();
        let Ok(carried) = carried else { bail!("MIMETYPE: expected what the server's is") };
        let interval = env.interval_ms.unwrap_or(2000);
        if interval == 0 {
            bail!("INTERVAL_MS: expected milliseconds of at least 1");
        }
        let (server, authorization) = split_login(env.server_url.as_deref().unwrap_or("http://localhost:3000"));
        Ok(Self {
            server,
            authorization,
            session: env.test_session.map(|session| session.parse().context("TEST_SESSION")).transpose()?,
            interval: Duration::from_millis(interval),
            size: size.with_context(|| {
                format!("NODATA_HEIGHT={height} NODATA_ASPECT_RATIO={ratio}: expected sides of 1 to 8192 pixels and a ratio like 9/16")
            })?,
            format: carried.placeholder_format(),
            form: env.form.is_some_and(|form| matches!(form.as_str(), "1" | "true" | "yes")),
        })
    }
}

/// Takes name and password out of a URL (RFC 3986 §3.2.1), since they have to be sent without the escapes that it needs.
fn split_login(url: &str) -> (String, Option<String>) {
    let url = url.trim_end_matches('/');
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((login, _)) = authority.rsplit_once('@') else { return (url.to_owned(), None) };
    let decoded: Vec<u8> = percent_decode_str(login).collect();
    (format!("{scheme}://{}", &rest[login.len() + 1..]), Some(format!("Basic {}", BASE64_STANDARD.encode(decoded))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_password_are_taken_out_of_the_url() {
        assert_eq!(split_login("http://app:3000/"), ("http://app:3000".into(), None));
        assert_eq!(split_login("https://app/a@b"), ("https://app/a@b".into(), None));
        let (server, authorization) = split_login("https://ann%40home:a%20b@app:3000/cams/");
        assert_eq!(server, "https://app:3000/cams");
        assert_eq!(authorization.as_deref(), Some("Basic YW5uQGhvbWU6YSBi"));
    }
}
