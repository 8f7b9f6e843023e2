//! What a client wants to be answered with.

/// Whether the client asked for JSON. Handlers take it as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantsJson(pub bool);

impl WantsJson {
    /// Reads an `Accept` header: it names `application/json`, or `application.json` as old clients wrote it.
    #[must_use]
    pub fn read(accept: &str) -> Self {
        Self(accept.split(',').any(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let named = kind.eq_ignore_ascii_case("application/json") || kind.eq_ignore_ascii_case("application.json");
            let refused = parts.any(|parameter| {
                let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                quality.is_some_and(|quality| quality.parse::<f32>() == Ok(0.0))
            });
            named && !refused
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::WantsJson;

    #[test]
    fn json_is_wanted_where_it_is_named_and_not_refused() {
        for accept in [
            "application/json",
            "application.json",
            "text/html, Application/JSON;q=0.9",
            "application/json; charset=utf-8",
        ] {
            assert_eq!(WantsJson::read(accept), WantsJson(true), "{accept}");
        }
        for accept in ["", "*/*", "text/html", "application/json;q=0", "application/jsonx", "image/*"] {
            assert_eq!(WantsJson::read(accept), WantsJson(false), "{accept}");
        }
    }
}
