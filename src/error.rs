//! Everything that can go wrong, as one closed enum.
//!
//! It knows no HTTP: [`crate::http`] gives each error its status. [`Error::code`] is part of the public contract, so a
//! code is never renamed; the message may be reworded.

use std::time::Duration;

use bytesize::ByteSize;

use crate::{frame::ImageType, session::SessionId};

/// Why a request was refused or could not be carried out.
///
/// The message (`Display`) names what was wrong, the limit or the expected form, and what to do. It never holds the
/// cause inside the server: that goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A session id outside `[A-Za-z0-9._@-]{1,128}`, or `.` or `..`.
    #[error(
        "the session id is not valid: use 1 to {max} characters of A-Z a-z 0-9 . _ @ -, and neither \".\" nor \"..\"; \
         GET /session makes one",
        max = crate::session::MAX_SESSION_LENGTH
    )]
    BadSession,

    /// An `X-Timestamp` header that is not a finite number of seconds ≥ 0.
    #[error("X-Timestamp is not valid: expected seconds since 1970 as a number of at least 0, like 1700000000.123456")]
    BadTimestamp,

    /// A query parameter with a value outside its range.
    #[error("the query parameter {name} is not valid: expected {expected}")]
    BadQuery {
        /// The parameter's name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },

    /// A request for a WebSocket route that is no WebSocket handshake.
    #[error("this route is for WebSockets: connect with ws:// or wss:// ({0})")]
    NotWebSocket(String),

    /// A page of another site wants what only this server's own pages, or those in `CORS_ORIGINS`, may do.
    #[error(
        "pages of {origin} may not do this here: CORS_ORIGINS lists the origins that may, PUBLIC_URL is this server's own"
    )]
    CrossSite {
        /// Where the page comes from.
        origin: String,
    },

    /// A request without credentials that needs some.
    #[error(
        "log in first: with user name and password (HTTP Basic), an API key (Authorization: Bearer), at /login, or through \
         a link with a token"
    )]
    LoginNeeded,

    /// A picture over Socket.IO before `authenticate`, or after it was refused.
    #[error("authenticate first: emit authenticate(username, password, callbackEvent) and wait for true")]
    AuthenticateFirst,

    /// A picture of a phone whose session another now pushes to.
    #[error("another phone has connected under this name and has taken over: one at a time pushes to a session")]
    TakenOver,

    /// A request of a Socket.IO client that is not connected, or not any more.
    #[error("this client is not connected, or not any more: connect anew")]
    UnknownClient,

    /// A command where nobody listens.
    #[error(
        "no vehicle listens to this session: one does by GET /ws/control/{{session}}?role=vehicle or GET /control/{{session}}"
    )]
    NoVehicle,

    /// A command of an operator who does not hold the wheel.
    #[error(
        "{driver} is driving: one operator at a time holds the wheel; wait until it is free, or take it over with ?take=1"
    )]
    NotDriving {
        /// What is told of who does.
        driver: String,
    },

    /// The wheel has gone to another.
    #[error("{driver} has taken over the wheel: what you send is not handed on any more; ?take=1 takes it back")]
    WheelTaken {
        /// What is told of who has it.
        driver: String,
    },

    /// A vehicle was sent its stop message.
    #[error(
        "the lease of vehicle {vehicle} has run out: neither a command nor a ping came in time, so it was sent its stop message"
    )]
    LeaseEnded {
        /// Which.
        vehicle: String,
    },

    /// A command over the limit.
    #[error("the command is too large: the limit is {limit} bytes")]
    CommandTooLarge {
        /// The most that there may be.
        limit: usize,
    },

    /// A command that would have come too late.
    #[error("the command was held up for longer than COMMAND_TTL_MS ({} ms) and was not handed on: send a new one", .ttl.as_millis())]
    CommandLate {
        /// `COMMAND_TTL_MS`.
        ttl: Duration,
    },

    /// One more vehicle or operator than there may be.
    #[error("too many vehicles or operators on this session: the limit is {limit}; try again when one has left")]
    ControlFull {
        /// How many there may be.
        limit: usize,
    },

    /// Another poll of the same vehicle has come.
    #[error(
        "the same vehicle polls again: only the latest poll is answered; give each vehicle a name of its own with ?vehicle="
    )]
    PollReplaced,

    /// One more Socket.IO client than there may be.
    #[error("too many Socket.IO clients: the limit is {limit}; try again later")]
    TooManyPhones {
        /// How many there may be.
        limit: usize,
    },

    /// Credentials that nobody has.
    #[error("user name, password or key is wrong")]
    BadCredentials,

    /// A token that was changed, has run out, or whose maker has lost the right.
    #[error("the token is not valid, has run out, or its maker may not do this any more: ask for a new link")]
    BadToken,

    /// A user or a link without the right.
    #[error(
        "the right {right} on session {session} is missing: an admin gives it (image-streamer user), or a link carries it"
    )]
    Forbidden {
        /// The right.
        right: &'static str,
        /// The session, as it was named.
        session: SessionId,
    },

    /// Something for admins.
    #[error("the right admin is missing: only admins may do this")]
    AdminNeeded,

    /// Something for users that a link was used for.
    #[error("a link is not enough for this: log in as a user")]
    UserNeeded,

    /// Too many failed logins of late, or very many that did not fail.
    #[error("too many logins of late, or too many that failed: try again in {} s", .retry_after.as_secs())]
    TooManyLogins {
        /// When the next one is looked at.
        retry_after: Duration,
    },

    /// Too many logins wait to be looked at.
    #[error("too many logins wait for their turn: try again in {} s", .retry_after.as_secs())]
    LoginsWait {
        /// When there is room again, as a rule.
        retry_after: Duration,
    },

    /// What was going on when the right to it ended.
    #[error("the login, the link or the right that this began with has ended: log in again, or ask for a new link")]
    RightEnded,

    /// More than one client may do at once, or in a second.
    #[error("{what}: the limit for one user or address is {limit}, set by {variable}")]
    ClientLimit {
        /// What there is too much of.
        what: &'static str,
        /// The variable's value.
        limit: usize,
        /// The variable.
        variable: &'static str,
    },

    /// A request to make a link that makes no sense.
    #[error(
        "this is no request for a link: {0}; expected {{\"session\":\"…\",\"right\":\"view\",\"expires_in\":3600}} as JSON"
    )]
    BadLink(String),

    /// A login form that is none.
    #[error("this is no login form: expected the fields name (or email), password and perhaps remember, URL-encoded")]
    BadForm,

    /// A WebSocket message that means nothing here.
    #[error("the message is not understood: expected {expected}")]
    BadMessage {
        /// What it may be.
        expected: &'static str,
    },

    /// One more session than one WebSocket may watch.
    #[error("too many sessions for one WebSocket: the limit is {limit}; unsubscribe from some, or open another")]
    TooManySubscriptions {
        /// How many there may be.
        limit: usize,
    },

    /// A body that is none of the streams of pictures that are understood.
    #[error("this is no stream of pictures: {0}")]
    NotAStream(String),

    /// A stream needs the connection itself, and the request has not come over one of this server's.
    #[error("live viewing is not possible over this connection")]
    NoConnection,

    /// A part of pages that there is not.
    #[error("no page has a part of this name")]
    NoAsset,

    /// A body without a single byte.
    #[error("the body is empty: send one picture as the whole body")]
    EmptyBody,

    /// A body over `MAX_IMAGE_BYTES`.
    #[error("the picture is too large: the limit is {limit} bytes ({}), set by MAX_IMAGE_BYTES", ByteSize(*.limit as u64))]
    TooLarge {
        /// `MAX_IMAGE_BYTES`.
        limit: usize,
    },

    /// The connection ended before the body was complete, or its chunks are malformed.
    #[error("the body was cut off before its end, or its chunks are malformed: send it again")]
    BodyCutOff,

    /// No byte of the body came for a while, or the whole took too long.
    #[error("the body stalled and was cut off: {} s without a byte or {} s in all are the limits; send it again", .idle.as_secs(), .whole.as_secs())]
    BodyStalled {
        /// The longest wait for the next byte.
        idle: Duration,
        /// The longest time for a whole body.
        whole: Duration,
    },

    /// No byte of an endless body came for a while.
    #[error("the stream fell silent and was cut off: {} s without a byte is the limit; begin it again", .idle.as_secs())]
    StreamStalled {
        /// The longest wait for the next byte.
        idle: Duration,
    },

    /// Bytes that are no picture of a known type.
    #[error("this is not a picture: its first bytes are not those of {expected}")]
    NotAnImage {
        /// The types that are carried here, for the message.
        expected: String,
    },

    /// A picture of another type than the one carried here.
    #[error("wrong picture type: got {got}, expected {expected} (set by MIMETYPE)")]
    WrongType {
        /// What was sent.
        got: ImageType,
        /// The types that are carried here, for the message.
        expected: String,
    },

    /// A form request with another content type than `multipart/form-data`.
    #[error(
        "wrong content type: expected multipart/form-data, as `curl -F image=@picture.jpg` sends it; \
             POST /image/{{session}} takes the bare picture"
    )]
    WrongContentType,

    /// A form without a file.
    #[error("the form holds no file: send exactly one, as `curl -F image=@picture.jpg` does")]
    NoFile,

    /// A form with more than one file.
    #[error("the form holds more than one file: send exactly one a request")]
    TooManyFiles,

    /// A form that is cut off or malformed.
    #[error("the multipart body is not valid: {0}")]
    BadMultipart(String),

    /// Other pictures on their way in, or out, fill `MAX_INFLIGHT_BYTES`.
    #[error("busy: the pictures on their way in, those on their way out, or those that slow viewers hold fill the limit of {limit} bytes ({}), set by MAX_INFLIGHT_BYTES; try again", ByteSize(*.limit as u64))]
    Busy {
        /// `MAX_INFLIGHT_BYTES`.
        limit: usize,
    },

    /// One more session than `MAX_SESSIONS`.
    #[error(
        "too many sessions: the limit is {limit}, set by MAX_SESSIONS; one ends EXPIRE seconds after its last push \
             or by DELETE /session/{{session}}"
    )]
    TooManySessions {
        /// `MAX_SESSIONS`.
        limit: usize,
    },

    /// A browser's prefetch of something that fetching would consume.
    #[error("taking a frame consumes it, so prefetching is refused: ask again when it is wanted")]
    Prefetch,

    /// The store did not answer in time, or not at all.
    #[error("the frame store cannot be reached: try again")]
    StoreUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),

    /// The store has no room for the frame.
    #[error("the frame store is full: {0}")]
    StoreFull(&'static str),
}

