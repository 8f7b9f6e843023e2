//! Which topics are shown, and in which sessions.

use std::str::FromStr;

use glob::{MatchOptions, Pattern};

/// How many topics are shown at once.
pub const MAX_TOPICS: usize = 256;
/// Where in a session's name the topic's name comes.
const TOPIC: &str = "{topic}";
/// The longest session id that a server takes, in bytes.
const MAX_SESSION: usize = 128;
/// A `*` stays within a part of a name.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// One `--topic`: a topic's name or a pattern of names, and the session, or how its name is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pattern: Pattern,
    /// The only topic, where the pattern is a name.
    only: Option<String>,
    session: String,
}

impl Route {
    /// The only topic of this route, with its session; `None` for a pattern.
    #[must_use]
    pub fn only(&self) -> Option<(&str, String)> {
        let topic = self.only.as_deref()?;
        Some((topic, self.session_of(topic)))
    }

    /// The session that a topic goes to by this route.
    #[must_use]
    pub fn matching(&self, topic: &str) -> Option<String> {
        self.pattern.matches_with(topic, MATCHING).then(|| self.session_of(topic))
    }

    fn session_of(&self, topic: &str) -> String {
        self.session.replace(TOPIC, &topic.trim_start_matches('/').replace('/', "."))
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, session) = text.rsplit_once('=').unwrap_or((text, TOPIC));
        let topic = topic_name(topic, |it| it.is_ascii_alphanumeric() || "_*?[]-!".contains(it))?;
        let pattern = Pattern::new(&topic).map_err(|error| format!("the pattern {topic:?}: {error}"))?;
        let is_pattern = topic.contains(['*', '?', '[']);
        if is_pattern && !session.contains(TOPIC) {
            return Err(format!(
                "{topic} may be several topics, which would get into each other's way in the session {session:?}: have {TOPIC} in its name"
            ));
        }
        let only = (!is_pattern).then(|| topic.clone());
        let route = Self { pattern, only, session: session.to_owned() };
        // A topic's own letters and dots always do.
        check_session(&session.replace(TOPIC, "t"))?;
        if let Some((_, session)) = route.only() {
            check_session(&session)?;
        }
        Ok(route)
    }
}

/// A topic's name with the slash at its beginning, which people leave out.
fn topic_name(text: &str, allowed: impl Fn(char) -> bool) -> Result<String, String> {
    let name = text.strip_prefix('/').unwrap_or(text);
    if name.is_empty() || name.split('/').any(|part| part.is_empty() || !part.chars().all(&allowed)) {
        return Err(format!(
            "{text:?} is no name of a topic: letters, digits and _ between slashes are, as in /camera/image_raw"
        ));
    }
    Ok(format!("/{name}"))
}

/// One topic's name.
///
/// # Errors
/// With the expected form, for people.
pub fn topic(text: &str) -> Result<String, String> {
    topic_name(text, |it| it.is_ascii_alphanumeric() || it == '_')
}

/// A session's id, as servers take them.
///
/// # Errors
/// With the expected form, for people.
pub fn check_session(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    let is_valid = (1..=MAX_SESSION).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != "..";
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no session: 1 to {MAX_SESSION} letters, digits and . _ @ - are"))
    }
}

/// All routes; the first that matches a topic counts.
#[derive(Clone, Debug)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// # Errors
    /// When two topics would go to one session.
    pub fn new(routes: Vec<Route>) -> Result<Self, String> {
        let only: Vec<_> = routes.iter().filter_map(Route::only).collect();
        for (at, (topic, session)) in only.iter().enumerate() {
            if at >= MAX_TOPICS {
                return Err(format!("no more than {MAX_TOPICS} topics can be shown"));
            }
            if only[..at].iter().any(|(other, _)| other == topic) {
                return Err(format!("{topic} is there twice, and can have one session only"));
            }
            if let Some((other, _)) = only[..at].iter().find(|(_, taken)| taken == session) {
                return Err(format!("{other} and {topic} would get into each other's way in the session {session:?}"));
            }
        }
        Ok(Self(routes))
    }

    /// The topics that are named, with their sessions: those that are waited for.
    pub fn named(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(Route::only)
    }

    /// The session of a topic that was found; `None` if it is not to be shown, has no session that a server would take, or one
    /// that belongs to a topic that is named.
    #[must_use]
    pub fn session_of(&self, topic: &str) -> Option<String> {
        let session = self.0.iter().find_map(|route| route.matching(topic))?;
        let is_taken = self.named().any(|(other, taken)| other != topic && taken == session);
        check_session(&session).ok().filter(|_| !is_taken)
    }

    /// Whether there are patterns, so that topics have to be looked for.
    #[must_use]
    pub fn have_patterns(&self) -> bool {
        self.0.iter().any(|route| route.only.is_none())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn routes(texts: &[&str]) -> Routes {
        Routes::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn a_topic_goes_to_its_session() {
        let routes =
            routes(&["/camera/image_raw=front", "camera/other", "/cam*/image*=robot-1.{topic}", "/f*={topic}"]);
        for (topic, session) in [
            ("/camera/image_raw", Some("front")),
            ("/camera/other", Some("camera.other")),
            ("/cam2/image_color", Some("robot-1.cam2.image_color")),
            ("/cam2/image_color/compressed", None),
            ("/left/image", None),
            ("/front", None),
        ] {
            assert_eq!(routes.session_of(topic).as_deref(), session, "{topic}");
        }
        let named: Vec<_> = routes.named().collect();
        assert_eq!(named, [("/camera/image_raw", "front".to_owned()), ("/camera/other", "camera.other".to_owned())]);
        assert!(routes.have_patterns());
    }

    #[test]
    fn two_stars_reach_into_all_parts() {
        let routes = routes(&["/**/compressed={topic}"]);
        assert_eq!(routes.session_of("/a/b/compressed").as_deref(), Some("a.b.compressed"));
        assert_eq!(routes.session_of("/a/b/raw"), None);
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (text, words) in [
            ("", "no name of a topic"),
            ("/", "no name of a topic"),
            ("/a b=c", "no name of a topic"),
            ("/a//b=c", "no name of a topic"),
            ("/a=", "no session"),
            ("/a=b/c", "no session"),
            ("/a=..", "no session"),
            ("/a*=front", "{topic}"),
            ("/a[={topic}", "pattern"),
        ] {
            let error = text.parse::<Route>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let twice = ["/a=s", "/b=s"].map(|text| text.parse().unwrap()).to_vec();
        assert!(Routes::new(twice).unwrap_err().contains("/a and /b"));
        assert!(
            "/a".parse::<Route>()
                .is_ok_and(|route| format!("/{}", "a".repeat(200)).parse::<Route>().is_err() && route.only.is_some())
        );
    }
}