impl Error {
    /// The stable code that clients may match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadSession => "bad_session",
            Self::BadTimestamp => "bad_timestamp",
            Self::BadQuery { .. } => "bad_query",
            Self::NotWebSocket(_) => "not_a_websocket",
            Self::CrossSite { .. } => "cross_site",
            Self::LoginNeeded | Self::AuthenticateFirst => "login_needed",
            Self::TakenOver => "taken_over",
            Self::NoVehicle => "no_vehicle",
            Self::NotDriving { .. } => "not_driving",
            Self::WheelTaken { .. } => "wheel_taken",
            Self::LeaseEnded { .. } => "lease_ended",
            Self::CommandTooLarge { .. } => "command_too_large",
            Self::CommandLate { .. } => "command_late",
            Self::ControlFull { .. } => "control_full",
            Self::PollReplaced => "poll_replaced",
            Self::UnknownClient => "unknown_client",
            Self::TooManyPhones { .. } => "too_many_clients",
            Self::BadCredentials => "bad_credentials",
            Self::BadToken => "bad_token",
            Self::Forbidden { .. } | Self::AdminNeeded | Self::UserNeeded => "forbidden",
            Self::TooManyLogins { .. } => "too_many_logins",
            Self::LoginsWait { .. } => "logins_wait",
            Self::RightEnded => "right_ended",
            Self::ClientLimit { .. } => "client_limit",
            Self::BadLink(_) => "bad_link",
            Self::BadForm => "bad_form",
            Self::BadMessage { .. } => "bad_message",
            Self::TooManySubscriptions { .. } => "too_many_subscriptions",
            Self::NotAStream(_) => "not_a_stream",
            Self::NoConnection => "no_connection",
            Self::NoAsset => "not_found",
            Self::EmptyBody => "empty_body",
            Self::TooLarge { .. } => "too_large",
            Self::BodyCutOff => "body_cut_off",
            Self::BodyStalled { .. } => "body_stalled",
            Self::StreamStalled { .. } => "stream_stalled",
            Self::NotAnImage { .. } => "not_an_image",
            Self::WrongType { .. } => "wrong_type",
            Self::WrongContentType => "wrong_content_type",
            Self::NoFile => "no_file",
            Self::TooManyFiles => "too_many_files",
            Self::BadMultipart(_) => "bad_multipart",
            Self::Busy { .. } => "busy",
            Self::TooManySessions { .. } => "too_many_sessions",
            Self::Prefetch => "prefetch",
            Self::StoreUnavailable(_) => "store_unavailable",
            Self::StoreFull(_) => "store_full",
        }
    }

    /// Wraps whatever a store's client reported.
    pub fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::StoreUnavailable(cause.into())
    }
}
